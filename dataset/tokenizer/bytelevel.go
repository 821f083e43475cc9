package tokenizer

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf8"
)

// byteLevel is ByT5's tokenizer, as Transformers' ByT5Tokenizer.
type byteLevel struct {
	size     int
	cleanUp  bool
	specials *specials
	digest   [32]byte
}

const (
	byteOffset = 3 // pad, eos and unk come before the bytes
	firstExtra = byteOffset + 256
)

// NewByteLevel gives ByT5's tokenizer: pad 0, eos 1, unk 2, byte b is b+3, and
// <extra_id_i> is 259+i for i below extraIDs (125 in ByT5, whose vocabulary is
// then 384). Unlike T5's, the sentinels count upward. <pad>, </s> and <unk>
// written in the text swallow the white space around them, sentinels do not.
//
// A Go string that is not valid UTF-8 is encoded byte by byte all the same;
// Decode drops what is not valid UTF-8.
func NewByteLevel(extraIDs int) Tokenizer {
	t, err := newByteLevel(byteLevelTokens(extraIDs), false)
	if err != nil {
		panic(err) // the names above are distinct
	}
	return t
}

func byteLevelTokens(extraIDs int) []addedToken {
	var tokens []addedToken
	for i, name := range []string{padPiece, eosPiece, unkPiece} {
		tokens = append(tokens, addedToken{ID: int32(i), Content: name, LStrip: true, RStrip: true, Special: true})
	}
	for i := range extraIDs {
		tokens = append(tokens, addedToken{ID: int32(firstExtra + i), Content: extraID(i), Special: true})
	}
	return tokens
}

// newByteLevel builds a tokenizer with these special tokens, whose ids must be
// 0, 1, 2 and then 259 onward without a gap.
func newByteLevel(tokens []addedToken, cleanUp bool) (*byteLevel, error) {
	slices.SortFunc(tokens, func(a, b addedToken) int { return cmp.Compare(a.ID, b.ID) })
	for i, a := range tokens {
		want := i
		if i >= byteOffset {
			want = firstExtra + i - byteOffset
		}
		if a.ID != int32(want) {
			return nil, fmt.Errorf("added token %q has id %d, want %d: 0, 1, 2, and from %d on without a gap",
				a.Content, a.ID, want, firstExtra)
		}
	}
	if len(tokens) < byteOffset {
		return nil, fmt.Errorf("%d special tokens, want at least %s, %s and %s",
			len(tokens), padPiece, eosPiece, unkPiece)
	}
	s, err := newSpecials(tokens, isPythonSpace)
	if err != nil {
		return nil, fmt.Errorf("special tokens: %w", err)
	}
	t := &byteLevel{size: firstExtra + len(tokens) - byteOffset, cleanUp: cleanUp, specials: s}
	h := []byte("byte-level tokenizer 1")
	for _, a := range append([]addedToken{{ID: int32(t.size), LStrip: cleanUp}}, tokens...) {
		h = binary.LittleEndian.AppendUint32(h, uint32(a.ID))
		h = fmt.Appendf(h, "%q %t %t %t\n", a.Content, a.LStrip, a.RStrip, a.SingleWord)
	}
	t.digest = sha256.Sum256(h)
	return t, nil
}

func (t *byteLevel) Encode(text string) []int32 {
	ids := make([]int32, 0, len(text))
	for at := 0; at < len(text); {
		before, token, after := t.specials.next(text, at)
		for i := range len(before) {
			ids = append(ids, int32(before[i])+byteOffset)
		}
		if token != nil {
			ids = append(ids, token.ID)
		}
		at = after
	}
	return ids
}

func (t *byteLevel) Decode(ids []int32) string {
	out := make([]byte, 0, len(ids))
	for _, id := range ids {
		if id >= byteOffset && id < firstExtra {
			out = append(out, byte(id-byteOffset))
		}
	}
	valid := out[:0]
	for len(out) > 0 {
		r, n := utf8.DecodeRune(out)
		if r != utf8.RuneError || n > 1 {
			valid = append(valid, out[:n]...)
		}
		out = out[n:]
	}
	if t.cleanUp {
		return cleanUp(string(valid))
	}
	return string(valid)
}

func (t *byteLevel) VocabSize() int   { return t.size }
func (t *byteLevel) PadID() int32     { return 0 }
func (t *byteLevel) EOSID() int32     { return 1 }
func (t *byteLevel) UnkID() int32     { return 2 }
func (t *byteLevel) Digest() [32]byte { return t.digest }
func (t *byteLevel) keepsEOS() bool   { return true }
