package t5

import (
	"math"

	"github.com/dptune/dpt/model/engine"
)

type decoderSaved struct {
	self  attentionSaved
	cross crossSaved
	ff    feedForwardSaved
}

// decoderForward runs the decoder over whole targets (teacher forcing) and returns the logits [nt,
// vocab] at all target positions. With train set it saves the operands of decoderBackward.
func (m *Model) decoderForward(in *decoderInput, train bool) engine.Tensor {
	x := m.batch.Tensor(engine.Wide, in.ids.Len(), m.cfg.DModel)
	m.eng.EmbedForward(x, m.embed, nil, in.ids)
	s := stream{x: x}
	for i := range m.decoder {
		layer, saved := &m.decoder[i], &m.savedDecoder[i]
		ws := m.layerSpace(i, train)
		s, saved.self = m.selfAttentionForward(ws, &layer.self, s, in.self, layer.self.bias)
		s, saved.cross = m.crossAttentionForward(ws, &layer.cross, s, &in.cross, nil)
		s, saved.ff = m.feedForwardForward(ws, &layer.ff, s)
	}
	logits, final := m.logits(s, in.padding, train)
	in.final = final
	return logits
}

// logits normalizes the decoder's stream and projects it to the vocabulary: [n, vocab] in m.batch.
// padding extra rows are projected too and ignored (for measurement only).
func (m *Model) logits(s stream, padding int, train bool) (engine.Tensor, normSaved) {
	m.tmp.Reset()
	n := s.x.Rows()
	y := m.tmp.Tensor(engine.Narrow, n+padding, m.cfg.DModel)
	if padding > 0 {
		m.eng.Zero(y)
	}
	saved := m.finalNorm(m.rows(y, 0, n), s, m.decoderNorm, train, len(m.decoder))
	if m.cfg.ScaleOutput {
		m.eng.Scale(y, m.outputScale())
	}
	logits := m.linear(m.batch, engine.Wide, y, m.head)
	if padding > 0 {
		logits = m.batch.View(logits, 0, n, 0, logits.Cols())
	}
	return logits, saved
}

func (m *Model) outputScale() float64 { return 1 / math.Sqrt(float64(m.cfg.DModel)) }

// decoderBackward returns the gradient [ne, d_model] of the encoder's output for the gradient
// dlogits [nt, vocab].
func (m *Model) decoderBackward(in *decoderInput, enc, dlogits engine.Tensor) engine.Tensor {
	m.tmp.Reset()
	denc := m.grads.Tensor(engine.Wide, enc.Rows(), enc.Cols())
	m.eng.Zero(denc)
	dx := m.grads.Tensor(engine.Wide, dlogits.Rows(), m.cfg.DModel)
	m.eng.Zero(dx)
	if in.padding > 0 {
		padded := m.tmp.Tensor(engine.Wide, in.padding, dlogits.Cols())
		m.eng.Zero(padded)
		m.linearBackward(engine.Wide, padded, m.head)
	}
	dy := m.linearBackward(engine.Wide, dlogits, m.head)
	if m.cfg.ScaleOutput {
		m.eng.Scale(dy, m.outputScale())
	}
	m.eng.NormBackward(dx, dy, in.final.x, in.final.r, m.decoderNorm)
	for i := len(m.decoder) - 1; i >= 0; i-- {
		layer, saved := &m.decoder[i], &m.savedDecoder[i]
		m.feedForwardBackward(&layer.ff, &saved.ff, dx)
		m.crossAttentionBackward(&layer.cross, &saved.cross, dx, denc, &in.cross, i > 0)
		if i > 0 {
			m.selfAttentionBackward(&layer.self, &saved.self, dx, in.self, layer.self.bias)
		}
	}
	return denc
}
