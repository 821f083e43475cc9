package tokenizer

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// space is how a space is written among the pieces: U+2581.
const space = "▁"

// normalizer rewrites text as SentencePiece's Normalizer does before pieces are
// looked up.
type normalizer struct {
	normSpec
	rules *charsmap // nil: no rewrites
	user  *trie     // user-defined symbols, which pass unchanged; nil: none
	// stands marks the ASCII bytes that no rule and no symbol touches as long as
	// another ASCII byte or the end follows. Most of most text is such bytes.
	stands [128]bool
}

// newNormalizer checks spec and prepares the tables. user holds the user-defined
// symbols; nil means none.
func newNormalizer(spec normSpec, user *trie) (*normalizer, error) {
	n := &normalizer{normSpec: spec, user: user}
	if len(spec.charsmap) > 0 {
		rules, err := parseCharsmap(spec.charsmap)
		if err != nil {
			return nil, fmt.Errorf("normalizer: %w", err)
		}
		n.rules = rules
	}
	for c := range byte(len(n.stands)) {
		n.stands[c] = n.rules == nil || n.rules.stands(c)
		if user != nil && user.units[user.units[0].base^uint32(c)].check == 0 {
			n.stands[c] = false
		}
	}
	return n, nil
}

// appendNormalized appends text's normal form to dst, which must be empty (it may
// have capacity).
func (n *normalizer) appendNormalized(dst []byte, text string) []byte {
	if n.trimSpaces {
		for text != "" {
			first, width := n.prefix(text)
			if first != " " {
				break
			}
			text = text[width:]
		}
	}
	if text == "" {
		return dst
	}
	ws := " "
	if n.escapeSpaces {
		ws = space
	}
	if n.dummyPrefix && !n.spaceIsSuffix {
		dst = append(dst, ws...)
	}
	// skip says that spaces are to be dropped here, because one came before.
	skip := n.trimSpaces
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf && n.stands[c] && (i+1 == len(text) || text[i+1] < utf8.RuneSelf) {
			i++
			switch {
			case c != ' ':
				dst = append(dst, c)
				skip = false
			case !skip:
				dst = append(dst, ws...)
				skip = n.trimSpaces
			}
			continue
		}
		out, width := n.prefix(text[i:])
		i += width
		for skip && out != "" && out[0] == ' ' {
			out = out[1:]
		}
		if out == "" {
			continue
		}
		for j := range len(out) {
			if out[j] == ' ' {
				dst = append(dst, ws...)
			} else {
				dst = append(dst, out[j])
			}
		}
		skip = n.trimSpaces && out[len(out)-1] == ' '
	}
	if n.trimSpaces {
		// A "▁" that the text itself ends with goes too, as in SentencePiece.
		for bytes.HasSuffix(dst, []byte(ws)) {
			dst = dst[:len(dst)-len(ws)]
		}
	}
	if n.dummyPrefix && n.spaceIsSuffix {
		dst = append(dst, ws...)
	}
	return dst
}

// prefix gives the normal form of the shortest beginning of s that stands for
// itself, and that beginning's length, at least 1. s must not be empty.
func (n *normalizer) prefix(s string) (out string, width int) {
	if n.user != nil {
		if _, width := n.user.longest(s); width > 0 {
			return s[:width], width
		}
	}
	if n.rules != nil {
		if out, width := n.rules.longest(s); width > 0 {
			return out, width
		}
	}
	if r, width := utf8.DecodeRuneInString(s); r != utf8.RuneError || width > 1 {
		return s[:width], width
	}
	return string(utf8.RuneError), 1
}
