package dataset

import "strconv"

// Descriptions of a label, for errors.
const (
	wantBool = "true or false"
	wantBit  = "0 or 1"
)

// falseTrue are the class names of the tasks that ask a yes-or-no question.
var falseTrue = []string{"False", "True"}

// pair adds the one example of a line whose label is a class. class is -1 where the line has no
// label; want describes a label for the error. sources holds the source in each template.
func (b *builder) pair(o object, class int, want string, sources map[Template]string) {
	idx := o.integer("idx")
	b.checkLabel(o, "label", class >= 0, want)
	if !o.ok() {
		return
	}
	b.classified(Example{ID: b.id(strconv.Itoa(idx)), Source: sources[b.template]}, class)
}

// parseEntailment reads a line of CB or RTE. prefix starts the source in the T5 template.
func parseEntailment(b *builder, o object, prefix string) {
	premise, hypothesis := o.text("premise"), o.text("hypothesis")
	b.pair(o, o.class("label", b.spec.classes), "a string", map[Template]string{
		DPT: sentence("premise:", premise, "hypothesis:", hypothesis),
		T5:  sentence(prefix, "hypothesis:", hypothesis, "premise:", premise),
	})
}
