//go:build onednn && cgo

package onednn

// #include "kernels.h"
//
// static void dpt_embed_backward_run(const dpt_kernels *k, const dpt_embed_backward *a,
//		long from, long to, void *scratch) {
//	k->embed_backward(a, from, to, scratch);
// }
import "C"

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/dptune/dpt/model/engine"
)

// Upload implements engine.Engine.
func (e *Engine) Upload(dst engine.Tensor, src []float32) {
	m := mat(dst)
	if len(src) != m.rows*m.cols {
		panic(fmt.Sprintf("onednn: Upload: %d elements into %d×%d", len(src), m.rows, m.cols))
	}
	for i := range m.rows {
		row := src[i*m.cols : (i+1)*m.cols]
		if m.dt == f32 {
			copy(unsafe.Slice((*float32)(m.at(i, 0)), m.cols), row)
			continue
		}
		for j, v := range row {
			unsafe.Slice((*uint16)(m.at(i, 0)), m.cols)[j] = toBF16(v)
		}
	}
}

// toBF16 rounds to nearest, ties to even, as the kernels do.
func toBF16(v float32) uint16 {
	if v != v {
		return 0x7fc0
	}
	u := math.Float32bits(v)
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// Download implements engine.Engine.
func (e *Engine) Download(dst []float64, src engine.Tensor) error {
	return download(e, "Download", dst, src)
}

// download copies src into dst in either of Go's precisions.
func download[F float32 | float64](e *Engine, op string, dst []F, src engine.Tensor) error {
	m := mat(src)
	if len(dst) != m.rows*m.cols {
		panic(fmt.Sprintf("onednn: %s: %d elements from %d×%d", op, len(dst), m.rows, m.cols))
	}
	for i := range m.rows {
		row := dst[i*m.cols : (i+1)*m.cols]
		if m.dt == f32 {
			for j, v := range unsafe.Slice((*float32)(m.at(i, 0)), m.cols) {
				row[j] = F(v)
			}
			continue
		}
		for j, v := range unsafe.Slice((*uint16)(m.at(i, 0)), m.cols) {
			row[j] = F(math.Float32frombits(uint32(v) << 16))
		}
	}
	return e.takeError()
}

// takeError returns the first failure since it was last called, and forgets it.
func (e *Engine) takeError() error {
	err := e.err
	e.err = nil
	return err
}

// Zero implements engine.Engine.
func (e *Engine) Zero(t engine.Tensor) {
	m := mat(t)
	e.each(m.rows, m.cols/4, C.dpt_rows{op: C.DPT_ZERO, cols: C.long(m.cols), y: m.mat()})
}

// Scale implements engine.Engine.
func (e *Engine) Scale(t engine.Tensor, s float64) {
	m := mat(t)
	e.each(m.rows, m.cols, C.dpt_rows{op: C.DPT_SCALE, cols: C.long(m.cols), y: m.mat(), s: C.double(s)})
}

// GatherRows implements engine.Engine.
func (e *Engine) GatherRows(dst, src engine.Tensor, rows engine.Index) {
	ym, xm, ids := mat(dst), mat(src), rows.(*index)
	check("GatherRows", "dst", ym, len(ids.ids), xm.cols)
	checkIndex("GatherRows", ids, ym.rows, xm.rows)
	e.each(ym.rows, ym.cols, C.dpt_rows{op: C.DPT_GATHER, cols: C.long(ym.cols), y: ym.mat(), x: xm.mat(), ids: ids.p})
}

// ScatterRows implements engine.Engine.
func (e *Engine) ScatterRows(dst, src engine.Tensor, rows engine.Index) {
	ym, xm, ids := mat(dst), mat(src), rows.(*index)
	check("ScatterRows", "src", xm, len(ids.ids), ym.cols)
	checkIndex("ScatterRows", ids, xm.rows, ym.rows)
	e.each(xm.rows, xm.cols, C.dpt_rows{op: C.DPT_SCATTER, cols: C.long(xm.cols), y: ym.mat(), x: xm.mat(), ids: ids.p})
}

// EmbedForward implements engine.Engine.
func (e *Engine) EmbedForward(dst engine.Tensor, tbl engine.Table, prompt engine.Tensor, ids engine.Index) {
	ym, w, x := mat(dst), &tbl.(*table).w, ids.(*index)
	args := C.dpt_rows{op: C.DPT_EMBED, cols: C.long(w.cols), y: ym.mat(), x: w.mat(), ids: x.p}
	c := 0
	if prompt != nil {
		pm := mat(prompt)
		check("EmbedForward", "prompt", pm, pm.rows, w.cols)
		args.x2, c = pm.mat(), pm.rows
	}
	check("EmbedForward", "dst", ym, len(x.ids), w.cols)
	for i, id := range x.ids {
		if int(id) >= w.rows || int(^id) >= c {
			panic(fmt.Sprintf("onednn: EmbedForward: index %d is %d, want one in [%d, %d)", i, id, -c, w.rows))
		}
	}
	e.each(ym.rows, ym.cols, args)
}

// embedBackwardTask sums rows by prompt row, for a block of columns per part: one worker sums each
// element, in order of rows.
type embedBackwardTask struct {
	e    *Engine
	cols int
	args C.dpt_embed_backward
}

const embedCols = 64

// EmbedBackward implements engine.Engine.
func (e *Engine) EmbedBackward(dprompt, dx engine.Tensor, ids engine.Index) {
	pm, xm, x := mat(dprompt), mat(dx), ids.(*index)
	check("EmbedBackward", "dx", xm, len(x.ids), pm.cols)
	for i, id := range x.ids {
		if int(^id) >= pm.rows {
			panic(fmt.Sprintf("onednn: EmbedBackward: index %d is %d, want at least %d", i, id, -pm.rows))
		}
	}
	e.reserve(4 * embedCols * pm.rows)
	t := &e.embed
	t.e, t.cols = e, pm.cols
	t.args = C.dpt_embed_backward{
		dprompt:     pm.mat(),
		dx:          xm.mat(),
		prompt_rows: C.long(pm.rows),
		n:           C.long(xm.rows),
		ids:         x.p,
	}
	e.run((pm.cols+embedCols-1)/embedCols, xm.rows*xm.cols, t)
	t.args = C.dpt_embed_backward{}
}

func (t *embedBackwardTask) Do(part, worker int) {
	from := part * embedCols
	C.dpt_embed_backward_run(t.e.kernels, &t.args, C.long(from), C.long(min(t.cols, from+embedCols)),
		t.e.scratch[worker].p)
}
