package t5

import "github.com/dptune/dpt/model/engine"

// stream is the residual stream between sublayers: x, and the last sublayer's output that is still
// to be added to it (nil at the start).
type stream struct{ x, delta engine.Tensor }

// normSaved holds the operands of a norm's backward: its input x [n, d_model] and reciprocal root
// mean squares r [n, 1].
type normSaved struct{ x, r engine.Tensor }

// norm adds the pending sublayer output to the stream and returns the normalized sum, in tmp.
func (m *Model) norm(ws engine.Workspace, s stream, g engine.Gain) (y engine.Tensor, saved normSaved) {
	n, d := s.x.Rows(), m.cfg.DModel
	y = m.tmp.Tensor(engine.Narrow, n, d)
	saved = normSaved{x: s.x, r: ws.Tensor(engine.Wide, n, 1)}
	if s.delta == nil {
		m.eng.NormForward(y, saved.r, s.x, g, m.cfg.LayerNormEpsilon)
		return y, saved
	}
	saved.x = ws.Tensor(engine.Wide, n, d)
	m.eng.AddNormForward(saved.x, y, saved.r, s.x, s.delta, g, m.cfg.LayerNormEpsilon)
	return y, saved
}

// linear returns x·wᵀ in ws.
func (m *Model) linear(ws engine.Workspace, p engine.Precision, x engine.Tensor, w engine.Linear) engine.Tensor {
	y := ws.Tensor(p, x.Rows(), w.Out())
	m.eng.LinearForward(y, x, w)
	return y
}

// linearBackward returns dy·w in tmp.
func (m *Model) linearBackward(p engine.Precision, dy engine.Tensor, w engine.Linear) engine.Tensor {
	dx := m.tmp.Tensor(p, dy.Rows(), w.In())
	m.eng.LinearBackward(dx, dy, w, false)
	return dx
}

// attentionSaved holds the operands of attention's backward: q, out [nq, inner], k, v [nk, inner],
// lse [nq, heads].
type attentionSaved struct {
	norm         normSaved
	qkv          engine.Tensor // q, k, v side by side
	q, k, v      engine.Tensor
	out, logNorm engine.Tensor
}

// attend runs attention on s.q, s.k, s.v and returns its output's projection.
func (m *Model) attend(
	ws engine.Workspace,
	s *attentionSaved,
	seg engine.Segments,
	bias engine.Bias,
	o engine.Linear,
) engine.Tensor {
	s.out = ws.Tensor(engine.Narrow, s.q.Rows(), m.cfg.inner())
	s.logNorm = ws.Tensor(engine.Wide, s.q.Rows(), m.cfg.NumHeads)
	m.eng.AttentionForward(s.out, s.logNorm, s.q, s.k, s.v, seg, bias, m.cfg.NumHeads)
	return m.pend(s.out, o)
}

// pend returns a sublayer's output x·wᵀ. It reuses the memory of the previous sublayer's output,
// which is part of the stream by now.
func (m *Model) pend(x engine.Tensor, w engine.Linear) engine.Tensor {
	m.pending.Reset()
	return m.linear(m.pending, engine.Wide, x, w)
}

// columns is the i-th of t's column groups, each inner() wide.
func (m *Model) columns(ws engine.Workspace, t engine.Tensor, i int) engine.Tensor {
	inner := m.cfg.inner()
	return ws.View(t, 0, t.Rows(), i*inner, inner)
}

// selfAttentionForward returns the stream with o(attention(qkv(norm(x)))) pending.
func (m *Model) selfAttentionForward(
	ws engine.Workspace,
	w *selfAttention,
	s stream,
	seg engine.Segments,
	bias engine.Bias,
) (stream, attentionSaved) {
	m.tmp.Reset()
	var saved attentionSaved
	y, norm := m.norm(ws, s, w.norm)
	saved.norm = norm
	saved.qkv = m.linear(ws, engine.Narrow, y, w.qkv)
	return stream{norm.x, m.selfAttend(ws, w, &saved, seg, bias)}, saved
}

// selfAttend runs attention on the projections in s.qkv.
func (m *Model) selfAttend(
	ws engine.Workspace,
	w *selfAttention,
	s *attentionSaved,
	seg engine.Segments,
	bias engine.Bias,
) engine.Tensor {
	s.q, s.k, s.v = m.columns(ws, s.qkv, 0), m.columns(ws, s.qkv, 1), m.columns(ws, s.qkv, 2)
	return m.attend(ws, s, seg, bias, w.o)
}

