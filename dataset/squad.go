package dataset

import (
	"strings"
	"unicode"
)

// normalizeSQuAD normalizes an answer as SQuAD's and ReCoRD's evaluation scripts do: lower case, no
// ASCII punctuation, no articles, single spaces. It returns the words.
func normalizeSQuAD(answer string) []string {
	answer = strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII && (unicode.IsPunct(r) || unicode.IsSymbol(r)) {
			return -1
		}
		return r
	}, pythonLower(answer))
	return strings.FieldsFunc(removeArticles(answer), pythonSpace)
}

// removeArticles replaces a, an and the by a space where they stand between word boundaries as
// Python's regular expressions define them.
func removeArticles(s string) string {
	var out strings.Builder
	rest := s
	for rest != "" {
		end := strings.IndexFunc(rest, func(r rune) bool { return !pythonWord(r) })
		if end < 0 {
			end = len(rest)
		}
		switch word := rest[:end]; word {
		case "a", "an", "the":
			out.WriteByte(' ')
		default:
			out.WriteString(word)
		}
		next := strings.IndexFunc(rest[end:], pythonWord)
		if next < 0 {
			next = len(rest) - end
		}
		out.WriteString(rest[end : end+next])
		rest = rest[end+next:]
	}
	return out.String()
}

// wordF1 is the harmonic mean of precision and recall of the words that two normalized texts share.
// It is 0 where they share none.
func wordF1(target, prediction []string) float64 {
	count := map[string]int{}
	for _, w := range target {
		count[w]++
	}
	same := 0
	for _, w := range prediction {
		if count[w] > 0 {
			count[w]--
			same++
		}
	}
	if same == 0 {
		return 0
	}
	precision := float64(same) / float64(len(prediction))
	recall := float64(same) / float64(len(target))
	return 2 * precision * recall / (precision + recall)
}

// pythonWord reports whether \w of Python's re module matches the character.
func pythonWord(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r)
}

// pythonSpace reports whether Python's str.split treats the character as white space: Unicode's,
// and the four ASCII separators.
func pythonSpace(r rune) bool {
	return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f
}

// pythonLower is Python's str.lower. The dotted capital I is the only letter whose lower case has
// two characters; it becomes both. A capital sigma at a word's end becomes ς: one with a cased
// letter before it and none behind it, not counting characters that case ignores (Unicode's
// Final_Sigma).
func pythonLower(s string) string {
	const sigma = 'Σ'
	if !strings.ContainsRune(s, sigma) {
		return strings.ToLower(strings.ReplaceAll(s, "\u0130", "i\u0307"))
	}
	runes := []rune(s)
	var b strings.Builder
	for i, r := range runes {
		switch {
		case r == '\u0130':
			b.WriteString("i\u0307")
		case r == sigma && casedNext(runes, i, -1) && !casedNext(runes, i, 1):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// casedNext reports whether the first character from i on in a direction that case does not ignore
// is cased.
func casedNext(runes []rune, i, step int) bool {
	for i += step; i >= 0 && i < len(runes); i += step {
		if !caseIgnorable(runes[i]) {
			return cased(runes[i])
		}
	}
	return false
}

// cased is Unicode's property Cased.
func cased(r rune) bool {
	return unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lt, unicode.Other_Lowercase, unicode.Other_Uppercase)
}

// caseIgnorable is Unicode's property Case_Ignorable: marks, format characters, modifiers, and the
// punctuation that occurs within words.
func caseIgnorable(r rune) bool {
	const within = "'.:\u00b7\u0387\u055f\u05f4\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a"
	return strings.ContainsRune(within, r) ||
		unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk)
}
