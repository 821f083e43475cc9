package t5

import "github.com/dptune/dpt/model/engine"

type encoderSaved struct {
	self attentionSaved
	ff   feedForwardSaved
}

// encoderForward runs the encoder on in and returns its output [n, d_model], which lives in
// m.batch. With train set it saves the operands of encoderBackward.
func (m *Model) encoderForward(in *encoderInput, train bool) engine.Tensor {
	x := m.batch.Tensor(engine.Wide, in.ids.Len(), m.cfg.DModel)
	m.eng.EmbedForward(x, m.embed, in.prompt.x, in.ids)
	s := stream{x: x}
	for i := range m.encoder {
		layer, saved := &m.encoder[i], &m.savedEncoder[i]
		ws := m.layerSpace(i, train)
		if i == 0 && !m.opt.NoFirstLayer {
			s, saved.self = m.firstAttentionForward(ws, &layer.self, in, x)
		} else {
			s, saved.self = m.selfAttentionForward(ws, &layer.self, s, in.segments, layer.self.bias)
		}
		s, saved.ff = m.feedForwardForward(ws, &layer.ff, s)
	}
	out := m.batch.Tensor(engine.Narrow, x.Rows(), m.cfg.DModel)
	in.final = m.finalNorm(out, s, m.encoderNorm, train, len(m.encoder))
	return out
}

// finalNorm normalizes the whole stream into out.
func (m *Model) finalNorm(out engine.Tensor, s stream, g engine.Gain, train bool, layer int) normSaved {
	ws := m.layerSpace(layer, train)
	saved := normSaved{x: ws.Tensor(engine.Wide, out.Rows(), out.Cols()), r: ws.Tensor(engine.Wide, out.Rows(), 1)}
	m.eng.AddNormForward(saved.x, out, saved.r, s.x, s.delta, g, m.cfg.LayerNormEpsilon)
	return saved
}

// firstAttentionForward is selfAttentionForward on embeddings x. Equal ids have equal queries, keys
// and values, which are computed once: the prompt's, and those of tokens that occur more than once.
func (m *Model) firstAttentionForward(
	ws engine.Workspace,
	w *selfAttention,
	in *encoderInput,
	x engine.Tensor,
) (stream, attentionSaved) {
	m.tmp.Reset()
	distinct := m.tmp.Tensor(engine.Wide, in.distinct.Len(), m.cfg.DModel)
	m.eng.EmbedForward(distinct, m.embed, in.prompt.x, in.distinct)
	y, _ := m.norm(m.tmp, stream{x: distinct}, w.norm)
	qkv := m.linear(m.tmp, engine.Narrow, y, w.qkv)
	saved := attentionSaved{qkv: ws.Tensor(engine.Narrow, x.Rows(), qkv.Cols())}
	m.eng.GatherRows(saved.qkv, qkv, in.place)
	return stream{x, m.selfAttend(ws, w, &saved, in.segments, w.bias)}, saved
}

// encoderBackward adds a pass's share to the sums in in.prompt, at the given rows (see
// gradientRows), for the gradient dout [n, d_model] of the encoder's output.
//
// Of the first layer's input only the prompt rows need a gradient. They are the same in every
// example, and so are their norms and projections. The gradients of these are linear in those of
// their results, which are therefore summed over a micro-batch's examples; promptGradients
// continues from the sums.
func (m *Model) encoderBackward(in *encoderInput, rows engine.Index, dout engine.Tensor) {
	dx := m.grads.Tensor(engine.Wide, dout.Rows(), dout.Cols())
	m.eng.Zero(dx)
	m.eng.NormBackward(dx, dout, in.final.x, in.final.r, m.encoderNorm)
	for i := len(m.encoder) - 1; i >= 0; i-- {
		layer, saved := &m.encoder[i], &m.savedEncoder[i]
		m.feedForwardBackward(&layer.ff, &saved.ff, dx)
		if i == 0 && !m.opt.NoFirstLayer {
			m.tmp.Reset()
			dqkv := m.selfAttentionProjections(&layer.self, &saved.self, dx, in.segments, layer.self.bias)
			m.eng.EmbedBackward(in.prompt.dqkv, dqkv, rows)
			break
		}
		m.selfAttentionBackward(&layer.self, &saved.self, dx, in.segments, layer.self.bias)
	}
	m.eng.EmbedBackward(in.prompt.dx, dx, rows)
}

// promptGradients returns dP [microBatches·c, d_model] once all passes have added their shares.
func (m *Model) promptGradients(in *promptInput) engine.Tensor {
	if m.opt.NoFirstLayer {
		return in.dx
	}
	m.tmp.Reset()
	w := &m.encoder[0].self
	_, saved := m.norm(m.tmp, stream{x: in.x}, w.norm)
	dy := m.linearBackward(engine.Wide, in.dqkv, w.qkv)
	for start := 0; start < dy.Rows(); start += in.rows {
		dx := m.tmp.View(in.dx, start, in.rows, 0, in.dx.Cols())
		m.eng.NormBackward(dx, m.tmp.View(dy, start, in.rows, 0, dy.Cols()), saved.x, saved.r, w.norm)
	}
	return in.dx
}
