//go:build onednn && cgo

package onednn

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// heads is a weight with a block W_h [d, in] per head.
type heads struct {
	d, in    int
	expand   []*packed // [d, in]
	contract []*packed // [in, d]
}

func (h *heads) Heads() int { return len(h.expand) }
func (h *heads) Dim() int   { return h.d }
func (h *heads) In() int    { return h.in }

// NewHeads packs the blocks of w.
func (e *Engine) NewHeads(n, in int, w []float32) (engine.Heads, error) {
	if n <= 0 || in <= 0 || len(w) == 0 || len(w)%(n*in) != 0 {
		return nil, fmt.Errorf("heads: weight has %d elements, want a multiple of %d heads of %d columns",
			len(w), n, in)
	}
	h := &heads{d: len(w) / (n * in), in: in}
	for i := range n {
		l, err := e.pack(w[i*h.d*in:(i+1)*h.d*in], h.d, in)
		if err != nil {
			return nil, fmt.Errorf("heads: %w", err)
		}
		h.contract, h.expand = append(h.contract, l.forward...), append(h.expand, l.backward...)
	}
	return h, nil
}

// ExpandHeads implements engine.Engine.
func (e *Engine) ExpandHeads(y, x engine.Tensor, w engine.Heads) {
	h := w.(*heads)
	narrow, wide := h.operands("ExpandHeads", mat(x), mat(y))
	e.multiplyGroup(linearTask{x: narrow, xStep: h.d, y: wide, yStep: mat(y).ld, w: h.expand})
}

// ContractHeads implements engine.Engine.
func (e *Engine) ContractHeads(y, x engine.Tensor, w engine.Heads) {
	h := w.(*heads)
	narrow, wide := h.operands("ContractHeads", mat(y), mat(x))
	e.multiplyGroup(linearTask{x: wide, xStep: mat(x).ld, y: narrow, yStep: h.d, w: h.contract})
}

// operands are the first head's parts of the tensor with heads side by side, [n, d], and of the one
// with a row per head, [n, in].
func (h *heads) operands(op string, side, rows *tensor) (narrow, wide tensor) {
	n := side.rows
	check(op, "the tensor of heads side by side", side, n, h.Heads()*h.d)
	check(op, "the tensor of a row per head", rows, n*h.Heads(), h.in)
	narrow = tensor{rows: n, cols: h.d, ld: side.ld, dt: side.dt, p: side.p}
	wide = tensor{rows: n, cols: h.in, ld: h.Heads() * rows.ld, dt: rows.dt, p: rows.p}
	return narrow, wide
}
