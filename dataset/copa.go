package dataset

var copa = &spec{
	name:    "copa",
	title:   "COPA",
	classes: []string{"choice1", "choice2"},
	metrics: []metricName{accuracy},
	parse:   parseCOPA,
	score:   scoreClasses,
	guesses: guessClasses,
}

// parseCOPA leaves the question, "cause" or "effect", out of the DPT template, as the paper's code
// does.
func parseCOPA(b *builder, o object) {
	premise, choice1, choice2 := o.text("premise"), o.text("choice1"), o.text("choice2")
	question := o.text("question")
	if question != "cause" && question != "effect" {
		o.fail("field %q is the string %s, want \"cause\" or \"effect\"", "question", clip(question))
	}
	b.pair(o, o.binary("label", wantBit), wantBit, map[Template]string{
		DPT: sentence("premise:", premise, "choice1:", choice1, "choice2:", choice2),
		T5:  sentence("copa choice1:", choice1, "choice2:", choice2, "premise:", premise, "question:", question),
	})
}
