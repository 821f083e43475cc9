package t5

import "github.com/dptune/dpt/model/engine"

// norm adds the pending sublayer output to the stream and normalizes the sum.
func (t *Trainer) norm(s stream, g engine.Gain) normTrained {
	n, d := s.x.Rows(), t.m.cfg.DModel
	saved := normTrained{x: s.x, r: t.pass.Tensor(engine.Wide, n, 1), y: t.pass.Tensor(engine.Narrow, n, d)}
	if s.delta == nil {
		t.eng.NormForward(saved.y, saved.r, s.x, g, t.m.cfg.LayerNormEpsilon)
		return saved
	}
	saved.x = t.pass.Tensor(engine.Wide, n, d)
	t.eng.AddNormForward(saved.x, saved.y, saved.r, s.x, s.delta, g, t.m.cfg.LayerNormEpsilon)
	return saved
}

// normBackward adds to dx and to dg for the gradient dy of the norm's result.
func (t *Trainer) normBackward(dx, dy engine.Tensor, s *normTrained, g engine.Gain, dg engine.Tensor) {
	t.eng.NormGainGradient(dg, dy, s.x, s.r)
	t.eng.NormBackward(dx, dy, s.x, s.r, g)
}

func (t *Trainer) linear(ws engine.Workspace, p engine.Precision, x engine.Tensor, w engine.Linear) engine.Tensor {
	y := ws.Tensor(p, x.Rows(), w.Out())
	t.eng.LinearForward(y, x, w)
	return y
}

// linearBackward returns dy·w in tmp and adds dyᵀ·x to dw.
func (t *Trainer) linearBackward(
	p engine.Precision,
	dy, x engine.Tensor,
	w engine.Linear,
	dw engine.Tensor,
) engine.Tensor {
	t.eng.LinearWeightGradient(dw, dy, x)
	dx := t.tmp.Tensor(p, dy.Rows(), w.In())
	t.eng.LinearBackward(dx, dy, w, false)
	return dx
}

// pend returns a sublayer's output x·wᵀ. It reuses the memory of the previous sublayer's output,
// which is part of the stream by now.
func (t *Trainer) pend(x engine.Tensor, w engine.Linear) engine.Tensor {
	t.pending.Reset()
	return t.linear(t.pending, engine.Wide, x, w)
}

// group is the i-th of x's column groups, each Inner wide.
func (t *Trainer) group(ws engine.Workspace, x engine.Tensor, i int) engine.Tensor {
	inner := t.m.cfg.inner()
	return ws.View(x, 0, x.Rows(), i*inner, inner)
}

// attend runs attention on s.q, s.k and s.v.
func (t *Trainer) attend(s *attentionTrained, seg engine.Segments, bias engine.Bias) {
	n, heads := s.q.Rows(), t.m.cfg.NumHeads
	s.out, s.logNorm = t.pass.Tensor(engine.Narrow, n, t.m.cfg.inner()), t.pass.Tensor(engine.Wide, n, heads)
	t.eng.AttentionForward(s.out, s.logNorm, s.q, s.k, s.v, seg, bias, heads)
}

func (t *Trainer) selfForward(
	w *selfAttention,
	s stream,
	seg engine.Segments,
	bias engine.Bias,
) (stream, attentionTrained) {
	saved := attentionTrained{norm: t.norm(s, w.norm)}
	saved.qkv = t.linear(t.pass, engine.Narrow, saved.norm.y, w.qkv)
	saved.q = t.group(t.pass, saved.qkv, 0)
	saved.k = t.group(t.pass, saved.qkv, 1)
	saved.v = t.group(t.pass, saved.qkv, 2)
	t.attend(&saved, seg, bias)
	return stream{saved.norm.x, t.pend(saved.out, w.o)}, saved
}

