package dataset

import (
	"fmt"
	"strings"
)

// parseMultiRC makes an example of each answer of each question. The object of a question is a group of its own, even where a
// file gives two of them one idx.
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
			class := a.binary("label", expectBit)
			b.wantLabel(a, "label", class >= 0, expectBit)
			if !o.ok() {
				return
			}
			var source string
			switch b.template {
			case DPT:
				source = sentence("question:", removeMarkup(question), "answer:", removeMarkup(answer),
					"paragraph:", removeMarkup(paragraph))
			case T5:
				source = removeMarkup(sentence("multirc question:", question, "answer:", answer, "paragraph:", paragraph))
			}
			b.classified(Example{ID: b.id(fmt.Sprintf("%s/%d", group, answerIdx)), Source: source, Group: group}, class)
		}
	}
}

// lineBreak and bold make of MultiRC's HTML what both codes make of it: first a space for each <br>, then nothing for <b>
// and </b>.
var lineBreak, bold = strings.NewReplacer("<br>", " "), strings.NewReplacer("<b>", "", "</b>", "")

func removeMarkup(text string) string { return bold.Replace(lineBreak.Replace(text)) }
