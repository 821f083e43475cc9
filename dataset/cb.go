package dataset

var cb = &spec{
	name:    "cb",
	title:   "CB",
	classes: []string{"entailment", "contradiction", "neutral"},
	metrics: []metricName{accuracy, {"f1_macro", "F1"}},
	parse:   func(b *builder, o object) { parseEntailment(b, o, "cb") },
	score:   scoreCB,
	guesses: guessClasses,
}

// scoreCB gives the accuracy and the mean F1 of the three classes. An invalid prediction is a miss
// of its class and a false alarm of none.
func scoreCB(s *Split, predictions []string) []float64 {
	classes := s.classesOf(predictions)
	var sum float64
	for c := range s.Task.spec.classes {
		sum += s.f1(classes, c)
	}
	return []float64{s.accuracy(classes), sum / float64(len(s.Task.spec.classes))}
}
