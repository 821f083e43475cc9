package meter

import (
	"time"

	"github.com/dptune/dpt/model/engine"
)

// The ops of engine.Trainer, each timed. They panic if the other engine is no Trainer.

var _ engine.Trainer = (*Engine)(nil)

func (m *Engine) trainer() engine.Trainer { return m.Engine.(engine.Trainer) }

func (m *Engine) LinearWeightGradient(dw, dy, x engine.Tensor) {
	began := time.Now()
	m.trainer().LinearWeightGradient(dw, dy, x)
	m.note(Linear, 2*float64(dy.Rows())*float64(dw.Rows())*float64(dw.Cols()), began)
}

func (m *Engine) NormGainGradient(dg, dy, x, r engine.Tensor) {
	began := time.Now()
	m.trainer().NormGainGradient(dg, dy, x, r)
	m.note(Other, 0, began)
}

func (m *Engine) AttentionBiasGradient(
	dbias, dout, out, lse, q, k, v engine.Tensor,
	seg engine.Segments,
	bias engine.Bias,
	heads int,
) {
	began := time.Now()
	m.trainer().AttentionBiasGradient(dbias, dout, out, lse, q, k, v, seg, bias, heads)
	m.note(Attention, 2*2*m.work[seg]*float64(q.Cols()), began) // scores and their gradients
}

func (m *Engine) SetLinear(w engine.Linear, weights ...[]float32) error {
	return m.trainer().SetLinear(w, weights...)
}

func (m *Engine) SetTable(t engine.Table, w []float32) error { return m.trainer().SetTable(t, w) }

func (m *Engine) SetGain(g engine.Gain, w []float32) error { return m.trainer().SetGain(g, w) }

func (m *Engine) SetBias(b engine.Bias, values []float32) error {
	return m.trainer().SetBias(b, values)
}

func (m *Engine) DownloadFloat32(dst []float32, src engine.Tensor) error {
	began := time.Now()
	err := m.trainer().DownloadFloat32(dst, src)
	m.note(Other, 0, began)
	return err
}
