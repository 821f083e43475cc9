package dataset

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var record = &spec{
	name:    "record",
	title:   "ReCoRD",
	metrics: []metricName{{"f1", "F1"}, {"em", "EM"}},
	parse:   parseReCoRD,
	score:   scoreReCoRD,
}

// parseReCoRD makes an evaluation example of each query and a training example of each of its
// answers.
//
// The Hugging Face loader gave the entities in byte order up to version 1.0.2, as T5's data does,
// and in the changing order of a Python set since. Byte order is the one that can be reproduced.
func parseReCoRD(b *builder, o object) {
	passageIdx := o.integer("idx")
	passage := o.object("passage")
	text := passage.text("text")
	entities := entityTexts(passage, text)
	queries := o.objects("qas")
	joined := joinHighlights(text)
	for _, q := range queries {
		query, queryIdx := q.text("query"), q.integer("idx")
		answers := answerTexts(q)
		// A test file may have an empty list where others have no field.
		b.checkLabel(q, "answers", len(answers) > 0, "at least one answer")
		if !o.ok() {
			return
		}
		source := sentence("record query:", query, "entities:", strings.Join(entities, ", "), "passage:", joined)
		if b.template == DPT {
			source = "superglue-record " + source
		}
		e := Example{ID: b.id(fmt.Sprintf("%d/%d", passageIdx, queryIdx)), Source: source, Label: -1, Answers: answers}
		for i, answer := range answers {
			one := e
			one.ID, one.Target = fmt.Sprintf("%s/%d", e.ID, i), answer
			b.train = append(b.train, one)
		}
		if len(answers) > 0 {
			e.Target = answers[0]
		}
		b.eval = append(b.eval, e)
	}
}

// entityTexts returns the distinct entities of a passage in byte order. The file gives the first
// and the last character of each. A last one beyond the text means the text's end, as in a Python
// slice.
func entityTexts(passage object, text string) []string {
	runes := []rune(text)
	var entities []string
	for _, e := range passage.objects("entities") {
		start, end := e.integer("start"), e.integer("end")
		if !e.ok() {
			return nil
		}
		if start < 0 || start >= len(runes) {
			e.fail("field %q is %d, want a character of the passage, 0 to %d", e.name("start"), start, len(runes)-1)
			return nil
		}
		if end < start {
			e.fail("field %q is %d, want at least %q, which is %d", e.name("end"), end, "start", start)
			return nil
		}
		entities = append(entities, string(runes[start:min(end, len(runes)-1)+1]))
	}
	slices.Sort(entities)
	return slices.Compact(entities)
}

// answerTexts returns the distinct answers of a query in byte order.
func answerTexts(q object) []string {
	if !q.has("answers") {
		return nil
	}
	var answers []string
	for _, a := range q.objects("answers") {
		answers = append(answers, a.text("text"))
	}
	slices.Sort(answers)
	return slices.Compact(answers)
}

var (
	highlightAfterStop = regexp.MustCompile(`([.?!"'])\n@highlight\n`)
	highlight          = regexp.MustCompile(`\n@highlight\n`)
)

// joinHighlights makes sentences of a passage's bullet points, as T5 does: a bullet gets a full
// stop at its end unless it ends in a stop or a quotation mark.
func joinHighlights(passage string) string {
	return highlight.ReplaceAllString(highlightAfterStop.ReplaceAllString(passage, "$1 "), ". ")
}

// scoreReCoRD gives the mean word F1 and the share of exact matches, each against the answer that
// scores best.
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
