package corpus

import (
	"slices"
	"strconv"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// exam is a text of which many things can be asked. Those that judge give one of the answers' numbers, those that ask give words of the
// text; either may be nil.
type exam struct {
	text    string
	answers []string
	judge   func(r *prng.Source) (claim string, answer int)
	ask     func(r *prng.Source) (question, answer string)
}

// exams are all ways of making one. A text with several questions takes little more to read than one with a single question, and what a
// model learns from it is so much more: which of the people, things and labels belongs to which.
var exams = []struct {
	name   string
	weight int
	invent func(r *prng.Source) exam
}{
	{"event", 5, eventExam},
	{"comparison", 3, comparisonExam},
	{"ability", 2, abilityExam},
	{"scene", 5, sceneExam},
	{"shopping", 4, shoppingExam},
	{"belief", 5, beliefExam},
	{"sense", 7, senseExam},
	{"effect", 6, scriptExam},
}

// others are examples of several questions that are no exams.
var others = []struct {
	name   string
	weight int
	invent func(r *prng.Source) Pair
}{
	{"map", 7, severalKeys},
	{"sense", 5, severalSenses},
	{"referent", 6, severalReferents},
	{"script", 4, severalScripts},
	{"fill", 4, severalBlanks},
}

var examBag, otherBag = func() (exam, other []int) {
	for i, e := range exams {
		for range e.weight {
			exam = append(exam, i)
		}
	}
	for i, o := range others {
		for range o.weight {
			other = append(other, i)
		}
	}
	return exam, other
}()

// Several returns pair i of the seed's other stream, whose pairs ask up to six things of one text, and the name of what it teaches. Sources
// are ASCII of at most 300 bytes, targets have 1 to 90.
func Several(seed, i uint64) (Pair, string) {
	r := prng.New("dpt/mini/pretrain/several", seed, i)
	if n := r.IntN(len(examBag) + len(otherBag)); n >= len(examBag) {
		o := others[otherBag[n-len(examBag)]]
		return o.invent(r), "several-" + o.name
	}
	kind := exams[examBag[r.IntN(len(examBag))]]
	return examine(r, kind.invent(r), 2+r.IntN(3), false), "several-" + kind.name
}

// examine asks up to n different things of an exam's text. An easy one mostly answers with the answers themselves, or keeps them in order.
func examine(r *prng.Source, e exam, n int, easy bool) Pair {
	judging := e.ask == nil || e.judge != nil && r.IntN(2) == 0
	next, head := e.ask, ""
	if judging {
		names := e.answers
		head = strings.Join(e.answers, " or ") + ": "
		if r.IntN(3) > 0 && (!easy || r.IntN(2) == 0) {
			names = labels(r, len(e.answers))
			if easy && mostly(r) {
				head = ordered(e.answers, names)
			} else {
				head = mapping(r, e.answers, names)
			}
		}
		next = func(r *prng.Source) (string, string) {
			claim, answer := e.judge(r)
			return claim, names[answer]
		}
	}
	var questions, targets []string
	for range 2 * n { // of few that there are, some come up again
		question, answer := next(r)
		if len(questions) < n && !slices.Contains(questions, question) {
			questions, targets = append(questions, question), append(targets, answer)
		}
	}
	if r.IntN(2) == 0 {
		asked, target := numbered(r, questions, targets)
		return Pair{head + join(r, e.text, asked), target}
	}
	if judging {
		return Pair{head + join(r, e.text, list(r, questions)), strings.Join(targets, " ")}
	}
	return Pair{join(r, e.text, strings.Join(questions, " ")), strings.Join(targets, " ")}
}

// spots are signs that stand behind questions, or in the place of what is wanted, and in the target before the answer.
const spots = "#$%&!^~+<>"

// numbered writes questions with a sign of its own behind each, and the answers with those signs before them. So the answer to a question has a
// place of its own in the source, which a model can find and learn to fill before it learns to count questions.
func numbered(r *prng.Source, questions, answers []string) (asked, target string) {
	var q, a strings.Builder
	for i, n := range r.Perm(len(spots))[:len(questions)] {
		if i > 0 {
			q.WriteByte(' ')
		}
		q.WriteString(questions[i] + " " + spots[n:n+1])
		a.WriteString(spots[n:n+1] + answers[i])
	}
	return q.String(), a.String()
}

// list writes claims one after another, in one of the ways that lists are written.
func list(r *prng.Source, claims []string) string {
	switch r.IntN(4) {
	case 0:
		return strings.Join(claims, "? ") + "?"
	case 1:
		return strings.Join(claims, ". ") + "."
	case 2:
		return strings.Join(claims, "; ")
	}
	var b strings.Builder
	for i, c := range claims {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("(" + strconv.Itoa(i+3) + ") " + c)
	}
	return b.String()
}

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
				claim = claim.Turned()
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

// senseExam has a sentence with an ambiguous word, and others of which each has the word in the same sense or in the other.
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

// scriptExam has one side of what happened to somebody, and others of which each is the other side of it or not.
func scriptExam(r *prng.Source) exam {
	right, wrong := side.ScriptsOf(r, 3)
	return examOfScript(r, right, func(r *prng.Source) int { return world.Pick(r, wrong) })
}

// examOfScript tells one side of a script; claims are of its other side, or of that of a wrong script.
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

// sides are those of a script, either first.
func sides(r *prng.Source) (tell, ask func(r *prng.Source, script int) string) {
	if r.IntN(2) == 0 {
		return world.Effect, world.Cause
	}
	return world.Cause, world.Effect
}

// severalKeys looks up some of three to eight keys.
func severalKeys(r *prng.Source) Pair {
	n := 3 + r.IntN(6)
	values := labels(r, n)
	keys := labels(r, n)
	var wanted, targets []string
	for range 2 + r.IntN(5) {
		i := r.IntN(n)
		wanted, targets = append(wanted, keys[i]), append(targets, values[i])
	}
	return Pair{mapping(r, keys, values) + strings.Join(wanted, " "), strings.Join(targets, " ")}
}

// severalSenses explains each of four uses of two words.
func severalSenses(r *prng.Source) Pair {
	who := side.Cast(r, 4)
	a, b := world.NewUses(r, who[:2])
	c, d := world.NewUses(r, who[2:])
	uses := []world.Use{a, b, c, d}
	var texts, targets []string
	for _, i := range r.Perm(len(uses)) {
		texts, targets = append(texts, uses[i].Sentence), append(targets, uses[i].Gloss)
	}
	return Pair{strings.Join(texts, " "), strings.Join(targets, "; ")}
}

// severalReferents names whom each of two pronouns stands for.
func severalReferents(r *prng.Source) Pair {
	who := side.CastAlike(r, 4)
	one, other := world.NewTwin(r, who[:2]), world.NewTwin(r, who[2:])
	pronoun := world.Pronoun(who[0])
	marked := world.Pick(r, []string{"[?]", "<?>", "(?)", "_?_", "#?#"})
	pronoun = marked[:1] + pronoun + marked[2:]
	ask := world.Pick(r, []string{"who? ", "name: ", "ref ", "which one: ", "X = ", ""})
	return Pair{ask + one.Tell(pronoun) + " " + other.Tell(pronoun), one.Referent() + " " + other.Referent()}
}

// severalScripts asks to whom of two people, each in a script of their own, other parts of the scripts belong.
func severalScripts(r *prng.Source) Pair {
	first, second := side.Scripts(r)
	who := side.Cast(r, 2)
	scripts := []int{first, second}
	tell, ask := sides(r)
	text := who[0] + " " + tell(r, first) + ". " + who[1] + " " + tell(r, second) + "."
	var questions, targets []string
	for range 2 + r.IntN(2) {
		i := r.IntN(2)
		questions, targets = append(questions, "Who "+ask(r, scripts[i])+"?"), append(targets, who[i])
	}
	return Pair{join(r, text, strings.Join(questions, " ")), strings.Join(targets, " ")}
}

// severalBlanks tells two events again without any name.
func severalBlanks(r *prng.Source) Pair {
	who := side.Cast(r, 4)
	events := []world.Event{world.NewEvent(r, who[0], who[1]), world.NewEvent(r, who[2], who[3])}
	if events[0].Same(events[1]) {
		return severalBlanks(r)
	}
	text := events[0].Tell(world.AnyForm(r)) + ". " + events[1].Tell(world.AnyForm(r)) + "."
	blank := world.Pick(r, blanks)
	signs := []int(nil)
	if r.IntN(2) == 0 {
		signs = r.Perm(len(spots))
	}
	var again, targets []string
	for _, i := range r.Perm(2) {
		e := events[i]
		form := world.AnyForm(r)
		first, second := e.Agent, e.Patient
		if told := e.Tell(form); strings.Index(told, second) < strings.Index(told, first) {
			first, second = second, first
		}
		one, two := blank, blank
		if signs != nil {
			one, two = spots[signs[len(targets)]:][:1], spots[signs[len(targets)+1]:][:1]
			first, second = one+first, two+second
		}
		targets = append(targets, first, second)
		if strings.HasSuffix(first, e.Agent) {
			e.Agent, e.Patient = one, two
		} else {
			e.Agent, e.Patient = two, one
		}
		again = append(again, e.Tell(form)+".")
	}
	if signs != nil {
		return Pair{join(r, text, strings.Join(again, " ")), strings.Join(targets, "")}
	}
	return Pair{join(r, text, strings.Join(again, " ")), strings.Join(targets, " ")}
}
