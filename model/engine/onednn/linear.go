//go:build onednn && cgo

package onednn

// #include <string.h>
// #include "kernels.h"
import "C"

import (
	"errors"
	"unsafe"

	"github.com/dptune/dpt/model/engine"
)

// linearTask computes y = x·w or y += x·w by the library's product, a block of rows with a part
// of w at a time, for each weight of a group. If w is a transpose without memory of its own, a
// worker packs a part of it, a panel, into scratch memory and multiplies a chunk of blocks with it.
// Operands that the product cannot use in place (another type, rows apart, too few rows) are copied
// through scratch memory.
type linearTask struct {
	e            *Engine
	x, y         tensor // of the group's first weight
	xStep, yStep int    // columns from there to the next one's
	w            []*packed
	accumulate   bool
	dst          dtype // of products

	products [2]*product // for all parts of w but the last, and for the last
	counts   [len(blockRows)]int
	blocks   int
	chunks   int // of blocks: each is multiplied with a panel at a time

	xOffset, yOffset, panelOffset int // in a worker's scratch memory
}

// LinearForward implements engine.Engine.
func (e *Engine) LinearForward(y, x engine.Tensor, w engine.Linear) {
	l, ym, xm := w.(*linear), mat(y), mat(x)
	check("LinearForward", "x", xm, xm.rows, l.in)
	check("LinearForward", "y", ym, xm.rows, l.out)
	e.multiplyGroup(linearTask{x: *xm, y: *ym, w: l.forward})
}

// LinearBackward implements engine.Engine.
func (e *Engine) LinearBackward(dx, dy engine.Tensor, w engine.Linear, accumulate bool) {
	l, dxm, dym := w.(*linear), mat(dx), mat(dy)
	check("LinearBackward", "dy", dym, dym.rows, l.out)
	check("LinearBackward", "dx", dxm, dym.rows, l.in)
	e.multiplyGroup(linearTask{x: *dym, y: *dxm, w: l.backward, accumulate: accumulate})
}

// multiplyGroup runs t. It sets e and the fields that follow from the operands.
func (e *Engine) multiplyGroup(t linearTask) {
	if t.x.rows == 0 {
		return
	}
	w := t.w[0]
	if w.layout != nil {
		e.multiplyOwn(panelTask{x: t.x, y: t.y, xStep: t.xStep, yStep: t.yStep, w: t.w}, t.accumulate)
		return
	}
	t.e, t.dst = e, t.y.dt
	if t.accumulate {
		t.dst = f32
	}

	// The products for the parts of w.
	scratch := 0
	for i, part := range [2]int{0, w.count() - 1} {
		p, err := e.partProduct(w, part, t.dst)
		if err != nil {
			e.fail(err)
			return
		}
		if w.source != nil {
			if err := e.newHandles(p); err != nil {
				e.fail(err)
				return
			}
		}
		t.products[i] = p
		scratch = max(scratch, p.scratch)
	}

	// Scratch memory: the library's, then a block of x, a block of y and a panel. Copied operands
	// run in blocks of the base size at most.
	t.plan()
	t.xOffset = align(scratch)
	t.yOffset = t.xOffset + align(blockRows[base]*w.k*e.source().size())
	t.panelOffset = t.yOffset + align(blockRows[base]*w.width*t.dst.size())
	size := t.panelOffset
	parts := t.blocks * w.count() * len(t.w)
	if w.source != nil {
		size += t.products[0].size()
		parts = t.chunks * w.count() * len(t.w)
		for i := range e.panels {
			e.panels[i] = -1
		}
	}
	e.reserve(size)
	e.linear = t
	e.run(parts, 2*t.x.rows*w.k*w.n*len(t.w), &e.linear)
	e.linear = linearTask{}
}

// fail keeps the first failure until it is reported.
func (e *Engine) fail(err error) {
	e.errMu.Lock()
	defer e.errMu.Unlock()
	if e.err == nil {
		e.err = err
	}
}

func align(n int) int { return (n + alignment - 1) &^ (alignment - 1) }

// plan cuts the rows into blocks: three quarters into the largest, then as many smaller ones as all
// workers can share evenly, the rest small, so that none waits long for another.
func (t *linearTask) plan() {
	t.counts, t.blocks = [len(blockRows)]int{}, 0
	rows := t.x.rows
	whole := t.w[0].source == nil && t.w[0].count()*len(t.w) == 1
	for i, size := range blockRows {
		if !t.has(i) {
			continue
		}
		n := rows / size
		last := true
		for j := i + 1; j < len(blockRows); j++ {
			last = last && !t.has(j)
		}
		switch {
		case last:
			n = (rows + size - 1) / size
		case i < base:
			n = 0
			if whole && t.direct() {
				n = rows * 3 / 4 / size
			}
		}
		if i <= base && !last && whole {
			n -= n % t.e.pool.Workers()
		}
		t.counts[i] = n
		t.blocks += n
		rows = max(0, rows-n*size)
	}
	t.chunks = min(t.blocks, max(1, t.x.rows/chunkRows))
}

