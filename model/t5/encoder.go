package t5

import "github.com/dptune/dpt/model/engine"

type encoderSaved struct {
	self attentionSaved
	ff   feedForwardSaved
}

// encoderForward runs the encoder on in and returns its output [n, d_model], which lives in m.batch. When train is set it saves
// what encoderBackward needs.
func (m *Model) encoderForward(in *encoderInput, train bool) engine.Tensor {
	x := m.batch.Tensor(engine.Wide, in.ids.Len(), m.cfg.DModel)
	m.eng.EmbedForward(x, m.embed, in.prompt, in.ids)
	s := stream{x: x}
	for i := range m.encoder {
		layer, saved := &m.encoder[i], &m.savedEncoder[i]
		ws := m.layerSpace(i, train)
		s, saved.self = m.selfAttentionForward(ws, &layer.self, s, in.segments, m.encoderBias)
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

// encoderBackward returns dP [c, d_model] for the gradient dout [n, d_model] of the encoder's output.
func (m *Model) encoderBackward(in *encoderInput, dout engine.Tensor) engine.Tensor {
	dx := m.grads.Tensor(engine.Wide, dout.Rows(), dout.Cols())
	m.eng.Zero(dx)
	m.eng.NormBackward(dx, dout, in.final.x, in.final.r, m.encoderNorm)
	for i := len(m.encoder) - 1; i >= 0; i-- {
		layer, saved := &m.encoder[i], &m.savedEncoder[i]
		m.feedForwardBackward(&layer.ff, &saved.ff, dx)
		if i == 0 {
			return m.promptBackward(in, &layer.self, &saved.self, dx)
		}
		m.selfAttentionBackward(&layer.self, &saved.self, dx, in.segments, m.encoderBias)
	}
	panic("t5: an encoder has at least one layer")
}

// promptBackward is the first layer's self-attention backward, for the prompt rows alone. A prompt row is the same in every example, and so
// are its norm and projections; their gradients are linear in those of the outputs, which are therefore summed over the examples first.
func (m *Model) promptBackward(in *encoderInput, w *selfAttention, s *attentionSaved, dx engine.Tensor) engine.Tensor {
	m.tmp.Reset()
	c := in.prompt.Rows()
	dprompt := m.grads.Tensor(engine.Wide, c, m.cfg.DModel)
	m.eng.Zero(dprompt)
	m.eng.EmbedBackward(dprompt, dx, in.ids)

	dqkv := m.tmp.Tensor(engine.Narrow, c, s.qkv.Cols())
	m.eng.Zero(dqkv)
	m.eng.EmbedBackward(dqkv, m.selfAttentionProjections(w, s, dx, in.segments, m.encoderBias), in.ids)
	dy := m.linearBackward(engine.Wide, dqkv, w.qkv)
	// The first example's first rows are the prompt.
	x, r := m.tmp.View(s.norm.x, 0, c, 0, m.cfg.DModel), m.tmp.View(s.norm.r, 0, c, 0, 1)
	m.eng.NormBackward(dprompt, dy, x, r, w.norm)
	return dprompt
}
