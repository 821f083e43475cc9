package mini

import (
	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// entailment is a line of CB and of RTE.
type entailment struct {
	Premise    string `json:"premise"`
	Hypothesis string `json:"hypothesis"`
	Label      string `json:"label,omitempty"`
	Idx        int    `json:"idx"`
}

func (l *entailment) key() string       { return l.Premise + "|" + l.Hypothesis }
func (l *entailment) number(c *counter) { l.Idx = postIncrement(&c.line) }
func (l *entailment) unlabel()          { l.Label = "" }

var (
	cbLabels  = [world.Stances]string{world.Sure: "entailment", world.Untrue: "contradiction", world.Open: "neutral"}
	rteLabels = []string{"not_entailment", "entailment"}
)

// inventCB tells what somebody knows, makes up and wonders about, and asks about one of the three.
// Each premise has a clause of each stance, so that its words do not tell which of them is asked
// about.
func inventCB(r *prng.Source) (line, int) {
	b := world.NewBeliefs(r, side.Cast(r, 4))
	i := r.IntN(3)
	return &entailment{Premise: b.Tell(), Hypothesis: b.Clause(i), Label: cbLabels[b.Stance[i]]}, int(b.Stance[i])
}

// inventRTE tells what one person did to another, how two people compare, or what one can do and
// the other cannot. The hypothesis is about the same two, with their roles kept or exchanged, in
// other words.
func inventRTE(r *prng.Source) (line, int) {
	who := side.Cast(r, 2)
	var premise, hypothesis string
	var follows bool
	switch r.IntN(4) {
	default:
		e := world.NewEvent(r, who[0], who[1])
		claim := e
		if r.IntN(2) == 0 {
			claim = e.Reversed()
		}
		told, asked := world.OtherForms(r)
		premise, hypothesis, follows = e.Tell(told), claim.Tell(asked), claim == e
	case 2:
		c := world.NewComparison(r, who[0], who[1])
		claim := c.Claim(r)
		for claim.SameWord(c) { // the amount of repetition would be a cue
			claim = c.Claim(r)
		}
		premise, hypothesis, follows = c.Tell(), claim.Tell(), c.Implies(claim)
	case 3:
		a := world.NewAbility(r, who[0], who[1])
		person, not := world.Pick(r, who), r.IntN(2) == 0
		premise, hypothesis, follows = a.Tell(), a.Claim(person, not), a.Holds(person, not)
	}
	class := classOf(follows)
	return &entailment{Premise: premise + ".", Hypothesis: hypothesis + ".", Label: rteLabels[class]}, class
}