// direct reports whether the product reads and writes whole blocks in place.
func (t *linearTask) direct() bool {
	w := t.w[0]
	return t.x.dt == t.products[0].key.src && t.x.ld == w.k && !t.accumulate && t.y.ld == w.width
}

// chunkRows is about how many rows are multiplied with a panel at a time.
const chunkRows = 512

// has reports whether there are products of the i-th block size.
func (t *linearTask) has(i int) bool {
	return t.products[0].gemms[i] != nil && t.products[1].gemms[i] != nil
}

// block returns the first row of block b and the index of its size.
func (t *linearTask) block(b int) (row, size int) {
	for i, n := range t.counts {
		if b < n {
			return row + b*blockRows[i], i
		}
		b -= n
		row += n * blockRows[i]
	}
	panic("onednn: no such block")
}

func (t *linearTask) Do(part, worker int) {
	w := t.w[0]
	if w.source == nil {
		b := part % t.blocks
		part /= t.blocks
		member, part := part/w.count(), part%w.count()
		t.multiply(b, member, part, t.w[member].parts[part], worker)
		return
	}
	// Parts are numbered so that workers in step each keep one panel for all of its chunks.
	panels := len(t.w) * w.count()
	first := part / (t.e.pool.Workers() * t.chunks) * t.e.pool.Workers()
	abreast := min(t.e.pool.Workers(), panels-first)
	part -= first * t.chunks
	panel, chunk := first+part%abreast, part/abreast
	member, part := panel/w.count(), panel%w.count()
	p := t.product(part)
	handle := p.panels[worker]
	if t.e.panels[worker] != panel {
		memory := unsafe.Add(t.e.scratch[worker].p, t.panelOffset)
		t.e.turnInto(memory, t.w[member], part, p)
		if C.dpt_packed_move(handle, memory) != 0 {
			t.e.fail(errors.New("oneDNN refuses a panel of weights"))
			return
		}
		t.e.panels[worker] = panel
	}
	for b := chunk * t.blocks / t.chunks; b < (chunk+1)*t.blocks/t.chunks; b++ {
		t.multiply(b, member, part, handle, worker)
	}
}

// product is the one for part i of the weights.
func (t *linearTask) product(i int) *product {
	if i == t.w[0].count()-1 {
		return t.products[1]
	}
	return t.products[0]
}

// multiply computes block b of rows with b's part of a group's member.
func (t *linearTask) multiply(b, member, part int, weights *C.dpt_packed, worker int) {
	first, size := t.block(b)
	w := t.w[member]
	col, width := w.cols(part)
	rows := min(blockRows[size], t.x.rows-first)
	full := rows == blockRows[size]
	p := t.product(part)
	scratch := t.e.scratch[worker].p

	x := t.x.at(first, member*t.xStep)
	if t.x.dt != p.key.src || t.x.ld != w.k || !full {
		tmp := tensor{rows: blockRows[size], cols: w.k, ld: w.k, dt: p.key.src, p: unsafe.Add(scratch, t.xOffset)}
		t.e.copyRows(C.DPT_COPY, tmp.mat(), C.dpt_mat{p: x, ld: C.long(t.x.ld), dt: C.int(t.x.dt)}, rows, w.k)
		if !full {
			C.memset(tmp.at(rows, 0), 0, C.size_t((tmp.rows-rows)*tmp.cols*tmp.dt.size()))
		}
		x = tmp.p
	}
	to := t.y.at(first, member*t.yStep+col)
	direct := full && !t.accumulate && t.y.ld == width
	y := tensor{rows: blockRows[size], cols: width, ld: width, dt: t.dst, p: unsafe.Add(scratch, t.yOffset)}
	if direct {
		y.p = to
	}
	if err := t.e.multiply(p.gemms[size], worker, x, weights, y.p); err != nil {
		t.e.fail(err)
		return
	}
	if direct {
		return
	}
	op := C.int(C.DPT_COPY)
	if t.accumulate {
		op = C.DPT_ADD
	}
	t.e.copyRows(op, C.dpt_mat{p: to, ld: C.long(t.y.ld), dt: C.int(t.y.dt)}, y.mat(), rows, width)
}
