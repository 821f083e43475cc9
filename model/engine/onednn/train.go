//go:build onednn && cgo

package onednn

// #include "kernels.h"
//
// static void dpt_weight_gradient_run(const dpt_kernels *k, const dpt_weight_gradient *a,
//		long part, void *scratch) {
//	k->weight_gradient(a, part, scratch);
// }
//
// static size_t dpt_weight_gradient_scratch(const dpt_kernels *k) {
//	return k->weight_gradient_scratch();
// }
//
// static void dpt_gain_gradient_run(const dpt_kernels *k, const dpt_gain_gradient *a,
//		long from, long to) {
//	k->gain_gradient(a, from, to);
// }
//
// static void dpt_bias_gradient_run(const dpt_kernels *k, const dpt_attn *a, long head,
//		long segments, void *scratch) {
//	k->bias_gradient(a, head, segments, scratch);
// }
//
// static size_t dpt_bias_gradient_scratch(const dpt_kernels *k, const dpt_attn *a,
//		long queries, long keys) {
//	return k->bias_gradient_scratch(a, queries, keys);
// }
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/dptune/dpt/model/engine"
)

var _ engine.Trainer = (*Engine)(nil)

// weightGradientTask adds dyᵀ·x to weightRows rows of dw per part.
type weightGradientTask struct {
	e    *Engine
	args C.dpt_weight_gradient
}

const weightRows = 96 // WG_ROWS

// LinearWeightGradient implements engine.Trainer.
func (e *Engine) LinearWeightGradient(dw, dy, x engine.Tensor) {
	dwm, dym, xm := mat(dw), mat(dy), mat(x)
	checkWide("LinearWeightGradient", "dw", dwm, dym.cols, xm.cols)
	check("LinearWeightGradient", "x", xm, dym.rows, xm.cols)
	e.reserve(int(C.dpt_weight_gradient_scratch(e.kernels)))
	t := &e.weight
	t.e = e
	t.args = C.dpt_weight_gradient{
		dw:  dwm.mat(),
		dy:  dym.mat(),
		x:   xm.mat(),
		out: C.long(dwm.rows),
		in:  C.long(dwm.cols),
		n:   C.long(xm.rows),
	}
	if e.bf16 {
		t.args.bf16 = 1
	}
	e.run((dwm.rows+weightRows-1)/weightRows, 2*xm.rows*dwm.rows*dwm.cols, t)
	t.args = C.dpt_weight_gradient{}
}

func (t *weightGradientTask) Do(part, worker int) {
	C.dpt_weight_gradient_run(t.e.kernels, &t.args, C.long(part), t.e.scratch[worker].p)
}

// gainGradientTask sums embedCols columns per part.
type gainGradientTask struct {
	e    *Engine
	cols int
	args C.dpt_gain_gradient
}

// NormGainGradient implements engine.Trainer.
func (e *Engine) NormGainGradient(dg, dy, x, r engine.Tensor) {
	dgm, dym, xm, rm := mat(dg), mat(dy), mat(x), mat(r)
	checkWide("NormGainGradient", "dg", dgm, 1, xm.cols)
	check("NormGainGradient", "dy", dym, xm.rows, xm.cols)
	checkWide("NormGainGradient", "r", rm, xm.rows, 1)
	t := &e.gainGrad
	t.e, t.cols = e, xm.cols
	t.args = C.dpt_gain_gradient{dg: dgm.mat(), dy: dym.mat(), x: xm.mat(), r: rm.mat(), n: C.long(xm.rows)}
	e.run((xm.cols+embedCols-1)/embedCols, 3*xm.rows*xm.cols, t)
	t.args = C.dpt_gain_gradient{}
}

func (t *gainGradientTask) Do(part, _ int) {
	from := part * embedCols
	C.dpt_gain_gradient_run(t.e.kernels, &t.args, C.long(from), C.long(min(t.cols, from+embedCols)))
}

// biasGradientTask sums one head's gradient per part.
type biasGradientTask struct {
	e        *Engine
	segments int
	args     C.dpt_attn
}

