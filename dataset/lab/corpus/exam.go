package corpus

import (
	"slices"
	"strconv"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// exam is a text with many possible questions about it. One of judge and ask may be nil.
type exam struct {
	text    string
	answers []string // that judge chooses from
	// judge draws a claim and the index of the answer that is right for it.
	judge func(r *prng.Source) (claim string, answer int)
	// ask draws a question whose answer is words of the text.
	ask func(r *prng.Source) (question, answer string)
}

// exams are all kinds of exam. A text with several questions takes little more time to read than
// one with a single question, and it teaches a model much more: which of the people, things and
// labels belong together.
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

// otherPairs are kinds of pairs that ask several things but are no exams.
var otherPairs = []struct {
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

// examBag and otherBag are what Several draws from: a number for each unit of weight.
var (
	examBag  = weightedBag(len(exams), func(i int) int { return exams[i].weight })
	otherBag = weightedBag(len(otherPairs), func(i int) int { return otherPairs[i].weight })
)

// Several returns pair i of the seed's second stream, which asks up to six things of one text, and
// the name of what it teaches. Sources are ASCII of at most 300 bytes, targets have 1 to 90.
func Several(seed, i uint64) (Pair, string) {
	r := prng.New("dpt/mini/pretrain/several", seed, i)
	if n := r.IntN(len(examBag) + len(otherBag)); n >= len(examBag) {
		o := otherPairs[otherBag[n-len(examBag)]]
		return o.invent(r), "several-" + o.name
	}
	kind := exams[examBag[r.IntN(len(examBag))]]
	return examine(r, kind.invent(r), 2+r.IntN(3), false), "several-" + kind.name
}

// examine asks up to n different things about an exam's text. An easy pair mostly answers with the
// answers themselves, or keeps them in order.
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
	for range 2 * n { // some questions come up again where there are few
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

// slotSigns are signs that stand behind questions, or in place of a wanted word, and in the target
// before the answer.
const slotSigns = "#$%&!^~+<>"

// numbered writes questions with a different sign behind each, and the answers with those signs
// before them. So the answer to a question has a place of its own in the source, which a model can
// find and learn to fill before it learns to count questions.
func numbered(r *prng.Source, questions, answers []string) (asked, target string) {
	var q, a strings.Builder
	for i, n := range r.Perm(len(slotSigns))[:len(questions)] {
		if i > 0 {
			q.WriteByte(' ')
		}
		q.WriteString(questions[i] + " " + slotSigns[n:n+1])
		a.WriteString(slotSigns[n:n+1] + answers[i])
	}
	return q.String(), a.String()
}

// list writes claims one after another, in one of several list styles.
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
