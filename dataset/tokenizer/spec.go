package tokenizer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// spec is a unigram tokenizer as a file declares it, whichever format the file
// has. Nothing in it has been checked for consistency.
type spec struct {
	norm         normSpec
	pieces       []piece // by id
	byteFallback bool    // unknown characters become their bytes' pieces
	unk          int32
	added        []addedToken
	cleanUp      bool // Decode tidies spaces, as clean_up_tokenization_spaces asks
}

type normSpec struct {
	charsmap      []byte
	dummyPrefix   bool // "▁" before the text
	trimSpaces    bool // no space at either end, one between words
	escapeSpaces  bool // "▁" for a space
	spaceIsSuffix bool // the dummy goes after the text instead
}

type piece struct {
	text  string
	score float32
	kind  kind
}

// kind says how a piece takes part, with SentencePiece's own numbers.
type kind uint8

const (
	normal      kind = 1
	unknown     kind = 2
	control     kind = 3 // never made from text
	userDefined kind = 4 // always made from its text, before anything else
	unused      kind = 5
	byteKind    kind = 6 // "<0x41>", for byteFallback
)

// addedToken is a token that is cut out of the text before it is normalized.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	LStrip     bool   `json:"lstrip"` // swallows the white space before it
	RStrip     bool   `json:"rstrip"` // and behind it
	SingleWord bool   `json:"single_word"`
	Special    bool   `json:"special"` // Decode leaves it out
}

const (
	padPiece = "<pad>"
	eosPiece = "</s>"
	unkPiece = "<unk>"

	// defaultExtraIDs is how many <extra_id_N> T5 has where no file says so.
	defaultExtraIDs = 100
	// maxExtraIDs bounds what a file may ask for; it costs memory.
	maxExtraIDs = 1 << 20
	// maxPieceLen is SentencePiece's own bound in bytes. It bounds the search.
	maxPieceLen = 8000
)

func extraID(i int) string { return fmt.Sprintf("<extra_id_%d>", i) }

// addExtraIDs appends n sentinels in T5's order: <extra_id_0> is the last id.
func (s *spec) addExtraIDs(n int) {
	for i := n - 1; i >= 0; i-- {
		id := int32(len(s.pieces))
		s.pieces = append(s.pieces, piece{text: extraID(i), kind: control})
		s.added = append(s.added, addedToken{ID: id, Content: extraID(i), LStrip: true, RStrip: true, Special: true})
	}
}

// same reports whether o is the same token, whatever its flags are.
func (t addedToken) same(o addedToken) bool { return t.ID == o.ID && t.Content == o.Content }

// addMissing enters those of the tokens, which are in order of id, that were not added before.
// Tokens that were keep their flags.
func (s *spec) addMissing(tokens []addedToken) error {
	for _, t := range tokens {
		if slices.ContainsFunc(s.added, t.same) {
			continue
		}
		// A piece's text may be added once more only with the piece's id, and an id only once.
		for _, o := range s.added {
			if o.ID == t.ID || o.Content == t.Content {
				return fmt.Errorf("added token %q has id %d, but %q has id %d in another file",
					t.Content, t.ID, o.Content, o.ID)
			}
		}
		if err := s.addToken(t); err != nil {
			return err
		}
	}
	return nil
}

// addToken enters a token that a file declares with its id: a piece there is
// already, or the next one.
func (s *spec) addToken(t addedToken) error {
	switch {
	case t.Content == "":
		return fmt.Errorf("added token %d is empty, want its text", t.ID)
	case t.ID < 0 || int(t.ID) > len(s.pieces):
		return fmt.Errorf("added token %q has id %d, want one of the %d pieces or the next id",
			t.Content, t.ID, len(s.pieces))
	case int(t.ID) == len(s.pieces):
		s.pieces = append(s.pieces, piece{text: t.Content, kind: control})
	case s.pieces[t.ID].text != t.Content:
		return fmt.Errorf("added token %q has id %d, which is the piece %q", t.Content, t.ID, s.pieces[t.ID].text)
	case s.pieces[t.ID].kind == normal || s.pieces[t.ID].kind == unused:
		s.pieces[t.ID].kind = control // the cut finds it; the search must not
	}
	s.added = append(s.added, t)
	return nil
}

