package dataset

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

var wsc = &spec{
	name:    "wsc",
	title:   "WSC",
	metrics: []metricName{accuracy},
	parse:   parseWSC,
	score:   scoreWSC,
	guesses: guessNouns,
}

// parseWSC makes an evaluation example of each line, and a training example of each line whose
// label is true. The source marks the pronoun; the target is the noun that it stands for.
func parseWSC(b *builder, o object) {
	idx := o.integer("idx")
	text := o.text("text")
	target := o.object("target")
	span1, span2 := wscSpan(target, "span1", text), wscSpan(target, "span2", text)
	class := o.binary("label", wantBool)
	b.checkLabel(o, "label", class >= 0, wantBool)
	if !o.ok() {
		return
	}
	var source string
	switch b.template {
	case DPT:
		source = markDPT(text, span2)
	case T5:
		if source = markT5(text, span2); source != "" {
			source = sentence("wsc:", source)
		}
	}
	if source == "" {
		o.fail("field %q is the string %s, want a word of the text", target.name("span2_text"), clip(span2.text))
		return
	}
	e := Example{ID: b.id(strconv.Itoa(idx)), Source: source, Label: class}
	if class >= 0 {
		e.Target = span1.text
	}
	b.eval = append(b.eval, e)
	if class == 1 {
		b.train = append(b.train, e)
	}
}

// span is a noun or a pronoun, and the number of its first word in the text.
type span struct {
	text string
	word int
}

// wscSpan reads a span. Where its text is not a part of the text, it corrects it as the loaders of
// wsc.fixed do: the first letter in the case that the text has, no full stop at the end, spaces for
// line ends. What this does not mend stays as published.
func wscSpan(target object, name, text string) span {
	s := span{text: target.text(name + "_text"), word: target.integer(name + "_index")}
	words := strings.Count(text, " ") + 1
	if s.word < 0 || s.word >= words {
		target.fail("field %q is %d, want a word of the text, 0 to %d", target.name(name+"_index"), s.word, words-1)
	}
	if s.text == "" {
		target.fail("field %q is empty, want words of the text", target.name(name+"_text"))
	}
	if !target.ok() || strings.Contains(text, s.text) {
		return s
	}
	mended := s.text
	if fields := strings.FieldsFunc(text, pythonSpace); s.word < len(fields) {
		first, size := utf8.DecodeRuneInString(mended)
		if here, _ := utf8.DecodeRuneInString(fields[s.word]); unicode.IsLower(here) {
			first = unicode.ToLower(first)
		} else {
			first = unicode.ToUpper(first)
		}
		mended = string(first) + mended[size:]
	}
	mended = strings.ReplaceAll(strings.TrimRight(mended, "."), "\n", " ")
	if strings.Contains(text, mended) && mended != "" {
		s.text = mended
	}
	return s
}

// markDPT puts "* " and " *" around the pronoun. The paper's code skips as many words as the index
// says, each followed by one white space character. Where it does not find the pronoun there, it
// leaves the text as it is; markDPT then marks the place that wordAt finds, so that no example
// lacks its mark. It returns "" if the pronoun is not in the text.
func markDPT(text string, pronoun span) string {
	at := afterWords(text, pronoun.word)
	if at < 0 || !strings.HasPrefix(text[at:], pronoun.text) {
		if at = wordAt(text, pronoun); at < 0 {
			return ""
		}
	}
	return text[:at] + "* " + pronoun.text + " *" + text[at+len(pronoun.text):]
}

// markT5 puts "*" on both sides of the pronoun. T5 does so where the pronoun is a word by itself.
// In the one published example with punctuation right behind the pronoun, T5 puts a space between
// them and drops the spaces at the text's end; markT5 does that wherever punctuation follows. It
// returns "" if the pronoun is not in the text.
func markT5(text string, pronoun span) string {
	at := wordAt(text, pronoun)
	if at < 0 {
		return ""
	}
	before, after := text[:at], text[at+len(pronoun.text):]
	if after != "" && after[0] != ' ' {
		after = strings.TrimRight(" "+after, " ")
	}
	return before + "*" + pronoun.text + "*" + after
}

