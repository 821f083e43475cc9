package dataset

var boolQ = &spec{
	name:    "boolq",
	title:   "BoolQ",
	classes: falseTrue,
	metrics: []metricName{accuracy},
	parse:   parseBoolQ,
	score:   scoreClasses,
	guesses: guessClasses,
}

func parseBoolQ(b *builder, o object) {
	question, passage := o.text("question"), o.text("passage")
	b.pair(o, o.binary("label", wantBool), wantBool, map[Template]string{
		DPT: sentence("question:", question, "passage:", passage),
		T5:  sentence("boolq passage:", passage, "question:", question),
	})
}
