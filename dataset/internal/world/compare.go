package world

import "github.com/dptune/dpt/dataset/internal/prng"

// scales are pairs of opposite comparatives.
var scales = [][2]string{{"older", "younger"}, {"taller", "shorter"}, {"richer", "poorer"}, {"faster", "slower"}, {"stronger", "weaker"}}

// Comparison says that X is more (of the scale's word) than Y, or that X is not.
type Comparison struct {
	scale, word int
	X, Y        string
	Not         bool
}

// NewComparison draws a comparison of two people that holds no "not".
func NewComparison(r *prng.Source, x, y string) Comparison {
	return Comparison{scale: r.IntN(len(scales)), word: r.IntN(2), X: x, Y: y}
}

// Claim draws a comparison of the same two people on the same scale, true or not.
func (c Comparison) Claim(r *prng.Source) Comparison {
	claim := Comparison{scale: c.scale, word: r.IntN(2), X: c.X, Y: c.Y, Not: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		claim.X, claim.Y = claim.Y, claim.X
	}
	return claim
}

// SameWord tells whether two comparisons on one scale use the same word.
func (c Comparison) SameWord(other Comparison) bool { return c.word == other.word }

// Implies tells whether a claim about the same people and scale holds where c, without "not", does: people are never equal.
func (c Comparison) Implies(claim Comparison) bool {
	same := c.X == claim.X == (c.word == claim.word)
	return same != claim.Not
}

// Tell is the comparison as a sentence without its full stop.
func (c Comparison) Tell() string {
	not := ""
	if c.Not {
		not = "not "
	}
	return c.X + " is " + not + scales[c.scale][c.word] + " than " + c.Y
}

// Opposite says the same with the opposite word.
func (c Comparison) Opposite() Comparison {
	c.word, c.X, c.Y = 1-c.word, c.Y, c.X
	return c
}

// AskMost asks who is more of one of the scale's words; Most is the answer.
func (c Comparison) AskMost(word int) string { return "Who is " + scales[c.scale][word] + "?" }
func (c Comparison) Most(word int) string {
	if word == c.word {
		return c.X
	}
	return c.Y
}

// skills are what people can do or cannot.
var skills = []string{"swim", "sing", "cook", "ski", "dance", "drive", "paint", "read", "whistle", "juggle"}

// Ability says that one of two people can do what the other cannot. First says whether the one who can is named first.
type Ability struct {
	Can, Cannot, skill string
	first              bool
}

// NewAbility draws what one can and the other cannot do.
func NewAbility(r *prng.Source, can, cannot string) Ability {
	return Ability{Can: can, Cannot: cannot, skill: Pick(r, skills), first: r.IntN(2) == 0}
}

// Tell is the ability as a sentence without its full stop.
func (a Ability) Tell() string {
	if a.first {
		return a.Can + " can " + a.skill + " but " + a.Cannot + " can not"
	}
	return a.Cannot + " can not " + a.skill + " but " + a.Can + " can"
}

// Claim says that a person can, or with not, that the person cannot.
func (a Ability) Claim(person string, not bool) string {
	if not {
		return person + " can not " + a.skill
	}
	return person + " can " + a.skill
}

// Holds tells whether the claim is true.
func (a Ability) Holds(person string, not bool) bool { return (person == a.Can) != not }

// Ask is a question whose answer is who can, or with not, who cannot.
func (a Ability) Ask(not bool) (question, answer string) {
	if not {
		return "Who can not " + a.skill + "?", a.Cannot
	}
	return "Who can " + a.skill + "?", a.Can
}
