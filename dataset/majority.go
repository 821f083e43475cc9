package dataset

import "slices"

// Majority gives the metrics of the best constant guess: the same class for every example, the class that scores best. For WSC
// these are "the span that is asked about" and any other. It is what a prompt must beat to have learned anything. ReCoRD, whose answers are spans
// of each text, has none: nil.
func (s *Split) Majority() (best Metrics, err error) {
	var guesses [][]string
	switch {
	case s.Task.spec == nil || len(s.Task.spec.classes) > 0:
		for _, label := range s.Task.Labels(s.Template) {
			guesses = append(guesses, slices.Repeat([]string{label}, len(s.Eval)))
		}
	case s.Task.spec.name == "wsc":
		spans := make([]string, len(s.Eval))
		for i, e := range s.Eval {
			spans[i] = e.Target
		}
		guesses = [][]string{spans, slices.Repeat([]string{"\uFFFD"}, len(s.Eval))}
	default:
		return nil, nil
	}
	for _, g := range guesses {
		m, err := s.Score(g)
		if err != nil {
			return nil, err
		}
		if best == nil || m.Primary() > best.Primary() {
			best = m
		}
	}
	return best, nil
}
