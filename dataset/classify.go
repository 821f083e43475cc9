package dataset

import (
	"strconv"
	"unicode/utf8"
)

const (
	expectBool = "true or false"
	expectBit  = "0 or 1"
)

func parseBoolQ(b *builder, o object) {
	question, passage := o.text("question"), o.text("passage")
	b.pair(o, o.binary("label", expectBool), expectBool, map[Template]string{
		DPT: sentence("question:", question, "passage:", passage),
		T5:  sentence("boolq passage:", passage, "question:", question),
	})
}

func parseCB(b *builder, o object)  { parseEntailment(b, o, "cb") }
func parseRTE(b *builder, o object) { parseEntailment(b, o, "rte") }

func parseEntailment(b *builder, o object, benchmark string) {
	premise, hypothesis := o.text("premise"), o.text("hypothesis")
	b.pair(o, o.class("label", b.spec.classes), "a string", map[Template]string{
		DPT: sentence("premise:", premise, "hypothesis:", hypothesis),
		T5:  sentence(benchmark, "hypothesis:", hypothesis, "premise:", premise),
	})
}

// parseCOPA leaves the question, "cause" or "effect", out of the DPT template, as the paper's code does.
func parseCOPA(b *builder, o object) {
	premise, choice1, choice2 := o.text("premise"), o.text("choice1"), o.text("choice2")
	question := o.text("question")
	if question != "cause" && question != "effect" {
		o.fail("field %q is the string %s, expected \"cause\" or \"effect\"", "question", clip(question))
	}
	b.pair(o, o.binary("label", expectBit), expectBit, map[Template]string{
		DPT: sentence("premise:", premise, "choice1:", choice1, "choice2:", choice2),
		T5:  sentence("copa choice1:", choice1, "choice2:", choice2, "premise:", premise, "question:", question),
	})
}

func parseWiC(b *builder, o object) {
	word, sentence1, sentence2 := o.text("word"), o.text("sentence1"), o.text("sentence2")
	checkSpan(o, "start1", "end1", sentence1)
	checkSpan(o, "start2", "end2", sentence2)
	b.pair(o, o.binary("label", expectBool), expectBool, map[Template]string{
		DPT: sentence("sentence1:", sentence1, "sentence2:", sentence2, "word:", word),
		T5:  sentence("wic sentence1:", sentence1, "sentence2:", sentence2, "word:", word),
	})
}

// checkSpan checks that two fields are the start and the end (exclusive), in characters, of a part of a text that is not empty.
func checkSpan(o object, startField, endField, text string) {
	start, end := o.integer(startField), o.integer(endField)
	n := utf8.RuneCountInString(text)
	if start < 0 || start >= n {
		o.fail("field %q is %d, expected a character of the sentence, 0 to %d", startField, start, n-1)
	}
	if end <= start || end > n {
		o.fail("field %q is %d, expected the end of a word that starts at %d in %d characters", endField, end, start, n)
	}
}

// pair adds the one example of a line whose label is a class.
func (b *builder) pair(o object, class int, expected string, sources map[Template]string) {
	idx := o.integer("idx")
	b.wantLabel(o, "label", class >= 0, expected)
	if !o.ok() {
		return
	}
	b.classified(Example{ID: b.id(strconv.Itoa(idx)), Source: sources[b.template]}, class)
}
