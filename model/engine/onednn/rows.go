//go:build onednn && cgo

package onednn

// #include "kernels.h"
//
// static void dpt_rows_run(const dpt_kernels *k, const dpt_rows *a, long from, long to) {
//	k->rows(a, from, to);
// }
//
// static void dpt_rows_copy(const dpt_kernels *k, int op, dpt_mat y, dpt_mat x,
//		long rows, long cols) {
//	dpt_rows a = {.op = op, .y = y, .x = x, .cols = cols};
//	k->rows(&a, 0, rows);
// }
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/dptune/dpt/model/engine"
)

// rowsTask runs a row-wise op on rowsPerPart rows per part.
type rowsTask struct {
	e    *Engine
	rows int
	args C.dpt_rows
}

const rowsPerPart = 32

// each runs an op over rows rows, at about cost scalar operations per row.
func (e *Engine) each(rows, cost int, args C.dpt_rows) {
	t := &e.rows
	t.e, t.rows, t.args = e, rows, args
	e.run((rows+rowsPerPart-1)/rowsPerPart, rows*cost, t)
	t.args = C.dpt_rows{}
}

func (t *rowsTask) Do(part, _ int) {
	from := part * rowsPerPart
	C.dpt_rows_run(t.e.kernels, &t.args, C.long(from), C.long(min(t.rows, from+rowsPerPart)))
}

// copyRows runs DPT_COPY or DPT_ADD on the calling goroutine.
func (e *Engine) copyRows(op C.int, y, x C.dpt_mat, rows, cols int) {
	C.dpt_rows_copy(e.kernels, op, y, x, C.long(rows), C.long(cols))
}

// NormForward implements engine.Engine.
func (e *Engine) NormForward(y, r, x engine.Tensor, g engine.Gain, eps float64) {
	ym, rm, xm, gm := mat(y), mat(r), mat(x), g.(*gain)
	checkNorm("NormForward", ym, rm, xm, gm)
	e.each(xm.rows, 2*xm.cols, C.dpt_rows{
		op:   C.DPT_NORM,
		cols: C.long(gm.n),
		y:    ym.mat(),
		r:    rm.mat(),
		x:    xm.mat(),
		gain: (*C.float)(gm.p),
		eps:  C.double(eps),
	})
}

// AddNormForward implements engine.Engine.
func (e *Engine) AddNormForward(sum, y, r, x, delta engine.Tensor, g engine.Gain, eps float64) {
	sm, ym, rm, xm, dm, gm := mat(sum), mat(y), mat(r), mat(x), mat(delta), g.(*gain)
	checkNorm("AddNormForward", ym, rm, xm, gm)
	check("AddNormForward", "sum", sm, xm.rows, xm.cols)
	check("AddNormForward", "delta", dm, xm.rows, xm.cols)
	e.each(xm.rows, 3*xm.cols, C.dpt_rows{
		op:   C.DPT_ADD_NORM,
		cols: C.long(gm.n),
		y2:   sm.mat(),
		y:    ym.mat(),
		r:    rm.mat(),
		x:    xm.mat(),
		x2:   dm.mat(),
		gain: (*C.float)(gm.p),
		eps:  C.double(eps),
	})
}

func checkNorm(op string, y, r, x *tensor, g *gain) {
	check(op, "x", x, x.rows, g.n)
	check(op, "y", y, x.rows, x.cols)
	checkWide(op, "r", r, x.rows, 1)
}

// NormBackward implements engine.Engine.
func (e *Engine) NormBackward(dx, dy, x, r engine.Tensor, g engine.Gain) {
	dxm, dym, xm, rm, gm := mat(dx), mat(dy), mat(x), mat(r), g.(*gain)
	checkNorm("NormBackward", dxm, rm, xm, gm)
	check("NormBackward", "dy", dym, xm.rows, xm.cols)
	e.each(xm.rows, 4*xm.cols, C.dpt_rows{
		op:   C.DPT_NORM_BACKWARD,
		cols: C.long(gm.n),
		y:    dxm.mat(),
		x2:   dym.mat(),
		x:    xm.mat(),
		r:    rm.mat(),
		gain: (*C.float)(gm.p),
	})
}

// ReLUForward implements engine.Engine.
func (e *Engine) ReLUForward(y, x engine.Tensor, positive engine.Mask) {
	ym, xm := mat(y), mat(x)
	check("ReLUForward", "y", ym, xm.rows, xm.cols)
	var bits C.dpt_bits
	if positive != nil {
		m := positive.(*mask)
		m.check("ReLUForward", xm.rows, xm.cols)
		bits = m.bits()
	}
	e.each(xm.rows, xm.cols, C.dpt_rows{op: C.DPT_RELU, cols: C.long(xm.cols), y: ym.mat(), x: xm.mat(), bits: bits})
}

// ReLUBackward implements engine.Engine.
func (e *Engine) ReLUBackward(dx, dy engine.Tensor, positive engine.Mask) {
	dxm, dym, m := mat(dx), mat(dy), positive.(*mask)
	check("ReLUBackward", "dx", dxm, dym.rows, dym.cols)
	m.check("ReLUBackward", dym.rows, dym.cols)
	e.each(dym.rows, dym.cols,
		C.dpt_rows{op: C.DPT_RELU_BACKWARD, cols: C.long(dym.cols), y: dxm.mat(), x: dym.mat(), bits: m.bits()})
}

