package meter

import (
	"time"

	"github.com/dptune/dpt/model/engine"
)

// The ops of engine.Engine, each timed.

func (m *Engine) Upload(dst engine.Tensor, src []float32) {
	began := time.Now()
	m.Engine.Upload(dst, src)
	m.note(Other, 0, began)
}

func (m *Engine) Download(dst []float64, src engine.Tensor) error {
	began := time.Now()
	err := m.Engine.Download(dst, src)
	m.note(Other, 0, began)
	return err
}

func (m *Engine) Zero(t engine.Tensor) {
	began := time.Now()
	m.Engine.Zero(t)
	m.note(Other, 0, began)
}

func (m *Engine) Scale(t engine.Tensor, s float64) {
	began := time.Now()
	m.Engine.Scale(t, s)
	m.note(Other, 0, began)
}

func (m *Engine) EmbedForward(dst engine.Tensor, table engine.Table, prompt engine.Tensor, ids engine.Index) {
	began := time.Now()
	m.Engine.EmbedForward(dst, table, prompt, ids)
	m.note(Other, 0, began)
}

func (m *Engine) EmbedBackward(dprompt, dx engine.Tensor, ids engine.Index) {
	began := time.Now()
	m.Engine.EmbedBackward(dprompt, dx, ids)
	m.note(Other, 0, began)
}

func (m *Engine) GatherRows(dst, src engine.Tensor, rows engine.Index) {
	began := time.Now()
	m.Engine.GatherRows(dst, src, rows)
	m.note(Other, 0, began)
}

func (m *Engine) ScatterRows(dst, src engine.Tensor, rows engine.Index) {
	began := time.Now()
	m.Engine.ScatterRows(dst, src, rows)
	m.note(Other, 0, began)
}

func (m *Engine) NormForward(y, r, x engine.Tensor, g engine.Gain, eps float64) {
	began := time.Now()
	m.Engine.NormForward(y, r, x, g, eps)
	m.note(Other, 0, began)
}

func (m *Engine) AddNormForward(sum, y, r, x, delta engine.Tensor, g engine.Gain, eps float64) {
	began := time.Now()
	m.Engine.AddNormForward(sum, y, r, x, delta, g, eps)
	m.note(Other, 0, began)
}

func (m *Engine) NormBackward(dx, dy, x, r engine.Tensor, g engine.Gain) {
	began := time.Now()
	m.Engine.NormBackward(dx, dy, x, r, g)
	m.note(Other, 0, began)
}

func (m *Engine) LinearForward(y, x engine.Tensor, w engine.Linear) {
	began := time.Now()
	m.Engine.LinearForward(y, x, w)
	m.note(Linear, m.linear(x, y, w, false, false), began)
}

func (m *Engine) LinearBackward(dx, dy engine.Tensor, w engine.Linear, accumulate bool) {
	began := time.Now()
	m.Engine.LinearBackward(dx, dy, w, accumulate)
	m.note(Linear, m.linear(dx, dy, w, true, accumulate), began)
}

func (m *Engine) AttentionForward(out, lse, q, k, v engine.Tensor, seg engine.Segments, bias engine.Bias, heads int) {
	began := time.Now()
	m.Engine.AttentionForward(out, lse, q, k, v, seg, bias, heads)
	m.note(Attention, 2*2*m.work[seg]*float64(q.Cols()), began)
}

func (m *Engine) AttentionBackward(
	dq, dk, dv, dout, out, lse, q, k, v engine.Tensor,
	seg engine.Segments,
	bias engine.Bias,
	heads int,
) {
	began := time.Now()
	m.Engine.AttentionBackward(dq, dk, dv, dout, out, lse, q, k, v, seg, bias, heads)
	m.note(Attention, 5*2*m.work[seg]*float64(q.Cols()), began)
}

func (m *Engine) ExpandHeads(y, x engine.Tensor, w engine.Heads) {
	began := time.Now()
	m.Engine.ExpandHeads(y, x, w)
	m.note(Linear, 2*float64(x.Rows())*float64(w.Heads()*w.Dim()*w.In()), began)
}

func (m *Engine) ContractHeads(y, x engine.Tensor, w engine.Heads) {
	began := time.Now()
	m.Engine.ContractHeads(y, x, w)
	m.note(Linear, 2*float64(y.Rows())*float64(w.Heads()*w.Dim()*w.In()), began)
}

func (m *Engine) SharedAttentionForward(out, lse, q, kv engine.Tensor, seg engine.Segments) {
	began := time.Now()
	m.Engine.SharedAttentionForward(out, lse, q, kv, seg)
	m.note(Attention, 2*2*m.work[seg]*float64(q.Cols()), began)
}

func (m *Engine) SharedAttentionBackward(dq, dkv, dout, out, lse, q, kv engine.Tensor, seg engine.Segments) {
	began := time.Now()
	m.Engine.SharedAttentionBackward(dq, dkv, dout, out, lse, q, kv, seg)
	m.note(Attention, 5*2*m.work[seg]*float64(q.Cols()), began)
}

func (m *Engine) ReLUForward(y, x engine.Tensor, positive engine.Mask) {
	began := time.Now()
	m.Engine.ReLUForward(y, x, positive)
	m.note(Other, 0, began)
}

func (m *Engine) ReLUBackward(dx, dy engine.Tensor, positive engine.Mask) {
	began := time.Now()
	m.Engine.ReLUBackward(dx, dy, positive)
	m.note(Other, 0, began)
}

func (m *Engine) GatedGELUForward(y, x engine.Tensor) {
	began := time.Now()
	m.Engine.GatedGELUForward(y, x)
	m.note(Other, 0, began)
}

func (m *Engine) GatedGELUBackward(dx, dy, x engine.Tensor) {
	began := time.Now()
	m.Engine.GatedGELUBackward(dx, dy, x)
	m.note(Other, 0, began)
}

func (m *Engine) GatedSiLUForward(y, x engine.Tensor) {
	began := time.Now()
	m.Engine.GatedSiLUForward(y, x)
	m.note(Other, 0, began)
}

func (m *Engine) GatedSiLUBackward(dx, dy, x engine.Tensor) {
	began := time.Now()
	m.Engine.GatedSiLUBackward(dx, dy, x)
	m.note(Other, 0, began)
}

func (m *Engine) CrossEntropyForward(loss, lse, logits engine.Tensor, targets engine.Index) {
	began := time.Now()
	m.Engine.CrossEntropyForward(loss, lse, logits, targets)
	m.note(Other, 0, began)
}

func (m *Engine) CrossEntropyBackward(dlogits, logits, lse engine.Tensor, targets engine.Index) {
	began := time.Now()
	m.Engine.CrossEntropyBackward(dlogits, logits, lse, targets)
	m.note(Other, 0, began)
}

func (m *Engine) Argmax(dst []int32, logits engine.Tensor) error {
	began := time.Now()
	err := m.Engine.Argmax(dst, logits)
	m.note(Other, 0, began)
	return err
}

// linear notes a product between x [rows, in] and y [rows, out], whichever is the result, and
// returns its FLOPs.
func (m *Engine) linear(x, y engine.Tensor, w engine.Linear, backward, accumulate bool) float64 {
	s := shape{
		rows:       x.Rows(),
		in:         x.Cols(),
		out:        y.Cols(),
		backward:   backward,
		accumulate: accumulate,
		x:          m.precision[x],
		y:          m.precision[y],
	}
	p := m.shapes[s]
	if p == nil {
		p = &product{shape: s, weight: w}
		m.shapes[s] = p
	}
	p.count++
	return s.flops()
}
