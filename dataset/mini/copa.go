package mini

import (
	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

type copa struct {
	Premise  string `json:"premise"`
	Choice1  string `json:"choice1"`
	Choice2  string `json:"choice2"`
	Question string `json:"question"`
	Label    *int   `json:"label,omitempty"`
	Idx      int    `json:"idx"`
}

func (l *copa) key() string       { return l.Question + "|" + l.Premise + "|" + l.Choice1 + "|" + l.Choice2 }
func (l *copa) number(c *counter) { l.Idx = postIncrement(&c.line) }
func (l *copa) unlabel()          { l.Label = nil }

// inventCOPA gives the cause or the effect of what happened to somebody and asks for the other. The
// wrong choice comes from another script.
func inventCOPA(r *prng.Source) (line, int) {
	right, wrong := side.Scripts(r)
	given, other := world.Cause, world.Effect
	l := &copa{Question: "effect"}
	if r.IntN(2) == 0 {
		given, other = other, given
		l.Question = "cause"
	}
	choices, label := [2]int{right, wrong}, 0
	if r.IntN(2) == 0 {
		choices, label = [2]int{wrong, right}, 1
	}
	who := world.Pick(r, world.People())
	he := world.Capital(world.Pronoun(who))
	l.Premise = who + " " + given(r, right) + "."
	l.Choice1 = he + " " + other(r, choices[0]) + "."
	l.Choice2 = he + " " + other(r, choices[1]) + "."
	l.Label = &label
	return l, label
}
