package dataset

import (
	"fmt"
	"slices"
	"strings"
)

// Score compares predictions, decoded texts, one for each example of s.Eval and in that order, with the labels. The metrics are
// those of the T5 code and of SuperGLUE, as the package documentation says. A prediction that is no label counts as wrong.
func (s *Split) Score(predictions []string) (Metrics, error) {
	switch {
	case s.Task.spec == nil:
		return nil, fmt.Errorf("cannot score a split without a task, expected one of %s", strings.Join(Tasks(), ", "))
	case !s.Labeled:
		return nil, fmt.Errorf("cannot score %s %s: it has no labels", s.Task.Name(), s.Name)
	case len(predictions) != len(s.Eval):
		return nil, fmt.Errorf("cannot score %s %s: found %d predictions, expected %d, one for each example",
			s.Task.Name(), s.Name, len(predictions), len(s.Eval))
	case len(predictions) == 0:
		return nil, fmt.Errorf("cannot score %s %s: it has no examples", s.Task.Name(), s.Name)
	}
	values := s.Task.spec.score(s, predictions)
	m := make(Metrics, len(values))
	for i, v := range values {
		m[i] = Metric{Name: s.Task.spec.metrics[i], Value: v}
	}
	return m, nil
}

// classOf returns the number of the class that a prediction names, or -1. The paper's code drops white space around it; T5's
// does not.
func (s *Split) classOf(prediction string) int {
	if s.Template == DPT {
		prediction = strings.TrimFunc(prediction, pythonSpace)
	}
	return slices.Index(s.Task.spec.labels(s.Template), prediction)
}

// classesOf returns the class of each prediction.
func (s *Split) classesOf(predictions []string) []int {
	classes := make([]int, len(predictions))
	for i, p := range predictions {
		classes[i] = s.classOf(p)
	}
	return classes
}

// accuracy is the share of examples whose class was predicted, in percent.
func (s *Split) accuracy(classes []int) float64 {
	right := 0
	for i, c := range classes {
		if c == s.Eval[i].Label {
			right++
		}
	}
	return percent(right, len(classes))
}

// f1 is the F1 of one class, in percent: 0 where it is neither predicted nor there.
func (s *Split) f1(classes []int, class int) float64 {
	var hit, predicted, actual int
	for i, c := range classes {
		if c == class {
			predicted++
		}
		if s.Eval[i].Label == class {
			actual++
			if c == class {
				hit++
			}
		}
	}
	if predicted+actual == 0 {
		return 0
	}
	return percent(2*hit, predicted+actual)
}

func scoreClasses(s *Split, predictions []string) []float64 {
	return []float64{s.accuracy(s.classesOf(predictions))}
}

// scoreCB gives the accuracy and the mean F1 of the three classes. An invalid prediction is a miss of its class and a false
// alarm of none.
func scoreCB(s *Split, predictions []string) []float64 {
	classes := s.classesOf(predictions)
	var sum float64
	for c := range s.Task.spec.classes {
		sum += s.f1(classes, c)
	}
	return []float64{s.accuracy(classes), sum / float64(len(s.Task.spec.classes))}
}

// scoreMultiRC gives the F1 of the true answers over all answers of all questions, and the share of questions of which all
// answers were judged right. An invalid prediction counts as the opposite of its label.
func scoreMultiRC(s *Split, predictions []string) []float64 {
	classes := s.classesOf(predictions)
	wrong := map[string]bool{}
	for i, c := range classes {
		e := s.Eval[i]
		if c < 0 {
			classes[i] = 1 - e.Label
		}
		wrong[e.Group] = wrong[e.Group] || c != e.Label
	}
	right := 0
	for _, w := range wrong {
		if !w {
			right++
		}
	}
	return []float64{s.f1(classes, 1), percent(right, len(wrong))}
}

// scoreReCoRD gives the means of the words' F1 and of the exact matches, each against the answer that suits best.
func scoreReCoRD(s *Split, predictions []string) []float64 {
	var f1 float64
	exact := 0
	for i, p := range predictions {
		prediction := normalizeSQuAD(p)
		var best float64
		same := false
		for _, a := range s.Eval[i].Answers {
			answer := normalizeSQuAD(a)
			best = max(best, wordF1(answer, prediction))
			same = same || slices.Equal(answer, prediction)
		}
		f1 += best
		if same {
			exact++
		}
	}
	return []float64{100 * f1 / float64(len(predictions)), percent(exact, len(predictions))}
}

// scoreWSC gives the share of examples where the prediction means the noun just if the label says that the pronoun does.
func scoreWSC(s *Split, predictions []string) []float64 {
	classes := make([]int, len(predictions))
	for i, p := range predictions {
		classes[i] = predictsReferent(p, s.Eval[i].Target)
	}
	return []float64{s.accuracy(classes)}
}

func percent(part, whole int) float64 { return 100 * float64(part) / float64(whole) }
