package dataset

import "slices"

// Majority gives the metrics of the best constant guess: the same class for every example, the
// class that scores best. For WSC the two guesses are the noun in question and any other text. A
// prompt must beat it to have learned anything. ReCoRD, whose answers are spans of each text, has
// no constant guess: Majority returns nil.
func (s *Split) Majority() (best Metrics, err error) {
	if s.Task.spec == nil || s.Task.spec.guesses == nil {
		return nil, nil
	}
	for _, predictions := range s.Task.spec.guesses(s) {
		m, err := s.Score(predictions)
		if err != nil {
			return nil, err
		}
		if best == nil || m.Primary() > best.Primary() {
			best = m
		}
	}
	return best, nil
}

// guessClasses guesses each class throughout.
func guessClasses(s *Split) (guesses [][]string) {
	for _, label := range s.Task.Labels(s.Template) {
		guesses = append(guesses, slices.Repeat([]string{label}, len(s.Eval)))
	}
	return guesses
}