// selfAttentionProjections returns d(qkv) [n, 3·inner] for the gradient dx of the stream after the
// sublayer.
func (m *Model) selfAttentionProjections(
	w *selfAttention,
	s *attentionSaved,
	dx engine.Tensor,
	seg engine.Segments,
	bias engine.Bias,
) engine.Tensor {
	dout := m.linearBackward(engine.Narrow, dx, w.o)
	dqkv := m.tmp.Tensor(engine.Narrow, s.qkv.Rows(), s.qkv.Cols())
	dq, dk, dv := m.columns(m.tmp, dqkv, 0), m.columns(m.tmp, dqkv, 1), m.columns(m.tmp, dqkv, 2)
	m.eng.AttentionBackward(dq, dk, dv, dout, s.out, s.logNorm, s.q, s.k, s.v, seg, bias, m.cfg.NumHeads)
	return dqkv
}

// selfAttentionBackward turns dx from the gradient after the sublayer into the one before it.
func (m *Model) selfAttentionBackward(
	w *selfAttention,
	s *attentionSaved,
	dx engine.Tensor,
	seg engine.Segments,
	bias engine.Bias,
) {
	m.tmp.Reset()
	dqkv := m.selfAttentionProjections(w, s, dx, seg, bias)
	dy := m.linearBackward(engine.Wide, dqkv, w.qkv)
	m.eng.NormBackward(dx, dy, s.norm.x, s.norm.r, w.norm)
}

// feedForwardSaved holds the operands of the feed-forward layer's backward. Of the activation it
// holds, with ReLU, where the input [n, d_ff] was positive and, with a gate, the input
// [n, 2·d_ff].
type feedForwardSaved struct {
	norm     normSaved
	positive engine.Mask
	hidden   engine.Tensor
}

// feedForwardForward returns the stream with wo(act(wi(norm(x)))) pending.
func (m *Model) feedForwardForward(ws engine.Workspace, w *feedForward, s stream) (stream, feedForwardSaved) {
	m.tmp.Reset()
	y, norm := m.norm(ws, s, w.norm)
	saved := feedForwardSaved{norm: norm}
	var act engine.Tensor
	if m.cfg.gated() {
		saved.hidden = m.linear(ws, engine.Narrow, y, w.wi)
		act = m.tmp.Tensor(engine.Narrow, y.Rows(), m.cfg.DFF)
		m.cfg.gateForward(m.eng, act, saved.hidden)
	} else {
		act = m.linear(m.tmp, engine.Narrow, y, w.wi)
		saved.positive = ws.Mask(act.Rows(), act.Cols())
		m.eng.ReLUForward(act, act, saved.positive)
	}
	return stream{norm.x, m.pend(act, w.wo)}, saved
}

// feedForwardBackward turns dx from the gradient after the sublayer into the one before it.
func (m *Model) feedForwardBackward(w *feedForward, s *feedForwardSaved, dx engine.Tensor) {
	m.tmp.Reset()
	dact := m.linearBackward(engine.Narrow, dx, w.wo)
	dhidden := dact
	if m.cfg.gated() {
		dhidden = m.tmp.Tensor(engine.Narrow, s.hidden.Rows(), s.hidden.Cols())
		m.cfg.gateBackward(m.eng, dhidden, dact, s.hidden)
	} else {
		m.eng.ReLUBackward(dhidden, dact, s.positive)
	}
	dy := m.linearBackward(engine.Wide, dhidden, w.wi)
	m.eng.NormBackward(dx, dy, s.norm.x, s.norm.r, w.norm)
}

// gateForward is the gated activation that the architecture has: y [n, d_ff] from x [n, 2·d_ff].
func (c Config) gateForward(eng engine.Engine, y, x engine.Tensor) {
	if c.GatedSiLU {
		eng.GatedSiLUForward(y, x)
		return
	}
	eng.GatedGELUForward(y, x)
}

// gateBackward is the backward of gateForward.
func (c Config) gateBackward(eng engine.Engine, dx, dy, x engine.Tensor) {
	if c.GatedSiLU {
		eng.GatedSiLUBackward(dx, dy, x)
		return
	}
	eng.GatedGELUBackward(dx, dy, x)
}
