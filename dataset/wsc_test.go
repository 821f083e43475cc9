package dataset

import (
	"strconv"
	"testing"
)

func TestMarkPronoun(t *testing.T) {
	for _, c := range []struct {
		name, text string
		pronoun    span
		dpt, t5    string
	}{
		{"plain", "Tom asked if he could go.", span{"he", 3}, "Tom asked if * he * could go.",
			"Tom asked if *he* could go."},
		{"first word", "They saw it.", span{"They", 0}, "* They * saw it.", "*They* saw it."},
		{"last word", "Ann saw it", span{"it", 2}, "Ann saw * it *", "Ann saw *it*"},
		{"comma follows", `"Good for him," said Tom. `, span{"him", 2}, `"Good for * him *," said Tom. `,
			`"Good for *him* ," said Tom.`},
		{"quote before", `Tom said "he left" and went.`, span{"he", 2}, `Tom said "* he * left" and went.`,
			`Tom said "*he* left" and went.`},
		{"index one short", "They might use it , but why.", span{"it", 2}, "They might use * it * , but why.",
			"They might use *it* , but why."},
		{"two spaces", "Tom ran.  Then he sat as he ran.", span{"he", 4}, "Tom ran.  Then * he * sat as he ran.",
			"Tom ran.  Then *he* sat as he ran."},
		{"not inside words", "The sheep said she left.", span{"she", 1}, "The * she *ep said she left.",
			"The sheep said *she* left."},
		{"two words", "Tom said that man left.", span{"that man", 2}, "Tom said * that man * left.",
			"Tom said *that man* left."},
		{"absent", "Tom left.", span{"it", 1}, "", ""},
	} {
		if got := markDPT(c.text, c.pronoun); got != c.dpt {
			t.Errorf("%s: DPT marks %q, want %q", c.name, got, c.dpt)
		}
		if got := markT5(c.text, c.pronoun); got != c.t5 {
			t.Errorf("%s: T5 marks %q, want %q", c.name, got, c.t5)
		}
	}
}

func TestWSCSpanIsMended(t *testing.T) {
	for _, c := range []struct{ name, text, span, want string }{
		{"already there", "Ann and the Dog", "the Dog", "the Dog"},
		{"lower case in the text", "In the sun", "The sun", "the sun"},
		{"upper case in the text", "In The sun", "the sun", "The sun"},
		{"full stop", "In the sun he sat", "The sun.", "the sun"},
		{"line end", "In the sun he", "The\nsun", "the sun"},
		{"beyond mending", "In the big sun", "The sun", "The sun"},
	} {
		o := parseLine([]byte(`{"span1_text": ` + strconv.Quote(c.span) + `, "span1_index": 1}`))
		if got := wscSpan(o, "span1", c.text); got.text != c.want || !o.ok() {
			t.Errorf("%s: span is %q (%v), want %q", c.name, got.text, *o.err, c.want)
		}
	}
}
