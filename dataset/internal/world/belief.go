package world

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// Stance is how far a speaker's words commit to the clause that they embed.
type Stance int

const (
	Sure   Stance = iota // the clause is true
	Untrue               // the clause is false
	Open                 // the clause may be true or false
	Stances
)

// attitudes are the words between a person and a clause, by stance.
var attitudes = [Stances][]string{
	{"knows that", "saw that", "is glad that", "forgot that", "found out that", "is sad that"},
	{"lied that", "only dreamed that", "falsely said that", "pretends that", "made it up that", "wrongly thinks that"},
	{"hopes that", "thinks that", "guesses that", "asks if", "wonders if", "fears that"},
}

// deeds need no object.
var deeds = []string{
	"sang", "fell", "won", "left", "slept", "yawned", "hummed", "ran", "danced", "moved", "quit", "hid", "swam",
	"prayed",
}

// Beliefs are what a person knows, makes up and wonders about three others: one clause of each
// stance, in some order.
type Beliefs struct {
	Holder  string
	subject [3]string
	deed    [3]string
	word    [3]int
	Stance  [3]Stance
}

// NewBeliefs draws beliefs: the first of the four people holds them.
func NewBeliefs(r *prng.Source, who []string) Beliefs {
	b := Beliefs{Holder: who[0], subject: [3]string(who[1:4]), deed: [3]string(Distinct(r, deeds, 3))}
	b.Stance = [3]Stance(Distinct(r, []Stance{Sure, Untrue, Open}, 3))
	for i, s := range b.Stance {
		b.word[i] = r.IntN(len(attitudes[s]))
	}
	return b
}

// Clause is clause i without what the holder thinks of it.
func (b Beliefs) Clause(i int) string { return b.subject[i] + " " + b.deed[i] }

// Attitude is what the holder thinks of clause i.
func (b Beliefs) Attitude(i int) string { return attitudes[b.Stance[i]][b.word[i]] }

// Tell tells all three beliefs in one sentence.
func (b Beliefs) Tell() string {
	parts := make([]string, 3)
	for i := range parts {
		parts[i] = b.Attitude(i) + " " + b.Clause(i)
	}
	return b.Holder + " " + strings.Join(parts[:2], ", ") + " and " + parts[2] + "."
}
