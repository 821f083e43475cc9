package dataset

import "unicode/utf8"

var wic = &spec{
	name:    "wic",
	title:   "WiC",
	classes: falseTrue,
	metrics: []metricName{accuracy},
	parse:   parseWiC,
	score:   scoreClasses,
	guesses: guessClasses,
}

func parseWiC(b *builder, o object) {
	word, sentence1, sentence2 := o.text("word"), o.text("sentence1"), o.text("sentence2")
	checkSpan(o, "start1", "end1", sentence1)
	checkSpan(o, "start2", "end2", sentence2)
	b.pair(o, o.binary("label", wantBool), wantBool, map[Template]string{
		DPT: sentence("sentence1:", sentence1, "sentence2:", sentence2, "word:", word),
		T5:  sentence("wic sentence1:", sentence1, "sentence2:", sentence2, "word:", word),
	})
}

// checkSpan checks that two fields are the start and the end (exclusive), in characters, of a part
// of a text that is not empty.
func checkSpan(o object, startField, endField, text string) {
	start, end := o.integer(startField), o.integer(endField)
	n := utf8.RuneCountInString(text)
	if start < 0 || start >= n {
		o.fail("field %q is %d, want a character of the sentence, 0 to %d", startField, start, n-1)
	}
	if end <= start || end > n {
		o.fail("field %q is %d, want the end of a word that starts at %d in %d characters", endField, end, start, n)
	}
}
