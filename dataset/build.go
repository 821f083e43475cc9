package dataset

import (
	"fmt"
	"strings"
)

// Example is one pair of texts: what the encoder reads and what the decoder should generate.
type Example struct {
	// ID is unique within its list and stable: it comes from the file's idx fields ("17";
	// passage/question/answer for MultiRC; passage/query, and in Train the answer's number, for
	// ReCoRD). Where a file repeats an idx, the second use gets "#2", the third "#3", and so on in
	// the order of the file.
	ID string
	// Source is the encoder's text.
	Source string
	// Target is the text that the model should generate. For an unlabeled split it is "". In
	// ReCoRD's Eval it is the first of Answers; in WSC's Eval it is the noun in question, whether
	// or not the pronoun stands for it.
	Target string
	// Label is the class's number as SuperGLUE counts them (WSC: 1 where the pronoun stands for
	// Target), -1 where there is none.
	Label int
	// Answers are ReCoRD's accepted answers, without repetition, in byte order; nil for the other
	// tasks.
	Answers []string
	// Group is the question that a MultiRC answer belongs to; "" for the other tasks.
	Group string
}

// builder collects the examples of a split while its file is read. One goroutine uses it.
type builder struct {
	spec     *spec
	template Template
	split    string
	uses     map[string]int // how often each base ID came up
	labeled  *bool          // whether the lines have labels; nil before the first line of a test split
	train    []Example
	eval     []Example
}

func newBuilder(s *spec, tmpl Template, split string) *builder {
	b := &builder{spec: s, template: tmpl, split: split, uses: map[string]int{}}
	if split != splitTest {
		labeled := true
		b.labeled = &labeled
	}
	return b
}

// id returns base, or base with "#2", "#3" and so on where it came up before. The bases hold only
// integers and slashes, so that a "#" cannot clash with one.
func (b *builder) id(base string) string {
	b.uses[base]++
	if n := b.uses[base]; n > 1 {
		return fmt.Sprintf("%s#%d", base, n)
	}
	return base
}

// checkLabel checks that a label is present: training and validation data must have it, test data
// has it throughout or not at all. has reports whether the line has it; want describes a label for
// the error.
func (b *builder) checkLabel(o object, field string, has bool, want string) {
	if b.labeled == nil {
		b.labeled = &has
	}
	switch {
	case has == *b.labeled || !o.ok():
	case has:
		o.fail("field %q is there, but earlier examples have none, want all or none to have it", o.name(field))
	case b.split == splitTest:
		o.fail("field %q is missing, but earlier examples have it, want all or none to have it", o.name(field))
	default:
		o.fail("field %q is missing, want %s", o.name(field), want)
	}
}

// classified adds an example whose target is a class; class is -1 where the line has no label.
func (b *builder) classified(e Example, class int) {
	e.Label = class
	if class >= 0 {
		e.Target = b.spec.labels(b.template)[class]
		b.train = append(b.train, e)
	}
	b.eval = append(b.eval, e)
}

// sentence joins the parts of a source with single spaces, as both codes do.
func sentence(parts ...string) string { return strings.Join(parts, " ") }
