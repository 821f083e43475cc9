package tokenizer

import (
	"errors"
	"math"
	"slices"
)

// unigram finds the best segmentation of normalized text.
type unigram struct {
	pieces   *trie
	unk      int32
	unkScore float32
	bytes    *[256]int32 // ids of the byte pieces; nil: an unknown character is unk
}

const (
	// unkPenalty is how far below the worst piece an unknown character scores.
	unkPenalty = 10
	// rebaseAt is where SentencePiece (from 0.2.2 on) subtracts the score so far
	// from all open paths, lest float32 swallow the differences between them.
	rebaseAt = 100_000
)

// best is the last step of the best path that ends at some byte.
type best struct {
	score float32
	id    int32
	n     int32 // bytes of the last piece; 0: no path ends here yet
}

// lattice is the scratch memory of one search.
type lattice struct {
	ends []best
	back []int32
}

func newUnigram(s *spec) (*unigram, error) {
	u := &unigram{unk: s.unk, unkScore: math.MaxFloat32}
	var keys []trieKey
	for i, p := range s.pieces {
		k := trieKey{text: p.text, id: int32(i), score: p.score}
		switch p.kind {
		case normal:
			u.unkScore = min(u.unkScore, p.score)
		case userDefined:
			// Above every real score, and the more so the longer.
			k.score = float32(0.1 * float64(len(p.text)-1))
		default:
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("no piece can be made from text, want at least one normal piece")
	}
	u.unkScore -= unkPenalty
	t, err := newTrie(keys)
	if err != nil {
		return nil, err
	}
	u.pieces = t
	if s.byteFallback {
		ids, err := s.byteIDs()
		if err != nil {
			return nil, err
		}
		u.bytes = &ids
	}
	return u, nil
}

// charLen is the length of a UTF-8 character by the high half of its first byte.
var charLen = [16]uint8{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4}

// appendIDs appends the ids of the best segmentation of text, which is normalized.
// Among equals the path found first wins, as in SentencePiece's EncodeOptimized;
// the sums are float32 in the same order as there, so that near ties agree too.
// A run of unknown characters is one unk.
func (u *unigram) appendIDs(dst []int32, text []byte, l *lattice) []int32 {
	u.search(text, l)
	back := l.back[:0]
	afterUnk := false
	for end := len(text); end > 0; {
		e := l.ends[end]
		start := end - int(e.n)
		switch {
		case e.id != u.unk:
			back = append(back, e.id)
		case u.bytes != nil:
			for i := end - 1; i >= start; i-- {
				back = append(back, u.bytes[text[i]])
			}
		case !afterUnk:
			back = append(back, e.id)
		}
		afterUnk = e.id == u.unk
		end = start
	}
	slices.Reverse(back)
	l.back = back
	return append(dst, back...)
}

// search fills l.ends[0..len(text)].
func (u *unigram) search(text []byte, l *lattice) {
	size := len(text)
	if cap(l.ends) <= size {
		l.ends = make([]best, size+1)
	} else {
		l.ends = l.ends[:size+1]
		clear(l.ends)
	}
	ends, units := l.ends, u.pieces.units
	root := units[0].base
	for start := 0; start < size; {
		if s := ends[start].score; s < -rebaseAt || s > rebaseAt {
			u.rebase(ends, start)
		}
		sofar := ends[start].score
		width := min(int(charLen[text[start]>>4]), size-start)
		whole := false // some piece is exactly this character
		cur, base := uint32(0), root
		for i, c := range text[start:] {
			next := base ^ uint32(c)
			n := &units[next]
			if n.check != cur {
				break
			}
			cur, base = next, n.base
			if n.id < 0 {
				continue
			}
			length := i + 1
			if e, score := &ends[start+length], n.score+sofar; e.n == 0 || score > e.score {
				*e = best{score: score, id: n.id, n: int32(length)}
			}
			if length == width {
				whole = true
			}
		}
		if !whole {
			if e, score := &ends[start+width], u.unkScore+sofar; e.n == 0 || score > e.score {
				*e = best{score: score, id: u.unk, n: int32(width)}
			}
		}
		start += width
	}
}

// rebase subtracts the score at start from every path that ends there or behind.
func (u *unigram) rebase(ends []best, start int) {
	by := ends[start].score
	last := min(len(ends)-1, start+max(u.pieces.maxLen, 4))
	for i := start; i <= last; i++ {
		if i == start || ends[i].n != 0 {
			ends[i].score -= by
		}
	}
}
