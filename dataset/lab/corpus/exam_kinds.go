package corpus

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

func eventExam(r *prng.Source) exam {
	who := side.Cast(r, 4)
	events := []world.Event{world.NewEvent(r, who[0], who[1])}
	if e := world.NewEvent(r, who[2], who[3]); e.AskAgent() != events[0].AskAgent() {
		events = append(events, e)
	}
	forms := []world.Form{world.AnyForm(r), world.AnyForm(r)}
	var b []string
	for i, e := range events {
		b = append(b, e.Tell(forms[i])+".")
	}
	return exam{
		text: strings.Join(b, " "), answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			i := r.IntN(len(events))
			claim := events[i]
			if r.IntN(2) == 0 {
				claim = claim.Reversed()
			}
			return claim.Tell(world.AnyForm(r)), verdict(claim == events[i])
		},
		ask: func(r *prng.Source) (string, string) {
			e := world.Pick(r, events)
			if r.IntN(2) == 0 {
				return e.AskAgent(), e.Agent
			}
			return e.AskPatient(), e.Patient
		},
	}
}

func comparisonExam(r *prng.Source) exam {
	who := side.Cast(r, 4)
	cs := []world.Comparison{world.NewComparison(r, who[0], who[1])}
	if c := world.NewComparison(r, who[2], who[3]); c.AskMost(0) != cs[0].AskMost(0) {
		cs = append(cs, c)
	}
	var b []string
	for _, c := range cs {
		b = append(b, c.Tell()+".")
	}
	return exam{
		text: strings.Join(b, " "), answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			c := world.Pick(r, cs)
			claim := c.Claim(r)
			return claim.Tell(), verdict(c.Implies(claim))
		},
		ask: func(r *prng.Source) (string, string) {
			c, word := world.Pick(r, cs), r.IntN(2)
			return c.AskMost(word), c.Most(word)
		},
	}
}

func abilityExam(r *prng.Source) exam {
	who := side.Cast(r, 4)
	as := []world.Ability{world.NewAbility(r, who[0], who[1])}
	question, _ := as[0].Ask(false)
	b := world.NewAbility(r, who[2], who[3])
	if q, _ := b.Ask(false); q != question {
		as = append(as, b)
	}
	var text []string
	for _, a := range as {
		text = append(text, a.Tell()+".")
	}
	return exam{
		text: strings.Join(text, " "), answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			a, not := world.Pick(r, as), r.IntN(2) == 0
			person := a.Can
			if r.IntN(2) == 0 {
				person = a.Cannot
			}
			return a.Claim(person, not), verdict(a.Holds(person, not))
		},
		ask: func(r *prng.Source) (string, string) { return world.Pick(r, as).Ask(r.IntN(2) == 0) },
	}
}

func sceneExam(r *prng.Source) exam {
	s := world.NewScene(r, side.Cast(r, 2+r.IntN(2)))
	statements := r.IntN(2) == 0
	return exam{
		text: s.Tell(), answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			a := s.NewAttribution(r)
			if statements {
				return s.Statement(a), verdict(a.Holds())
			}
			return s.Question(a), verdict(a.Holds())
		},
		ask: func(r *prng.Source) (string, string) { return askOfScene(r, s) },
	}
}

func shoppingExam(r *prng.Source) exam {
	s := world.NewShopping(r, side.Cast(r, 2))
	who := r.IntN(2)
	return exam{
		text: s.Tell(), answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			thing := world.Pick(r, s.All())
			return s.Ask(who) + " A " + thing, verdict(s.Did(who, thing))
		},
		ask: func(r *prng.Source) (string, string) {
			if r.IntN(3) == 0 {
				i := r.IntN(2)
				return s.Ask(i), s.Things[i][0] + " and " + s.Things[i][1]
			}
			thing := world.Pick(r, s.All())
			return s.AskWho(thing), s.Who[s.Doer(thing)]
		},
	}
}

func beliefExam(r *prng.Source) exam {
	b := world.NewBeliefs(r, side.Cast(r, 4))
	return exam{
		text: b.Tell(), answers: stances,
		judge: func(r *prng.Source) (string, int) {
			i := r.IntN(3)
			return b.Clause(i), int(b.Stance[i])
		},
	}
}

// senseExam gives a sentence with an ambiguous word. Its questions are other sentences with the
// word, in the same sense or in the other.
func senseExam(r *prng.Source) exam {
	who := side.Cast(r, 6)
	uses := world.NewUsesOf(r, who)
	return exam{
		text: uses[0].Sentence, answers: []string{"same", "other"},
		judge: func(r *prng.Source) (string, int) {
			u := uses[1+r.IntN(len(uses)-1)]
			return u.Sentence, verdict(u.Sense == uses[0].Sense)
		},
		ask: func(r *prng.Source) (string, string) {
			u := world.Pick(r, uses)
			return u.Sentence, u.Gloss
		},
	}
}

// scriptExam gives one side of what happened to somebody. Its claims are the other side of it, or
// of another script.
func scriptExam(r *prng.Source) exam {
	right, wrong := side.ScriptsOf(r, 3)
	return examOfScript(r, right, func(r *prng.Source) int { return world.Pick(r, wrong) })
}

// examOfScript tells one side of the right script. Claims are its other side, or that of a script
// that wrong draws.
func examOfScript(r *prng.Source, right int, wrong func(r *prng.Source) int) exam {
	who := world.Pick(r, world.People())
	he := world.Capital(world.Pronoun(who))
	tell, ask := sides(r)
	return exam{
		text: who + " " + tell(r, right) + ".", answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			if r.IntN(2) == 0 {
				return he + " " + ask(r, right), 0
			}
			return he + " " + ask(r, wrong(r)), 1
		},
	}
}

// sides draws which side of a script is told and which is asked for.
func sides(r *prng.Source) (tell, ask func(r *prng.Source, script int) string) {
	if r.IntN(2) == 0 {
		return world.Effect, world.Cause
	}
	return world.Cause, world.Effect
}
