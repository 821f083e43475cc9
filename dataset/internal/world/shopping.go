package world

import (
	"slices"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// deals are what people do with two things each: past tense and infinitive.
var deals = [][2]string{{"bought", "buy"}, {"found", "find"}, {"broke", "break"}, {"lost", "lose"}, {"saw", "see"}}

// Shopping is two people and what each of them did with two things.
type Shopping struct {
	Who    []string
	deal   int
	Things [2][2]string
}

// NewShopping draws what two people did.
func NewShopping(r *prng.Source, who []string) Shopping {
	t := Distinct(r, things, 4)
	return Shopping{Who: who, deal: r.IntN(len(deals)), Things: [2][2]string{{t[0], t[1]}, {t[2], t[3]}}}
}

// Tell tells what both did.
func (s Shopping) Tell() string {
	var b strings.Builder
	for i := range 2 {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s.Who[i] + " " + deals[s.deal][0] + " a " + s.Things[i][0] + " and a " + s.Things[i][1] + ".")
	}
	return b.String()
}

// Ask asks which things person i did it with.
func (s Shopping) Ask(i int) string { return "What did " + s.Who[i] + " " + deals[s.deal][1] + "?" }

// Did reports whether person i did it with the thing.
func (s Shopping) Did(i int, thing string) bool { return slices.Contains(s.Things[i][:], thing) }

// AskWho asks who did it with a thing. Doer is the answer.
func (s Shopping) AskWho(thing string) string {
	return "Who " + deals[s.deal][0] + " the " + thing + "?"
}

// Doer is the number of the person who did it with the thing.
func (s Shopping) Doer(thing string) int {
	if s.Did(0, thing) {
		return 0
	}
	return 1
}

// All are the four things.
func (s Shopping) All() []string {
	return []string{s.Things[0][0], s.Things[0][1], s.Things[1][0], s.Things[1][1]}
}