// check finds what SentencePiece refuses as well.
func (s *spec) check() error {
	if int64(len(s.pieces)) > math.MaxInt32 {
		return fmt.Errorf("vocabulary of %d pieces, want at most %d", len(s.pieces), math.MaxInt32)
	}
	if s.unk < 0 || int(s.unk) >= len(s.pieces) || s.pieces[s.unk].kind != unknown {
		return fmt.Errorf("none of its pieces is the unknown piece (%s), want one", unkPiece)
	}
	for i, p := range s.pieces {
		switch {
		case p.text == "":
			return fmt.Errorf("piece %d is empty", i)
		case len(p.text) >= maxPieceLen:
			return fmt.Errorf("piece %d is %d bytes long, want fewer than %d", i, len(p.text), maxPieceLen)
		case strings.IndexByte(p.text, 0) >= 0:
			return fmt.Errorf("piece %d (%q) contains a NUL byte", i, p.text)
		case math.IsNaN(float64(p.score)) || math.IsInf(float64(p.score), 0):
			return fmt.Errorf("piece %d (%q) has score %v, want a finite one", i, p.text, p.score)
		case p.kind == unknown && int32(i) != s.unk:
			return fmt.Errorf("pieces %d and %d are both unknown pieces, want one", s.unk, i)
		case p.kind == byteKind && !s.byteFallback:
			return fmt.Errorf("piece %d (%q) is a byte, but byte_fallback is off", i, p.text)
		}
	}
	return nil
}

// reserved gives the id of the control or unknown piece with this text.
func (s *spec) reserved(text string) (int32, error) {
	for i, p := range s.pieces {
		if p.text == text && (p.kind == control || p.kind == unknown) {
			return int32(i), nil
		}
	}
	return 0, fmt.Errorf("no control piece %q among %d pieces, which T5 needs", text, len(s.pieces))
}

// byteID gives the ids of the 256 byte pieces.
func (s *spec) byteIDs() (ids [256]int32, err error) {
	for i := range ids {
		ids[i] = -1
	}
	for i, p := range s.pieces {
		if p.kind != byteKind {
			continue
		}
		b, ok := byteOf(p.text)
		if !ok {
			return ids, fmt.Errorf("byte piece %d is %q, want <0x00> to <0xFF>", i, p.text)
		}
		ids[b] = int32(i)
	}
	for b, id := range ids {
		if id < 0 {
			return ids, fmt.Errorf("byte_fallback is on, but there is no piece %q", bytePiece(byte(b)))
		}
	}
	return ids, nil
}

func bytePiece(b byte) string { return fmt.Sprintf("<0x%02X>", b) }

// byteOf undoes bytePiece.
func byteOf(text string) (byte, bool) {
	const digits = "0123456789ABCDEF"
	if len(text) != 6 || !strings.HasPrefix(text, "<0x") || text[5] != '>' {
		return 0, false
	}
	hi, lo := strings.IndexByte(digits, text[3]), strings.IndexByte(digits, text[4])
	return byte(hi<<4 | lo), hi >= 0 && lo >= 0
}

// digest hashes the spec in a canonical form. added must be sorted by id.
func (s *spec) digest() [32]byte {
	h := sha256.New()
	var buf []byte
	str := func(t string) {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(len(t)))
		buf = append(buf, t...)
	}
	flags := func(fs ...bool) {
		for _, f := range fs {
			if f {
				buf = append(buf, 1)
			} else {
				buf = append(buf, 0)
			}
		}
	}
	str("unigram tokenizer 1")
	str(string(s.norm.charsmap))
	flags(s.norm.dummyPrefix, s.norm.trimSpaces, s.norm.escapeSpaces, s.norm.spaceIsSuffix, s.byteFallback, s.cleanUp)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(s.unk))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(len(s.pieces)))
	for _, p := range s.pieces {
		str(p.text)
		buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(p.score))
		buf = append(buf, byte(p.kind))
	}
	buf = binary.LittleEndian.AppendUint64(buf, uint64(len(s.added)))
	for _, t := range s.added {
		buf = binary.LittleEndian.AppendUint32(buf, uint32(t.ID))
		str(t.Content)
		flags(t.LStrip, t.RStrip, t.SingleWord, t.Special)
	}
	h.Write(buf)
	return [32]byte(h.Sum(nil))
}
