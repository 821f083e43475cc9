package corpus

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// skill is one way of making pairs.
type skill struct {
	name   string
	weight int // its share of all pairs, relative to the other skills
	invent func(r *prng.Source) Pair
}

// skills are all skills. Those that "judge" or "choose" map an answer to a label that the text
// itself gives. Those that "ask" answer in words of the text. Those that "tell" tell a sentence in
// another way.
var skills = []skill{
	{"copy", 5, copySigns},
	{"map", 9, mapWord},
	{"judge-event", 9, judgeEvent},
	{"judge-comparison", 6, judgeComparison},
	{"judge-ability", 4, judgeAbility},
	{"judge-scene", 9, judgeScene},
	{"judge-shopping", 7, judgeShopping},
	{"judge-belief", 8, judgeBelief},
	{"judge-sense", 9, judgeSense},
	{"choose-script", 9, chooseScript},
	{"ask-event", 7, askEvent},
	{"ask-comparison", 3, askComparison},
	{"ask-ability", 2, askAbility},
	{"ask-scene", 5, askScene},
	{"ask-shopping", 4, askShopping},
	{"ask-belief", 4, askBelief},
	{"ask-sense", 6, askSense},
	{"ask-referent", 9, askReferent},
	{"tell-event", 4, tellEvent},
	{"tell-comparison", 2, tellComparison},
	{"tell-referent", 4, tellReferent},
	{"fill-event", 8, fillEvent},
}

var skillBag = weightedBag(len(skills), func(i int) int { return skills[i].weight })

// weightedBag holds each number below n as many times as its weight.
func weightedBag(n int, weight func(i int) int) (bag []int) {
	for i := range n {
		for range weight(i) {
			bag = append(bag, i)
		}
	}
	return bag
}

// Skill returns pair i of the seed's first stream, and the name of the skill that it teaches.
// Skills are mixed by fixed weights. Sources are ASCII of at most 220 bytes, targets have 1 to 60.
func Skill(seed, i uint64) (Pair, string) {
	r := prng.New("dpt/mini/pretrain/skill", seed, i)
	s := skills[skillBag[r.IntN(len(skillBag))]]
	return s.invent(r), s.name
}

// judge makes a pair whose target is the right answer or its label.
func judge(r *prng.Source, answers []string, answer int, parts ...string) Pair {
	head, target := poseTask(r, answers, answer)
	return Pair{head + join(r, parts...), target}
}

// poseTask begins a source that wants one of the answers, and returns the target. Three times in
// five it maps the answers to labels, and the target is a label; else it lists the answers, and the
// target is one of them.
func poseTask(r *prng.Source, answers []string, answer int) (head, target string) {
	if r.IntN(5) < 2 {
		return strings.Join(answers, " or ") + ": ", answers[answer]
	}
	ls := labels(r, len(answers))
	return mapping(r, answers, ls), ls[answer]
}

var yesNo = []string{"yes", "no"}

// verdict is the index of the answer in yesNo.
func verdict(yes bool) int {
	if yes {
		return 0
	}
	return 1
}

func copySigns(r *prng.Source) Pair {
	s := code(r)
	for range r.IntN(2) {
		s += " " + label(r)
	}
	return Pair{"copy: " + s, s}
}

// mapWord maps words to labels and wants the label of one of them.
func mapWord(r *prng.Source) Pair {
	n := 2 + r.IntN(2)
	keys := yesNo
	if n > 2 || r.IntN(2) == 0 {
		keys = []string{invented(r, 1), invented(r, 2), invented(r, 3)}[:n]
	}
	if n > 1 && keys[0] == keys[1] || n > 2 && (keys[0] == keys[2] || keys[1] == keys[2]) {
		return mapWord(r)
	}
	ls := labels(r, n)
	i := r.IntN(n)
	return Pair{mapping(r, keys, ls) + keys[i], ls[i]}
}