// AttentionBiasGradient implements engine.Trainer.
func (e *Engine) AttentionBiasGradient(
	dbias, dout, out, lse, q, k, v engine.Tensor,
	seg engine.Segments,
	b engine.Bias,
	heads int,
) {
	const op = "AttentionBiasGradient"
	dbm, dom, om, lm := mat(dbias), mat(dout), mat(out), mat(lse)
	qm, km, vm := mat(q), mat(k), mat(v)
	s, bm := seg.(*segments), b.(*bias)
	d := qm.cols / heads
	checkWide(op, "dbias", dbm, heads, bm.hi-bm.lo+1)
	check(op, "q", qm, qm.rows, d*heads)
	check(op, "k", km, km.rows, qm.cols)
	check(op, "v", vm, km.rows, qm.cols)
	check(op, "out", om, qm.rows, qm.cols)
	check(op, "dout", dom, qm.rows, qm.cols)
	checkWide(op, "lse", lm, qm.rows, heads)
	if bm.heads != heads || s.qEnd > qm.rows || s.kEnd > km.rows {
		panic(fmt.Sprintf("onednn: %s: "+
			"bias for %d heads and segments of %d query and %d key rows, want %d, and at most %d and %d",
			op, bm.heads, s.qEnd, s.kEnd, heads, qm.rows, km.rows))
	}
	t := &e.biasGrad
	t.e, t.segments = e, s.n
	t.args = C.dpt_attn{
		q:        qm.mat(),
		k:        km.mat(),
		v:        vm.mat(),
		out:      om.mat(),
		lse:      lm.mat(),
		dout:     dom.mat(),
		dq:       dbm.mat(),
		heads:    C.long(heads),
		d:        C.long(d),
		segments: s.p,
		bias:     (*C.float)(bm.p),
		lo:       C.long(bm.lo),
		hi:       C.long(bm.hi),
		backward: 1,
	}
	if s.causal {
		t.args.causal = 1
	}
	e.reserve(int(C.dpt_bias_gradient_scratch(e.kernels, &t.args, C.long(s.qMax), C.long(s.kMax))))
	e.run(heads, 6*s.work*qm.cols, t)
	t.args = C.dpt_attn{}
}

func (t *biasGradientTask) Do(head, worker int) {
	C.dpt_bias_gradient_run(t.e.kernels, &t.args, C.long(head), C.long(t.segments), t.e.scratch[worker].p)
}

// SetLinear implements engine.Trainer.
func (e *Engine) SetLinear(w engine.Linear, weights ...[]float32) error {
	l := w.(*linear)
	if err := engine.CheckLinear(l, weights); err != nil {
		return err
	}
	if len(weights) != 1 {
		e.stacked = e.stacked[:0]
		for _, v := range weights {
			e.stacked = append(e.stacked, v...)
		}
		weights = [][]float32{e.stacked}
	}
	return e.fill(l, weights[0])
}

// SetTable implements engine.Trainer.
func (e *Engine) SetTable(t engine.Table, w []float32) error {
	m := t.(*table).w
	return setFloats("table", m.p, m.rows*m.cols, w)
}

// SetGain implements engine.Trainer.
func (e *Engine) SetGain(g engine.Gain, w []float32) error {
	gm := g.(*gain)
	return setFloats("gain", gm.p, gm.n, w)
}

// SetBias implements engine.Trainer.
func (e *Engine) SetBias(b engine.Bias, values []float32) error {
	bm := b.(*bias)
	return setFloats("bias", bm.p, bm.heads*(bm.hi-bm.lo+1), values)
}

func setFloats(what string, p unsafe.Pointer, n int, src []float32) error {
	if len(src) != n {
		return fmt.Errorf("%s: %d new values, want %d", what, len(src), n)
	}
	copy(unsafe.Slice((*float32)(p), n), src)
	return nil
}

// DownloadFloat32 implements engine.Trainer.
func (e *Engine) DownloadFloat32(dst []float32, src engine.Tensor) error {
	return download(e, "DownloadFloat32", dst, src)
}
