//go:build onednn && cgo

package onednn

// #include "kernels.h"
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/dptune/dpt/model/engine"
)

const (
	alignment  = 64
	chunkBytes = 1 << 18
)

// workspace is an arena: chunks of memory, handed out front to back. Reset replaces several chunks
// by one that holds more than was ever handed out at once, so that a step that ran before never
// allocates again.
type workspace struct {
	e       *Engine
	chunks  []chunk
	chunk   int // chunk in use
	used    int // bytes handed out of it
	live    int // bytes handed out of all
	most    int // the largest live so far
	tensors pile[tensor]
	masks   pile[mask]
	indexes pile[index]
	segs    pile[segments]
	marks   []mark
}

type chunk struct {
	p    unsafe.Pointer
	size int
}

type mark struct{ chunk, used, live, tensors, masks, indexes, segs int }

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

// NewWorkspace returns an empty workspace. Its memory is the engine's until Close.
func (e *Engine) NewWorkspace() engine.Workspace { return &workspace{e: e} }

func (w *workspace) Tensor(p engine.Precision, rows, cols int) engine.Tensor {
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("onednn: tensor %d×%d", rows, cols))
	}
	dt := f32
	if p == engine.Narrow && w.e.bf16 {
		dt = bf16
	}
	t := w.tensors.next()
	*t = tensor{rows: rows, cols: cols, ld: cols, dt: dt, p: w.take(rows * cols * dt.size())}
	return t
}

// take hands out n bytes at an aligned address.
func (w *workspace) take(n int) unsafe.Pointer {
	size := (n + alignment - 1) &^ (alignment - 1)
	for w.chunk < len(w.chunks) && w.used+size > w.chunks[w.chunk].size {
		w.chunk++
		w.used = 0
	}
	if w.chunk == len(w.chunks) {
		w.chunks = append(w.chunks, w.e.newChunk(max(size, chunkBytes)))
	}
	p := unsafe.Add(w.chunks[w.chunk].p, w.used)
	w.used += size
	w.live += size
	w.most = max(w.most, w.live)
	return p
}

func (e *Engine) newChunk(size int) chunk {
	c := chunk{e.alloc(size), size}
	if c.p == nil {
		panic(fmt.Sprintf("onednn: out of memory: no %d bytes for tensors", size))
	}
	return c
}

func (w *workspace) View(t engine.Tensor, row, rows, col, cols int) engine.Tensor {
	src := mat(t)
	if row < 0 || rows < 0 || row+rows > src.rows || col < 0 || cols < 0 || col+cols > src.cols {
		panic(fmt.Sprintf("onednn: view of rows %d+%d and columns %d+%d in %d×%d",
			row, rows, col, cols, src.rows, src.cols))
	}
	v := w.tensors.next()
	*v = tensor{rows: rows, cols: cols, ld: src.ld, dt: src.dt, p: src.at(row, col)}
	return v
}

// mask is a matrix of bits; a row is whole bytes, as many as the widest kernels write at a time.
type mask struct {
	rows, cols, ld int // ld in bytes
	p              unsafe.Pointer
}

func (m *mask) Rows() int { return m.rows }
func (m *mask) Cols() int { return m.cols }

func (m *mask) bits() C.dpt_bits { return C.dpt_bits{p: (*C.uint8_t)(m.p), ld: C.long(m.ld)} }

// check panics unless m is rows × cols.
func (m *mask) check(op string, rows, cols int) {
	if m.rows != rows || m.cols != cols {
		panic(fmt.Sprintf("onednn: %s: mask is %d×%d, want %d×%d", op, m.rows, m.cols, rows, cols))
	}
}

func (w *workspace) Mask(rows, cols int) engine.Mask {
	m := w.masks.next()
	ld := (cols + 15) / 16 * 2
	*m = mask{rows: rows, cols: cols, ld: ld, p: w.take(rows * ld)}
	return m
}

// index is a vector of int32, in Go's memory and in the kernels'.
type index struct {
	ids []int32
	p   *C.int32_t
}

func (x *index) Len() int { return len(x.ids) }

func (w *workspace) Index(ids []int32) engine.Index {
	x := w.indexes.next()
	p := w.take(4 * max(len(ids), 1))
	x.ids, x.p = unsafe.Slice((*int32)(p), len(ids)), (*C.int32_t)(p)
	copy(x.ids, ids)
	return x
}

// segments is a spec as the kernels read it.
type segments struct {
	n          int
	p          *C.long // five numbers each: see dpt_attn
	causal     bool
	work       int // Σ queries × keys, to judge cost
	qEnd, kEnd int // rows that the query and key spans need
	qMax, kMax int // longest spans
}

func (s *segments) Len() int { return s.n }

func (w *workspace) Segments(spec engine.SegmentSpec) engine.Segments {
	if len(spec.Q) != len(spec.KV) || (spec.Offset != nil && len(spec.Offset) != len(spec.Q)) {
		panic(fmt.Sprintf("onednn: segments: %d query spans, %d key spans, %d offsets",
			len(spec.Q), len(spec.KV), len(spec.Offset)))
	}
	s := w.segs.next()
	p := w.take(max(len(spec.Q), 1) * 5 * int(unsafe.Sizeof(C.long(0))))
	*s = segments{n: len(spec.Q), p: (*C.long)(p), causal: spec.Causal}
	rows := unsafe.Slice((*[5]C.long)(p), s.n)
	for i, q := range spec.Q {
		kv, off := spec.KV[i], 0
		if spec.Offset != nil {
			off = spec.Offset[i]
		}
		if q.Start < 0 || q.Len < 1 || kv.Start < 0 || kv.Len < 1 || off < 0 {
			panic(fmt.Sprintf("onednn: segment %d: queries %+v, keys %+v, offset %d", i, q, kv, off))
		}
		rows[i] = [5]C.long{C.long(q.Start), C.long(q.Len), C.long(kv.Start), C.long(kv.Len), C.long(off)}
		s.work += q.Len * kv.Len
		s.qEnd, s.kEnd = max(s.qEnd, q.Start+q.Len), max(s.kEnd, kv.Start+kv.Len)
		s.qMax, s.kMax = max(s.qMax, q.Len), max(s.kMax, kv.Len)
	}
	return s
}

func (w *workspace) Mark() int {
	w.marks = append(w.marks, mark{w.chunk, w.used, w.live, w.tensors.used, w.masks.used, w.indexes.used, w.segs.used})
	return len(w.marks) - 1
}

func (w *workspace) Release(m int) {
	at := w.marks[m]
	w.marks = w.marks[:m]
	w.chunk, w.used, w.live = at.chunk, at.used, at.live
	w.tensors.used, w.masks.used, w.indexes.used, w.segs.used = at.tensors, at.masks, at.indexes, at.segs
}

func (w *workspace) Reset() {
	if len(w.chunks) > 1 {
		for _, c := range w.chunks {
			w.e.free(c.p)
		}
		w.chunks = append(w.chunks[:0], w.e.newChunk(w.most+w.most/8)) // room for a slightly larger step
	}
	w.chunk, w.used, w.live, w.marks = 0, 0, 0, w.marks[:0]
	w.tensors.used, w.masks.used, w.indexes.used, w.segs.used = 0, 0, 0, 0
}
