package dataset

import (
	"fmt"
	"slices"
	"strings"
)

// Score compares predictions with the labels. predictions holds one decoded text for each example
// of s.Eval, in that order. The metrics are those of the T5 code and of SuperGLUE, as the package
// documentation explains. A prediction that is no label counts as wrong.
func (s *Split) Score(predictions []string) (Metrics, error) {
	switch {
	case s.Task.spec == nil:
		return nil, fmt.Errorf("cannot score a split without a task, want one of %s", strings.Join(Tasks(), ", "))
	case !s.Labeled:
		return nil, fmt.Errorf("cannot score %s %s: it has no labels", s.Task.Name(), s.Name)
	case len(predictions) != len(s.Eval):
		return nil, fmt.Errorf("cannot score %s %s: found %d predictions, want %d, one for each example",
			s.Task.Name(), s.Name, len(predictions), len(s.Eval))
	case len(predictions) == 0:
		return nil, fmt.Errorf("cannot score %s %s: it has no examples", s.Task.Name(), s.Name)
	}
	values := s.Task.spec.score(s, predictions)
	m := make(Metrics, len(values))
	for i, v := range values {
		m[i] = Metric{Name: s.Task.spec.metrics[i].name, Value: v}
	}
	return m, nil
}

// classOf returns the number of the class that a prediction names, or -1. The paper's code drops
// white space around it; T5's does not.
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

// f1 is the F1 of one class, in percent. It is 0 where no prediction and no label is of the class.
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

func percent(part, whole int) float64 { return 100 * float64(part) / float64(whole) }