// GatedGELUForward implements engine.Engine.
func (e *Engine) GatedGELUForward(y, x engine.Tensor) {
	ym, xm := mat(y), mat(x)
	check("GatedGELUForward", "x", xm, ym.rows, 2*ym.cols)
	e.each(ym.rows, 8*xm.cols, C.dpt_rows{op: C.DPT_GATED_GELU, cols: C.long(ym.cols), y: ym.mat(), x: xm.mat()})
}

// GatedGELUBackward implements engine.Engine.
func (e *Engine) GatedGELUBackward(dx, dy, x engine.Tensor) {
	dxm, dym, xm := mat(dx), mat(dy), mat(x)
	check("GatedGELUBackward", "x", xm, dym.rows, 2*dym.cols)
	check("GatedGELUBackward", "dx", dxm, dym.rows, 2*dym.cols)
	e.each(dym.rows, 20*dym.cols,
		C.dpt_rows{op: C.DPT_GATED_GELU_BACKWARD, cols: C.long(dym.cols), y: dxm.mat(), x: dym.mat(), x2: xm.mat()})
}

// GatedSiLUForward implements engine.Engine.
func (e *Engine) GatedSiLUForward(y, x engine.Tensor) {
	ym, xm := mat(y), mat(x)
	check("GatedSiLUForward", "x", xm, ym.rows, 2*ym.cols)
	e.each(ym.rows, 8*xm.cols, C.dpt_rows{op: C.DPT_GATED_SILU, cols: C.long(ym.cols), y: ym.mat(), x: xm.mat()})
}

// GatedSiLUBackward implements engine.Engine.
func (e *Engine) GatedSiLUBackward(dx, dy, x engine.Tensor) {
	dxm, dym, xm := mat(dx), mat(dy), mat(x)
	check("GatedSiLUBackward", "x", xm, dym.rows, 2*dym.cols)
	check("GatedSiLUBackward", "dx", dxm, dym.rows, 2*dym.cols)
	e.each(dym.rows, 20*dym.cols,
		C.dpt_rows{op: C.DPT_GATED_SILU_BACKWARD, cols: C.long(dym.cols), y: dxm.mat(), x: dym.mat(), x2: xm.mat()})
}

// CrossEntropyForward implements engine.Engine.
func (e *Engine) CrossEntropyForward(loss, lse, logits engine.Tensor, targets engine.Index) {
	lm, sm, xm, ids := mat(loss), mat(lse), mat(logits), targets.(*index)
	check("CrossEntropyForward", "loss", lm, xm.rows, 1)
	checkWide("CrossEntropyForward", "lse", sm, xm.rows, 1)
	checkIndex("CrossEntropyForward", ids, xm.rows, xm.cols)
	e.each(xm.rows, 8*xm.cols,
		C.dpt_rows{op: C.DPT_CROSS_ENTROPY, cols: C.long(xm.cols), y: lm.mat(), r: sm.mat(), x: xm.mat(), ids: ids.p})
}

// CrossEntropyBackward implements engine.Engine.
func (e *Engine) CrossEntropyBackward(dlogits, logits, lse engine.Tensor, targets engine.Index) {
	dm, xm, sm, ids := mat(dlogits), mat(logits), mat(lse), targets.(*index)
	check("CrossEntropyBackward", "dlogits", dm, xm.rows, xm.cols)
	checkWide("CrossEntropyBackward", "lse", sm, xm.rows, 1)
	checkIndex("CrossEntropyBackward", ids, xm.rows, xm.cols)
	e.each(xm.rows, 8*xm.cols, C.dpt_rows{
		op:   C.DPT_CROSS_ENTROPY_BACKWARD,
		cols: C.long(xm.cols),
		y:    dm.mat(),
		r:    sm.mat(),
		x:    xm.mat(),
		ids:  ids.p,
	})
}

// checkIndex panics unless x has n elements in [0, limit).
func checkIndex(op string, x *index, n, limit int) {
	if len(x.ids) != n {
		panic(fmt.Sprintf("onednn: %s: index of %d, want %d", op, len(x.ids), n))
	}
	for i, id := range x.ids {
		if id < 0 || int(id) >= limit {
			panic(fmt.Sprintf("onednn: %s: index %d is %d, want one in [0, %d)", op, i, id, limit))
		}
	}
}

// Argmax implements engine.Engine.
func (e *Engine) Argmax(dst []int32, logits engine.Tensor) error {
	m := mat(logits)
	if len(dst) != m.rows || m.cols == 0 {
		panic(fmt.Sprintf("onednn: Argmax: %d results from %d×%d", len(dst), m.rows, m.cols))
	}
	e.reserve(4 * m.rows)
	out := unsafe.Slice((*int32)(e.scratch[0].p), m.rows)
	e.each(m.rows, m.cols,
		C.dpt_rows{op: C.DPT_ARGMAX, cols: C.long(m.cols), x: m.mat(), out: (*C.int32_t)(e.scratch[0].p)})
	copy(dst, out)
	return e.takeError()
}
