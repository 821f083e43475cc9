package dataset

var rte = &spec{
	name:    "rte",
	title:   "RTE",
	classes: []string{"entailment", "not_entailment"},
	metrics: []metricName{accuracy},
	parse:   func(b *builder, o object) { parseEntailment(b, o, "rte") },
	score:   scoreClasses,
	guesses: guessClasses,
}