// selfBackward turns dx from the gradient after the sublayer into the one before it.
func (t *Trainer) selfBackward(
	w *selfAttention,
	g *attentionGradient,
	s *attentionTrained,
	dx engine.Tensor,
	seg engine.Segments,
	bias engine.Bias,
	dbias engine.Tensor,
) {
	t.tmp.Reset()
	heads := t.m.cfg.NumHeads
	dout := t.linearBackward(engine.Narrow, dx, s.out, w.o, g.o)
	t.eng.AttentionBiasGradient(dbias, dout, s.out, s.logNorm, s.q, s.k, s.v, seg, bias, heads)
	dqkv := t.tmp.Tensor(engine.Narrow, s.qkv.Rows(), s.qkv.Cols())
	t.eng.AttentionBackward(t.group(t.tmp, dqkv, 0), t.group(t.tmp, dqkv, 1), t.group(t.tmp, dqkv, 2), dout, s.out,
		s.logNorm, s.q, s.k, s.v, seg, bias, heads)
	dy := t.linearBackward(engine.Wide, dqkv, s.norm.y, w.qkv, g.q)
	t.normBackward(dx, dy, &s.norm, w.norm, g.norm)
}

func (t *Trainer) crossForward(
	w *crossAttention,
	s stream,
	enc engine.Tensor,
	seg engine.Segments,
) (stream, attentionTrained) {
	saved := attentionTrained{norm: t.norm(s, w.norm)}
	saved.q = t.linear(t.pass, engine.Narrow, saved.norm.y, w.q)
	saved.qkv = t.linear(t.pass, engine.Narrow, enc, w.kv)
	saved.k, saved.v = t.group(t.pass, saved.qkv, 0), t.group(t.pass, saved.qkv, 1)
	t.attend(&saved, seg, nil)
	return stream{saved.norm.x, t.pend(saved.out, w.o)}, saved
}

// crossBackward is selfBackward for cross-attention; it also adds to denc, the gradient of the
// encoder's output enc.
func (t *Trainer) crossBackward(
	w *crossAttention,
	g *attentionGradient,
	s *attentionTrained,
	dx, denc, enc engine.Tensor,
	seg engine.Segments,
) {
	t.tmp.Reset()
	dout := t.linearBackward(engine.Narrow, dx, s.out, w.o, g.o)
	dq := t.tmp.Tensor(engine.Narrow, s.q.Rows(), s.q.Cols())
	dkv := t.tmp.Tensor(engine.Narrow, s.qkv.Rows(), s.qkv.Cols())
	t.eng.AttentionBackward(dq, t.group(t.tmp, dkv, 0), t.group(t.tmp, dkv, 1), dout, s.out, s.logNorm, s.q, s.k, s.v,
		seg, nil, t.m.cfg.NumHeads)
	t.eng.LinearWeightGradient(g.kv, dkv, enc)
	t.eng.LinearBackward(denc, dkv, w.kv, true)
	dy := t.linearBackward(engine.Wide, dq, s.norm.y, w.q, g.q)
	t.normBackward(dx, dy, &s.norm, w.norm, g.norm)
}

func (t *Trainer) feedForwardForward(w *feedForward, s stream) (stream, feedForwardTrained) {
	saved := feedForwardTrained{norm: t.norm(s, w.norm)}
	saved.hidden = t.linear(t.pass, engine.Narrow, saved.norm.y, w.wi)
	saved.act = saved.hidden
	if t.m.cfg.gated() {
		saved.act = t.pass.Tensor(engine.Narrow, saved.hidden.Rows(), t.m.cfg.DFF)
		t.m.cfg.gateForward(t.eng, saved.act, saved.hidden)
	} else {
		saved.positive = t.pass.Mask(saved.act.Rows(), saved.act.Cols())
		t.eng.ReLUForward(saved.act, saved.hidden, saved.positive)
	}
	return stream{saved.norm.x, t.pend(saved.act, w.wo)}, saved
}

// feedForwardBackward turns dx from the gradient after the sublayer into the one before it.
func (t *Trainer) feedForwardBackward(w *feedForward, g *feedForwardGradient, s *feedForwardTrained, dx engine.Tensor) {
	t.tmp.Reset()
	dact := t.linearBackward(engine.Narrow, dx, s.act, w.wo, g.wo)
	dhidden := dact
	if t.m.cfg.gated() {
		dhidden = t.tmp.Tensor(engine.Narrow, s.hidden.Rows(), s.hidden.Cols())
		t.m.cfg.gateBackward(t.eng, dhidden, dact, s.hidden)
	} else {
		t.eng.ReLUBackward(dhidden, dact, s.positive)
	}
	dy := t.linearBackward(engine.Wide, dhidden, s.norm.y, w.wi, g.wi)
	t.normBackward(dx, dy, &s.norm, w.norm, g.norm)
}
