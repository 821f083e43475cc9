package portable

import (
	"fmt"
	"slices"

	"github.com/dptune/dpt/model/engine"
)

const chunkElems = 1 << 16

// workspace is an arena: chunks of numbers, handed out front to back and kept, so that a step that
// ran before finds room without allocating. A new chunk is at least a quarter of all before it, so
// that there are few; its unused part costs only address space.
type workspace[F Float] struct {
	chunks  [][]F
	chunk   int // chunk in use
	used    int // elements handed out of it
	mats    pile[matrix[F]]
	masks   pile[mask]
	indexes pile[index]
	segs    pile[segments]
	marks   []mark
}

type mark struct{ chunk, used, mats, masks, indexes, segs int }

// pile recycles headers; pointers into it stay valid as it grows.
type pile[T any] struct {
	items []*T
	used  int
}

func (p *pile[T]) next() *T {
	if p.used == len(p.items) {
		p.items = append(p.items, new(T))
	}
	p.used++
	return p.items[p.used-1]
}

// NewWorkspace returns an empty workspace.
func (e *Engine[F]) NewWorkspace() engine.Workspace { return &workspace[F]{} }

func (w *workspace[F]) Tensor(_ engine.Precision, rows, cols int) engine.Tensor {
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("portable: tensor %d×%d", rows, cols))
	}
	m := w.mats.next()
	ld := padded(cols)
	*m = matrix[F]{rows: rows, cols: cols, ld: ld, data: w.take(rows * ld)}
	return m
}

// take hands out n elements at an aligned address.
func (w *workspace[F]) take(n int) []F {
	size := (n + 15) &^ 15
	for w.chunk < len(w.chunks) && w.used+size > len(w.chunks[w.chunk]) {
		w.chunk++
		w.used = 0
	}
	if w.chunk == len(w.chunks) {
		all := 0
		for _, c := range w.chunks {
			all += len(c)
		}
		w.chunks = append(w.chunks, aligned[F](max(size, all/4, chunkElems)))
	}
	s := w.chunks[w.chunk][w.used : w.used+n : w.used+n]
	w.used += size
	return s
}

func (w *workspace[F]) View(t engine.Tensor, row, rows, col, cols int) engine.Tensor {
	src := mat[F](t)
	if row < 0 || rows < 0 || row+rows > src.rows || col < 0 || cols < 0 || col+cols > src.cols {
		panic(fmt.Sprintf("portable: view of rows %d+%d and columns %d+%d in %d×%d",
			row, rows, col, cols, src.rows, src.cols))
	}
	m := w.mats.next()
	*m = matrix[F]{rows: rows, cols: cols, ld: src.ld}
	if rows > 0 {
		m.data = src.data[row*src.ld+col : (row+rows-1)*src.ld+col+cols]
	}
	return m
}

// mask is a matrix of bits; a row is whole words.
type mask struct {
	rows, cols int
	words      []uint64
}

func (m *mask) Rows() int { return m.rows }
func (m *mask) Cols() int { return m.cols }

func (m *mask) row(i int) []uint64 {
	n := (m.cols + 63) / 64
	return m.words[i*n : (i+1)*n]
}

// check panics unless m is rows × cols.
func (m *mask) check(op string, rows, cols int) {
	if m.rows != rows || m.cols != cols {
		panic(fmt.Sprintf("portable: %s: mask is %d×%d, want %d×%d", op, m.rows, m.cols, rows, cols))
	}
}

func (w *workspace[F]) Mask(rows, cols int) engine.Mask {
	m := w.masks.next()
	n := rows * ((cols + 63) / 64)
	*m = mask{rows: rows, cols: cols, words: slices.Grow(m.words[:0], n)[:n]}
	return m
}

// index is a vector of int32.
type index struct{ ids []int32 }

func (x *index) Len() int { return len(x.ids) }

func (w *workspace[F]) Index(ids []int32) engine.Index {
	x := w.indexes.next()
	x.ids = append(x.ids[:0], ids...)
	return x
}

// segments keeps a copy of its spec.
type segments struct {
	spec engine.SegmentSpec
	work int // Σ queries × keys, to judge cost
	qEnd int // rows that the query and key spans need
	kEnd int
}

func (s *segments) Len() int { return len(s.spec.Q) }

func (w *workspace[F]) Segments(spec engine.SegmentSpec) engine.Segments {
	if len(spec.Q) != len(spec.KV) || (spec.Offset != nil && len(spec.Offset) != len(spec.Q)) {
		panic(fmt.Sprintf("portable: segments: %d query spans, %d key spans, %d offsets",
			len(spec.Q), len(spec.KV), len(spec.Offset)))
	}
	s := w.segs.next()
	s.spec.Q = append(s.spec.Q[:0], spec.Q...)
	s.spec.KV = append(s.spec.KV[:0], spec.KV...)
	s.spec.Offset = s.spec.Offset[:0]
	s.spec.Causal = spec.Causal
	s.work, s.qEnd, s.kEnd = 0, 0, 0
	for i, q := range spec.Q {
		kv := spec.KV[i]
		off := 0
		if spec.Offset != nil {
			off = spec.Offset[i]
		}
		if q.Start < 0 || q.Len < 1 || kv.Start < 0 || kv.Len < 1 || off < 0 {
			panic(fmt.Sprintf("portable: segment %d: queries %+v, keys %+v, offset %d", i, q, kv, off))
		}
		s.spec.Offset = append(s.spec.Offset, off)
		s.work += q.Len * kv.Len
		s.qEnd = max(s.qEnd, q.Start+q.Len)
		s.kEnd = max(s.kEnd, kv.Start+kv.Len)
	}
	return s
}

func (w *workspace[F]) Mark() int {
	w.marks = append(w.marks, mark{w.chunk, w.used, w.mats.used, w.masks.used, w.indexes.used, w.segs.used})
	return len(w.marks) - 1
}

func (w *workspace[F]) Release(m int) {
	at := w.marks[m]
	w.marks = w.marks[:m]
	w.chunk, w.used = at.chunk, at.used
	w.mats.used, w.masks.used, w.indexes.used, w.segs.used = at.mats, at.masks, at.indexes, at.segs
}

func (w *workspace[F]) Reset() {
	w.chunk, w.used, w.marks = 0, 0, w.marks[:0]
	w.mats.used, w.masks.used, w.indexes.used, w.segs.used = 0, 0, 0, 0
}
