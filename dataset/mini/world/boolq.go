package world

import "github.com/dptune/dpt/dataset/internal/prng"

type boolQ struct {
	Question string `json:"question"`
	Passage  string `json:"passage"`
	Idx      int    `json:"idx"`
	Label    *bool  `json:"label,omitempty"`
}

func (l *boolQ) key() string       { return l.Passage + "|" + l.Question }
func (l *boolQ) number(c *counter) { l.Idx = next(&c.line) }
func (l *boolQ) unlabel()          { l.Label = nil }

// inventBoolQ tells of two people and their things, and asks for a color, a place or an owner. The wrong answer of each kind is
// the right one for the other person's thing, so that a reader must find the right sentence.
func inventBoolQ(r *prng.Source, class int) line {
	yes := class == 1
	who, what := distinct(r, people, 2), distinct(r, things, 2)
	color, where := distinct(r, colors, 2), distinct(r, places, 2)
	has := make([]string, 2)
	is := make([]string, 2)
	for i := range 2 {
		has[i] = who[i] + " has a " + color[i] + " " + what[i] + "."
		is[i] = "The " + what[i] + " is " + where[i] + "."
	}
	passage := has[0] + " " + is[0] + " " + has[1] + " " + is[1]
	if r.IntN(2) == 0 {
		passage = has[0] + " " + has[1] + " " + is[1] + " " + is[0]
	}
	about := r.IntN(2)
	said := about
	if !yes {
		said = 1 - about
	}
	var question string
	switch r.IntN(3) {
	case 0:
		question = "is the " + what[about] + " " + color[said]
	case 1:
		question = "is the " + what[about] + " " + where[said]
	case 2:
		question = fill("does {P} have a {T}", "P", lower(who[about]), "T", what[said])
	}
	return &boolQ{Question: question, Passage: passage, Label: &yes}
}
