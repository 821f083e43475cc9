package corpus

import (
	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

func askEvent(r *prng.Source) Pair {
	who := side.Cast(r, 2)
	e := world.NewEvent(r, who[0], who[1])
	text := e.Tell(world.AnyForm(r)) + "."
	if r.IntN(2) == 0 {
		return Pair{join(r, text, e.AskAgent()), e.Agent}
	}
	return Pair{join(r, text, e.AskPatient()), e.Patient}
}

func askComparison(r *prng.Source) Pair {
	who := side.Cast(r, 2)
	c := world.NewComparison(r, who[0], who[1])
	word := r.IntN(2)
	return Pair{join(r, c.Tell()+".", c.AskMost(word)), c.Most(word)}
}

func askAbility(r *prng.Source) Pair {
	who := side.Cast(r, 2)
	a := world.NewAbility(r, who[0], who[1])
	ask, target := a.Ask(r.IntN(2) == 0)
	return Pair{join(r, a.Tell()+".", ask), target}
}

func askScene(r *prng.Source) Pair {
	s := world.NewScene(r, side.Cast(r, 2+r.IntN(2)))
	question, answer := askOfScene(r, s)
	return Pair{join(r, s.Tell(), question), answer}
}

// askOfScene asks for a thing, its owner, its color or its place.
func askOfScene(r *prng.Source, s world.Scene) (question, answer string) {
	i := r.IntN(len(s.Things))
	switch r.IntN(4) {
	case 0:
		return "Who has the " + s.Things[i] + "?", s.Owners[i]
	case 1:
		return "What does " + s.Owners[i] + " have?", s.Things[i]
	case 2:
		if s.Placed {
			return "What is in the " + s.Values[i] + "?", s.Things[i]
		}
		return "What is " + s.Values[i] + "?", s.Things[i]
	}
	if s.Placed {
		return "Where is the " + s.Things[i] + "?", s.Values[i]
	}
	return "What color is the " + s.Things[i] + "?", s.Values[i]
}

func askShopping(r *prng.Source) Pair {
	s := world.NewShopping(r, side.Cast(r, 2))
	i := r.IntN(2)
	if r.IntN(2) == 0 {
		return Pair{join(r, s.Tell(), s.Ask(i)), s.Things[i][0] + " and " + s.Things[i][1]}
	}
	thing := world.Pick(r, s.All())
	return Pair{join(r, s.Tell(), s.AskWho(thing)), s.Who[s.Doer(thing)]}
}

// askBelief asks what somebody thinks of a clause, or which clause somebody thinks that of.
func askBelief(r *prng.Source) Pair {
	b := world.NewBeliefs(r, side.Cast(r, 4))
	i := r.IntN(3)
	if r.IntN(2) == 0 {
		return Pair{join(r, b.Tell(), b.Holder+" ... "+b.Clause(i)), b.Attitude(i)}
	}
	return Pair{join(r, b.Tell(), b.Holder+" "+b.Attitude(i)+" ..."), b.Clause(i)}
}

func askSense(r *prng.Source) Pair {
	one, other := world.NewUses(r, side.Cast(r, 2))
	if r.IntN(2) == 0 {
		return Pair{join(r, one.Sentence, "What is a "+one.Word+"?"), one.Gloss}
	}
	return Pair{join(r, one.Sentence, other.Sentence, one.Word), one.Gloss + "; " + other.Gloss}
}

func askReferent(r *prng.Source) Pair {
	who := side.CastAlike(r, 2)
	t := world.NewTwin(r, who)
	text := t.Tell(world.Pronoun(who[0]))
	switch r.IntN(5) {
	case 0:
		return judge(r, yesNo, verdict(t.Agent == t.Referent()), text, t.Agent+" "+t.Reason()+".")
	case 1:
		return judge(r, yesNo, verdict(t.Patient == t.Referent()), text, t.Patient+" "+t.Reason()+".")
	case 2:
		return Pair{join(r, text, "Who "+t.Reason()+"?"), t.Referent()}
	}
	ask := world.Pick(r, []string{"who? ", "name: ", "ref ", "which one: ", "X = ", ""})
	marked := world.Pick(r, []string{"[?]", "<?>", "(?)", "_?_", "#?#"})
	pronoun := world.Pronoun(who[0])
	return Pair{ask + t.Tell(marked[:1]+pronoun+marked[2:]), t.Referent()}
}
