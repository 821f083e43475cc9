package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// specials cuts special tokens out of text. Like Transformers' two tokenizers it
// takes, from left to right, the longest token at the first place where one begins.
type specials struct {
	tokens []addedToken
	find   *trie // ids are indices into tokens; nil: no tokens
	starts string
	space  func(rune) bool // what LStrip and RStrip swallow
}

func newSpecials(tokens []addedToken, space func(rune) bool) (*specials, error) {
	s := &specials{tokens: tokens, space: space}
	if len(tokens) == 0 {
		return s, nil
	}
	keys := make([]trieKey, len(tokens))
	var starts []byte
	for i, t := range tokens {
		keys[i] = trieKey{text: t.Content, id: int32(i)}
		if t.Content != "" {
			starts = append(starts, t.Content[0])
		}
	}
	slices.Sort(starts)
	s.starts = string(slices.Compact(starts))
	find, err := newTrie(keys)
	if err != nil {
		return nil, err
	}
	s.find = find
	return s, nil
}

// next finds the first token in text[from:]. It returns the text before it, from
// from on, the token, and where to go on behind it; token is nil if there is none,
// and before is then all the rest. White space that the token swallows belongs to
// neither.
func (s *specials) next(text string, from int) (before string, token *addedToken, after int) {
	for at := from; at < len(text) && s.find != nil; {
		skip := s.indexStart(text[at:])
		if skip < 0 {
			break
		}
		at += skip
		i, n := s.find.longest(text[at:])
		if n == 0 {
			at++
			continue
		}
		token, end := &s.tokens[i], at+n
		if token.SingleWord && (endsInWord(text[:at]) || startsWithWord(text[end:])) {
			at = end
			continue
		}
		before = text[from:at]
		if token.LStrip {
			before = strings.TrimRightFunc(before, s.space)
		}
		after = end
		if token.RStrip {
			after = len(text) - len(strings.TrimLeftFunc(text[end:], s.space))
		}
		return before, token, after
	}
	return text[from:], nil, len(text)
}

// indexStart is the first place in text where a token can begin, -1 if none.
func (s *specials) indexStart(text string) int {
	if len(s.starts) == 1 { // T5's all begin with "<"
		return strings.IndexByte(text, s.starts[0])
	}
	for i := range len(text) {
		if strings.IndexByte(s.starts, text[i]) >= 0 {
			return i
		}
	}
	return -1
}

// isSpace is white space for the fast tokenizers: \s of Rust's regex crate.
func isSpace(r rune) bool { return unicode.IsSpace(r) }

// isPythonSpace is white space for the Python tokenizers: str.isspace.
func isPythonSpace(r rune) bool { return unicode.IsSpace(r) || '\x1c' <= r && r <= '\x1f' }

// isWord is \w of Rust's regex crate.
func isWord(r rune) bool {
	const joiners = "\u200c\u200d"
	return unicode.IsLetter(r) || unicode.Is(unicode.M, r) || unicode.Is(unicode.Nd, r) || unicode.Is(unicode.Nl, r) ||
		unicode.Is(unicode.Pc, r) || unicode.Is(unicode.Other_Alphabetic, r) || strings.ContainsRune(joiners, r)
}

func endsInWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

func startsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}
