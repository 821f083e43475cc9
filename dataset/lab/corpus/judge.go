package corpus

import (
	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

const side = world.Pretraining

// stop ends a claim as a statement, as a question, or not at all.
func stop(r *prng.Source, claim string) string {
	return claim + world.Pick(r, []string{".", ".", "?", ""})
}

func judgeEvent(r *prng.Source) Pair {
	who := side.Cast(r, 2)
	e := world.NewEvent(r, who[0], who[1])
	one, other := world.OtherForms(r)
	if r.IntN(8) == 0 {
		other = one
	}
	claim := e
	if r.IntN(2) == 0 {
		claim = e.Reversed()
	}
	return judge(r, yesNo, verdict(claim == e), e.Tell(one)+".", stop(r, claim.Tell(other)))
}

func judgeComparison(r *prng.Source) Pair {
	who := side.Cast(r, 2)
	c := world.NewComparison(r, who[0], who[1])
	claim := c.Claim(r)
	return judge(r, yesNo, verdict(c.Implies(claim)), c.Tell()+".", stop(r, claim.Tell()))
}

func judgeAbility(r *prng.Source) Pair {
	who := side.Cast(r, 2)
	a := world.NewAbility(r, who[0], who[1])
	person, not := world.Pick(r, who), r.IntN(2) == 0
	return judge(r, yesNo, verdict(a.Holds(person, not)), a.Tell()+".", stop(r, a.Claim(person, not)))
}

func judgeScene(r *prng.Source) Pair {
	s := world.NewScene(r, side.Cast(r, 2+r.IntN(2)))
	a := s.NewAttribution(r)
	if r.IntN(3) == 0 {
		return judge(r, yesNo, verdict(a.Holds()), s.Tell(), stop(r, s.Statement(a)))
	}
	return judge(r, yesNo, verdict(a.Holds()), s.Tell(), s.Question(a)+world.Pick(r, []string{"", "?"}))
}

func judgeShopping(r *prng.Source) Pair {
	s := world.NewShopping(r, side.Cast(r, 2))
	thing, i := world.Pick(r, s.All()), r.IntN(2)
	if r.IntN(3) == 0 {
		return judge(r, yesNo, verdict(s.Doer(thing) == i), s.Tell(), s.AskWho(thing), s.Who[i])
	}
	return judge(r, yesNo, verdict(s.Did(i, thing)), s.Tell(), s.Ask(i),
		world.Pick(r, []string{"", "a ", "A ", "the "})+thing)
}

// stances are names for world.Sure, Untrue and Open.
var stances = []string{"yes", "no", "maybe"}

func judgeBelief(r *prng.Source) Pair {
	b := world.NewBeliefs(r, side.Cast(r, 4))
	i := r.IntN(3)
	return judge(r, stances, int(b.Stance[i]), b.Tell(), stop(r, b.Clause(i)))
}

func judgeSense(r *prng.Source) Pair {
	who := side.Cast(r, 2)
	one, other := world.NewUses(r, who)
	answers := yesNo
	if r.IntN(2) == 0 {
		answers = []string{"same", "other"}
	}
	parts := []string{one.Sentence, other.Sentence, one.Word}
	if r.IntN(4) == 0 {
		parts = []string{one.Sentence, other.Gloss}
	}
	return judge(r, answers, verdict(one.Sense == other.Sense), parts...)
}

// chooseScript asks which of two choices goes with a text.
func chooseScript(r *prng.Source) Pair {
	right, wrong := side.Scripts(r)
	who := world.Pick(r, world.People())
	he := world.Capital(world.Pronoun(who))
	given, choice, other := world.Cause(r, right), world.Effect(r, right), world.Effect(r, wrong)
	if r.IntN(2) == 0 {
		given, choice, other = world.Effect(r, right), world.Cause(r, right), world.Cause(r, wrong)
	}
	given, choice, other = who+" "+given+".", he+" "+choice+".", he+" "+other+"."
	switch r.IntN(6) {
	case 0: // the target is the words of the choice
		if r.IntN(2) == 0 {
			return Pair{join(r, given, choice+" or "+other), choice}
		}
		return Pair{join(r, given, other+" or "+choice), choice}
	case 1, 2: // asks whether one choice goes with the text
		if r.IntN(2) == 0 {
			return judge(r, yesNo, 0, given, choice)
		}
		return judge(r, yesNo, 1, given, other)
	}
	if r.IntN(4) == 0 { // the marks of the choices are the labels
		ls := labels(r, 2)
		if r.IntN(2) == 0 {
			return Pair{given + " " + ls[0] + ": " + choice + " " + ls[1] + ": " + other, ls[0]}
		}
		return Pair{given + " " + ls[1] + ": " + other + " " + ls[0] + ": " + choice, ls[0]}
	}
	answer, first, second := 0, choice, other
	if r.IntN(2) == 0 {
		answer, first, second = 1, other, choice
	}
	text := mark(r) + ": " + given + " " + mark(r) + ": " + first + " " + mark(r) + ": " + second
	if r.IntN(3) == 0 {
		text = mark(r) + ": " + first + " " + mark(r) + ": " + second + " " + mark(r) + ": " + given
	}
	head, target := poseTask(r, []string{"first", "second"}, answer)
	return Pair{head + text, target}
}