// afterWords returns the offset behind n words that are each followed by one white space character,
// or -1.
func afterWords(text string, n int) int {
	at := 0
	for range n {
		end := strings.IndexFunc(text[at:], pythonSpace)
		if end <= 0 {
			return -1
		}
		_, size := utf8.DecodeRuneInString(text[at+end:])
		at += end + size
	}
	return at
}

// wordAt returns the offset of the pronoun at its index among the words between single spaces.
// Where the published index is wrong, it returns the nearest place (the later of two) where the
// pronoun stands as a whole word. It returns -1 if there is none.
func wordAt(text string, pronoun span) int {
	best, bestDistance := -1, 0
	for at := 0; at < len(text); {
		i := strings.Index(text[at:], pronoun.text)
		if i < 0 {
			break
		}
		at += i
		if isWholeWord(text, at, at+len(pronoun.text)) {
			distance := strings.Count(text[:at], " ") - pronoun.word
			if distance = max(distance, -distance); best < 0 || distance <= bestDistance {
				best, bestDistance = at, distance
			}
		}
		_, size := utf8.DecodeRuneInString(text[at:])
		at += size
	}
	return best
}

// isWholeWord reports whether no letter or digit adjoins text[from:to].
func isWholeWord(text string, from, to int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:from])
	after, _ := utf8.DecodeRuneInString(text[to:])
	return !pythonWord(before) && !pythonWord(after)
}

// determiners are the words that T5 ignores when it compares a prediction with a noun.
var determiners = []string{
	"a", "an", "each", "every", "few", "her", "his", "many", "much", "my", "our", "some", "that", "the", "their",
	"these", "this", "those", "which", "whose", "your",
}

// predictsReferent is T5's judgement of a WSC prediction: 1 where it means the noun, 0 where it
// means another, -1 where it is empty. It means the noun where the words of one are among the words
// of the other, ignoring case and determiners. A possessive matches only a possessive.
func predictsReferent(prediction, noun string) int {
	p, n := bareWords(prediction), bareWords(noun)
	if strings.Join(p, " ") == "" {
		return -1
	}
	if strings.Contains(strings.Join(p, " "), "'") != strings.Contains(strings.Join(n, " "), "'") {
		return 0
	}
	if subset(p, n) || subset(n, p) {
		return 1
	}
	return 0
}

// bareWords splits a text at single spaces into lower-case words without determiners. The result is
// never empty: as in Python, the empty text has one empty word.
func bareWords(text string) []string {
	words := strings.Split(pythonLower(strings.TrimFunc(text, pythonSpace)), " ")
	words = slices.DeleteFunc(words, func(w string) bool { return slices.Contains(determiners, w) })
	if len(words) == 0 {
		return []string{""}
	}
	return words
}

// subset reports whether every word of a is one of b.
func subset(a, b []string) bool {
	for _, w := range a {
		if !slices.Contains(b, w) {
			return false
		}
	}
	return true
}

// scoreWSC gives the share of examples where the judgement equals the label: the prediction means
// the noun, and the label says that the pronoun stands for it, or neither.
func scoreWSC(s *Split, predictions []string) []float64 {
	classes := make([]int, len(predictions))
	for i, p := range predictions {
		classes[i] = predictsReferent(p, s.Eval[i].Target)
	}
	return []float64{s.accuracy(classes)}
}

// guessNouns makes two guesses: the noun in question throughout, which is right where the label is
// true, and another noun throughout.
func guessNouns(s *Split) [][]string {
	nouns := make([]string, len(s.Eval))
	for i, e := range s.Eval {
		nouns[i] = e.Target
	}
	return [][]string{nouns, slices.Repeat([]string{"\uFFFD"}, len(s.Eval))}
}
