package corpus

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// In the tasks, two or three things together decide an answer, and none of them alone tells
// anything: whether a sentence is passive and whose reason it gives, or the order of the names, the
// comparative and a "not". A model that starts from nothing hardly finds that. Where one of these
// things mostly has its plain value, as in everyday language, the effect of the others shows first,
// and its own effect later. So these texts are mostly in the active voice, claims mostly repeat the
// words of the text, and some texts tell of one thing only.

// easyExams are the kinds of easy exam.
var easyExams = []struct {
	name   string
	weight int
	invent func(r *prng.Source) exam
}{
	{"event", 6, easyEvent},
	{"comparison", 4, easyComparison},
	{"ability", 2, easyAbility},
	{"scene", 5, easyScene},
	{"shopping", 3, shoppingExam},
	{"belief", 5, easyBelief},
	{"script", 4, easyScript},
	{"sense", 4, senseExam},
}

var easyBag = weightedBag(len(easyExams), func(i int) int { return easyExams[i].weight })

// Easy returns pair i of the seed's third stream, which asks one to three questions about an easy
// text, and the name of what it teaches. The bounds are those of Several.
func Easy(seed, i uint64) (Pair, string) {
	r := prng.New("dpt/mini/pretrain/easy", seed, i)
	switch r.IntN(10) {
	case 0, 1:
		return easyReferents(r), "easy-referent"
	case 2:
		return easyKeys(r), "easy-map"
	}
	kind := easyExams[easyBag[r.IntN(len(easyBag))]]
	n := 1
	if r.IntN(2) == 0 {
		n += 1 + r.IntN(2)
	}
	return examine(r, kind.invent(r), n, true), "easy-" + kind.name
}

// mostly is true three times in four.
func mostly(r *prng.Source) bool { return r.IntN(4) > 0 }

// easyForm draws a form, mostly the active voice.
func easyForm(r *prng.Source) world.Form {
	if r.IntN(3) > 0 {
		return world.Active
	}
	return world.AnyForm(r)
}

func easyEvent(r *prng.Source) exam {
	who := side.Cast(r, 2)
	e := world.NewEvent(r, who[0], who[1])
	form := easyForm(r)
	return exam{
		text: e.Tell(form) + ".", answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			claim, as := e, form
			if r.IntN(2) == 0 {
				claim = e.Reversed()
			}
			if r.IntN(2) == 0 {
				as = easyForm(r)
			}
			return claim.Tell(as), verdict(claim == e)
		},
		ask: func(r *prng.Source) (string, string) {
			if r.IntN(2) == 0 {
				return e.AskAgent(), e.Agent
			}
			return e.AskPatient(), e.Patient
		},
	}
}

func easyComparison(r *prng.Source) exam {
	who := side.Cast(r, 2)
	c := world.NewComparison(r, who[0], who[1])
	return exam{
		text: c.Tell() + ".", answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			claim := c.Claim(r)
			for mostly(r) && (claim.Not || !claim.SameWord(c)) {
				claim = c.Claim(r)
			}
			return claim.Tell(), verdict(c.Implies(claim))
		},
		ask: func(r *prng.Source) (string, string) {
			word := r.IntN(2)
			if mostly(r) && c.Most(word) != c.X {
				word = 1 - word
			}
			return c.AskMost(word), c.Most(word)
		},
	}
}

func easyAbility(r *prng.Source) exam {
	who := side.Cast(r, 2)
	a := world.NewAbility(r, who[0], who[1])
	for mostly(r) && !strings.HasPrefix(a.Tell(), a.Can) {
		a = world.NewAbility(r, who[0], who[1])
	}
	return exam{
		text: a.Tell() + ".", answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			person, not := world.Pick(r, who), !mostly(r)
			return a.Claim(person, not), verdict(a.Holds(person, not))
		},
		ask: func(r *prng.Source) (string, string) { return a.Ask(!mostly(r)) },
	}
}

func easyScene(r *prng.Source) exam {
	s := world.NewScene(r, side.Cast(r, 2))
	text := s.Tell()
	if r.IntN(3) == 0 { // tells of one of the two only; false claims are about the other
		text = s.Sentence(0)
	}
	return exam{
		text: text, answers: yesNo,
		judge: func(r *prng.Source) (string, int) {
			a := s.NewAttribution(r)
			for text == s.Sentence(0) && a.Holds() && a.Thing != 0 {
				a = s.NewAttribution(r)
			}
			if r.IntN(2) == 0 {
				return s.Statement(a), verdict(a.Holds())
			}
			return s.Question(a), verdict(a.Holds())
		},
	}
}

func easyBelief(r *prng.Source) exam {
	b := world.NewBeliefs(r, side.Cast(r, 4))
	i := r.IntN(3)
	if r.IntN(3) == 0 {
		return exam{
			text: b.Tell(), answers: stances,
			judge: func(*prng.Source) (string, int) { return b.Clause(0), int(b.Stance[0]) },
		}
	}
	return exam{
		text: b.Holder + " " + b.Attitude(i) + " " + b.Clause(i) + ".", answers: stances,
		judge: func(*prng.Source) (string, int) { return b.Clause(i), int(b.Stance[i]) },
	}
}

// easyScript puts one person in a script; claims are the other side of it, or of one other script.
func easyScript(r *prng.Source) exam {
	right, wrong := side.Scripts(r)
	return examOfScript(r, right, func(*prng.Source) int { return wrong })
}

// easyReferents asks whom the pronouns of one or two sentences stand for, mostly in the active
// voice.
func easyReferents(r *prng.Source) Pair {
	who := side.CastAlike(r, 4)
	n := 1 + r.IntN(2)
	var texts, targets []string
	for i := range n {
		t := world.NewTwin(r, who[2*i:2*i+2])
		t.Passive = !mostly(r)
		pronoun := world.Pronoun(who[0])
		if r.IntN(2) == 0 {
			pronoun = "[" + pronoun + "]"
		}
		texts, targets = append(texts, t.Tell(pronoun)), append(targets, t.Referent())
	}
	return Pair{"who? " + strings.Join(texts, " "), strings.Join(targets, " ")}
}

// easyKeys gives letters and digits as keys and values and asks for some of the values.
func easyKeys(r *prng.Source) Pair {
	const keys = "abcdefghijklmnopqrstuvwxyz3456789"
	n := 2 + r.IntN(3)
	of, to := r.Perm(len(keys))[:n], r.Perm(len(keys))[:n]
	var pairs, wanted, targets []string
	for i := range n {
		pairs = append(pairs, keys[of[i]:of[i]+1]+"="+keys[to[i]:to[i]+1])
	}
	for range 1 + r.IntN(3) {
		i := r.IntN(n)
		wanted, targets = append(wanted, keys[of[i]:of[i]+1]), append(targets, keys[to[i]:to[i]+1])
	}
	return Pair{strings.Join(pairs, " ") + ": " + strings.Join(wanted, " "), strings.Join(targets, " ")}
}
