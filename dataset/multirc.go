package dataset

import (
	"fmt"
	"strings"
)

var multiRC = &spec{
	name:    "multirc",
	title:   "MultiRC",
	classes: falseTrue,
	metrics: []metricName{{"f1a", "F1"}, {"em", "EM"}},
	parse:   parseMultiRC,
	score:   scoreMultiRC,
	guesses: guessClasses,
}

// parseMultiRC makes an example of each answer of each question. Each question object is a group of
// its own, even where a file gives two of them the same idx.
func parseMultiRC(b *builder, o object) {
	passageIdx := o.integer("idx")
	passage := o.object("passage")
	paragraph := passage.text("text")
	for _, q := range passage.objects("questions") {
		question := q.text("question")
		questionIdx := q.integer("idx")
		if !o.ok() {
			return
		}
		group := b.id(fmt.Sprintf("%d/%d", passageIdx, questionIdx))
		for _, a := range q.objects("answers") {
			answer, answerIdx := a.text("text"), a.integer("idx")
			class := a.binary("label", wantBit)
			b.checkLabel(a, "label", class >= 0, wantBit)
			if !o.ok() {
				return
			}
			var source string
			switch b.template {
			case DPT:
				source = sentence("question:", removeMarkup(question), "answer:", removeMarkup(answer),
					"paragraph:", removeMarkup(paragraph))
			case T5:
				source = removeMarkup(sentence("multirc question:", question, "answer:", answer,
					"paragraph:", paragraph))
			}
			b.classified(Example{ID: b.id(fmt.Sprintf("%s/%d", group, answerIdx)), Source: source, Group: group}, class)
		}
	}
}

// lineBreak and bold clean MultiRC's HTML as both codes do: first they replace each <br> by a
// space, then they remove <b> and </b>.
var lineBreak, bold = strings.NewReplacer("<br>", " "), strings.NewReplacer("<b>", "", "</b>", "")

func removeMarkup(text string) string { return bold.Replace(lineBreak.Replace(text)) }

// scoreMultiRC gives the F1 of the true answers over all answers of all questions, and the share of
// questions with every answer judged right. An invalid prediction counts as the opposite of its
// label.
func scoreMultiRC(s *Split, predictions []string) []float64 {
	classes := s.classesOf(predictions)
	wrong := map[string]bool{}
	for i, c := range classes {
		e := s.Eval[i]
		if c < 0 {
			classes[i] = 1 - e.Label
		}
		wrong[e.Group] = wrong[e.Group] || c != e.Label
	}
	right := 0
	for _, w := range wrong {
		if !w {
			right++
		}
	}
	return []float64{s.f1(classes, 1), percent(right, len(wrong))}
}
