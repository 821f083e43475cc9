package corpus

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

const (
	consonants = "bcdfghjklmnprstvwz"
	vowels     = "aeiou"
	letters    = "abcdefghijklmnopqrstuvwxyz"
	codeSigns  = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
)

// invented draws a meaningless word of 1 to n syllables.
func invented(r *prng.Source, n int) string {
	for {
		var b strings.Builder
		for range 1 + r.IntN(n) {
			b.WriteByte(consonants[r.IntN(len(consonants))])
			b.WriteByte(vowels[r.IntN(len(vowels))])
			if r.IntN(2) == 0 {
				b.WriteByte(consonants[r.IntN(len(consonants))])
			}
		}
		if w := b.String(); isAllowedWord(w) {
			return w
		}
	}
}

// code draws a string of 2 to 6 letters and digits.
func code(r *prng.Source) string {
	for {
		b := make([]byte, 2+r.IntN(5))
		for i := range b {
			b[i] = codeSigns[r.IntN(len(codeSigns))]
		}
		if isAllowedWord(string(b)) {
			return string(b)
		}
	}
}

// plainLabels are ordinary words that serve as labels. None of them is an answer that labels stand
// for.
var plainLabels = []string{
	"right", "wrong", "good", "bad", "up", "down", "left", "top", "day", "night", "on", "off", "in", "out", "hot",
	"cold", "old", "new", "sun", "moon", "fits", "clash", "agree", "differ", "Left", "Right", "Good", "Bad", "Day",
	"Night", "known", "unknown", "not_so", "not_known",
}

// label draws a label for an answer: a letter or digit, an invented word, an ordinary word or a
// code.
func label(r *prng.Source) string {
	switch r.IntN(8) {
	case 0, 1:
		return string(rune('3' + r.IntN(7)))
	case 2:
		return string(letters[r.IntN(len(letters))])
	case 3:
		return world.Pick(r, plainLabels)
	case 4:
		return code(r)
	case 5:
		return world.Capital(invented(r, 2))
	}
	return invented(r, 2)
}

// labels draws n different labels.
func labels(r *prng.Source, n int) []string {
	out := make([]string, 0, n)
	for len(out) < n {
		l := label(r)
		for _, o := range out {
			if o == l {
				l = ""
			}
		}
		if l != "" {
			out = append(out, l)
		}
	}
	return out
}

// marks are ordinary words before a part of a source.
var marks = []string{
	"text", "claim", "given", "fact", "story", "check", "note", "one", "two", "line", "here", "that", "A", "B", "say",
	"then",
}

// mark draws what stands before a part of a source.
func mark(r *prng.Source) string {
	if r.IntN(3) == 0 {
		return world.Pick(r, marks)
	}
	m := invented(r, 3)
	if r.IntN(4) == 0 {
		m += string(rune('0' + r.IntN(10)))
		if !isAllowedWord(m) {
			return mark(r)
		}
	}
	return m
}

// joints stand between two parts that have no marks.
var joints = []string{" So: ", " | ", " / ", " => ", " - ", " ", " // "}

// join makes one text of parts. Either a mark stands before each part, in their order or another,
// or a joint stands between them.
func join(r *prng.Source, parts ...string) string {
	var b strings.Builder
	if r.IntN(3) == 0 {
		joint := world.Pick(r, joints)
		return strings.Join(parts, joint)
	}
	order := []int{0, 1, 2, 3}[:len(parts)]
	if r.IntN(2) == 0 {
		order = r.Perm(len(parts))
	}
	for n, i := range order {
		if n > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(mark(r))
		b.WriteString(": ")
		b.WriteString(parts[i])
	}
	return b.String()
}

// mapping writes which label stands for which answer, in random order.
func mapping(r *prng.Source, answers, labels []string) string {
	var a, l []string
	for _, i := range r.Perm(len(answers)) {
		a, l = append(a, answers[i]), append(l, labels[i])
	}
	return ordered(a, l)
}

// ordered is mapping in the order given.
func ordered(answers, labels []string) string {
	var b strings.Builder
	for i := range answers {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(answers[i] + "=" + labels[i])
	}
	b.WriteString(": ")
	return b.String()
}
