package world

import "github.com/dptune/dpt/dataset/internal/prng"

// scales are pairs of opposite comparatives.
var scales = [][2]string{
	{"older", "younger"}, {"taller", "shorter"}, {"richer", "poorer"}, {"faster", "slower"}, {"stronger", "weaker"},
}

// Comparison states that X is more than Y in terms of the scale's word, or with Not, that X is not.
type Comparison struct {
	scale, word int
	X, Y        string
	Not         bool
}

// NewComparison draws a comparison of two people without a "not".
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

// SameWord reports whether two comparisons on one scale use the same word.
func (c Comparison) SameWord(other Comparison) bool { return c.word == other.word }

// Implies reports whether a claim about the same people and scale holds where c, without "not",
// does. People are never equal.
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

// Opposite is the same fact told with the opposite word.
func (c Comparison) Opposite() Comparison {
	c.word, c.X, c.Y = 1-c.word, c.Y, c.X
	return c
}

// AskMost is the question who is more in terms of one of the scale's words. Most is its answer.
func (c Comparison) AskMost(word int) string { return "Who is " + scales[c.scale][word] + "?" }

// Most is the answer to AskMost.
func (c Comparison) Most(word int) string {
	if word == c.word {
		return c.X
	}
	return c.Y
}

// skills are what one person can do and another cannot.
var skills = []string{"swim", "sing", "cook", "ski", "dance", "drive", "paint", "read", "whistle", "juggle"}

// Ability states that one of two people can do what the other cannot.
type Ability struct {
	Can, Cannot string // the two people
	skill       string
	canFirst    bool // Tell names Can before Cannot
}

// NewAbility draws what one can and the other cannot do.
func NewAbility(r *prng.Source, can, cannot string) Ability {
	return Ability{Can: can, Cannot: cannot, skill: Pick(r, skills), canFirst: r.IntN(2) == 0}
}

// Tell is the ability as a sentence without its full stop.
func (a Ability) Tell() string {
	if a.canFirst {
		return a.Can + " can " + a.skill + " but " + a.Cannot + " can not"
	}
	return a.Cannot + " can not " + a.skill + " but " + a.Can + " can"
}

// Claim states that a person can, or with not, that the person cannot.
func (a Ability) Claim(person string, not bool) string {
	if not {
		return person + " can not " + a.skill
	}
	return person + " can " + a.skill
}

// Holds reports whether the claim is true.
func (a Ability) Holds(person string, not bool) bool { return (person == a.Can) != not }

// Ask asks who can, or with not, who cannot.
func (a Ability) Ask(not bool) (question, answer string) {
	if not {
		return "Who can not " + a.skill + "?", a.Cannot
	}
	return "Who can " + a.skill + "?", a.Can
}
