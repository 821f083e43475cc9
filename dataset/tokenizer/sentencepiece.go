package tokenizer

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// sentencePiece is T5's tokenizer.
type sentencePiece struct {
	norm     *normalizer
	model    *unigram
	specials *specials
	surfaces []string // by id: what Decode writes, "▁" still in it
	kinds    []kind
	silent   []bool // by id: Decode leaves it out
	cleanUp  bool
	pad, eos int32
	digest   [32]byte
	scratch  sync.Pool // *scratch
}

// scratch is what one Encode works in.
type scratch struct {
	norm []byte
	lattice
}

// maxKeptScratch is the largest text, in bytes of its normal form, whose scratch
// memory is kept for the next call.
const maxKeptScratch = 1 << 20

// newSentencePiece checks s and builds its tables.
func newSentencePiece(s *spec) (*sentencePiece, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	slices.SortFunc(s.added, func(a, b addedToken) int { return cmp.Compare(a.ID, b.ID) })
	t := &sentencePiece{cleanUp: s.cleanUp, digest: s.digest()}
	var err error
	if t.pad, err = s.reserved(padPiece); err != nil {
		return nil, err
	}
	if t.eos, err = s.reserved(eosPiece); err != nil {
		return nil, err
	}
	if t.model, err = newUnigram(s); err != nil {
		return nil, err
	}
	var symbols []trieKey
	for i, p := range s.pieces {
		if p.kind == userDefined {
			symbols = append(symbols, trieKey{text: p.text, id: int32(i)})
		}
	}
	var user *trie
	if len(symbols) > 0 {
		if user, err = newTrie(symbols); err != nil {
			return nil, err
		}
	}
	if t.norm, err = newNormalizer(s.norm, user); err != nil {
		return nil, err
	}
	if t.specials, err = newSpecials(s.added, isSpace); err != nil {
		return nil, err
	}
	t.surfaces = make([]string, len(s.pieces))
	t.kinds = make([]kind, len(s.pieces))
	t.silent = make([]bool, len(s.pieces))
	for i, p := range s.pieces {
		t.surfaces[i], t.kinds[i] = p.text, p.kind
		t.silent[i] = p.kind == control || p.kind == unknown
	}
	for _, a := range s.added {
		t.silent[a.ID] = a.Special
	}
	for _, id := range []int32{t.pad, t.eos, s.unk} {
		t.silent[id] = true
	}
	t.scratch.New = func() any { return new(scratch) }
	return t, nil
}

func (t *sentencePiece) Encode(text string) []int32 {
	sc := t.scratch.Get().(*scratch)
	// A guess of three bytes a token is rarely too small, so that the result
	// seldom grows.
	ids := make([]int32, 0, len(text)/3+4)
	for at := 0; at < len(text); {
		before, token, after := t.specials.next(text, at)
		sc.norm = t.norm.appendNormalized(sc.norm[:0], before)
		ids = t.model.appendIDs(ids, sc.norm, &sc.lattice)
		if token != nil {
			ids = append(ids, token.ID)
		}
		at = after
	}
	if cap(sc.norm) <= maxKeptScratch && cap(sc.ends) <= maxKeptScratch {
		t.scratch.Put(sc)
	}
	return ids
}

func (t *sentencePiece) Decode(ids []int32) string {
	var out strings.Builder
	var raw []byte // of the byte pieces since the last other piece
	first := true
	for _, id := range ids {
		if id < 0 || int(id) >= len(t.surfaces) || t.silent[id] {
			continue
		}
		s := t.surfaces[id]
		if t.kinds[id] == byteKind {
			b, _ := byteOf(s) // checked when the model was built
			raw = append(raw, b)
			first = false
			continue
		}
		flushBytes(&out, &raw)
		if first {
			s = strings.ReplaceAll(s, space, "")
		} else {
			s = strings.ReplaceAll(s, space, " ")
		}
		out.WriteString(s)
		first = false
	}
	flushBytes(&out, &raw)
	if t.cleanUp {
		return cleanUp(out.String())
	}
	return out.String()
}

// flushBytes writes the text that raw spells, a bad byte as U+FFFD.
func flushBytes(out *strings.Builder, raw *[]byte) {
	for b := *raw; len(b) > 0; {
		r, n := utf8.DecodeRune(b)
		out.WriteRune(r)
		b = b[n:]
	}
	*raw = (*raw)[:0]
}

// cleanUp undoes the spaces of tokenized English, as Transformers'
// clean_up_tokenization does, in its order.
func cleanUp(s string) string {
	for _, r := range [...][2]string{
		{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"},
		{" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
	} {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

func (t *sentencePiece) VocabSize() int   { return len(t.surfaces) }
func (t *sentencePiece) PadID() int32     { return t.pad }
func (t *sentencePiece) EOSID() int32     { return t.eos }
func (t *sentencePiece) UnkID() int32     { return t.model.unk }
func (t *sentencePiece) Digest() [32]byte { return t.digest }
