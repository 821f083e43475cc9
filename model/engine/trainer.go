package engine

import "fmt"

// Trainer is an Engine whose weights can be trained: it also computes gradients with respect to
// weights, and takes new values for weights that it holds. Ops that sum over rows do it in the
// order of rows, segment after segment, whatever the number of threads. Gradients of weights are
// Wide tensors, to which ops add. The gradient of an embedding table is EmbedBackward's of
// complemented ids.
type Trainer interface {
	Engine

	// LinearWeightGradient: dw [out,in] += dyᵀ·x for dy [n,out] and x [n,in], the gradient and
	// the input of LinearForward with a weight [out,in].
	LinearWeightGradient(dw, dy, x Tensor)
	// NormGainGradient: dg [1,e] += Σ over rows of dy∘x·r, for NormForward's x [n,e] and r
	// [n,1] and the gradient dy [n,e] of its result.
	NormGainGradient(dg, dy, x, r Tensor)
	// AttentionBiasGradient: dbias [heads, hi-lo+1] += the gradient of bias, whose distances are lo
	// to hi, for the operands of AttentionBackward.
	AttentionBiasGradient(dbias, dout, out, lse, q, k, v Tensor, seg Segments, bias Bias, heads int)

	// SetLinear replaces the values of a weight by as many, stacked as in LinearSpec. A table that
	// shares the weight's memory (TableLinear) may change with it or not: set both.
	SetLinear(w Linear, weights ...[]float32) error
	SetTable(t Table, w []float32) error
	SetGain(g Gain, w []float32) error
	SetBias(b Bias, values []float32) error

	// DownloadFloat32 is Download to float32.
	DownloadFloat32(dst []float32, src Tensor) error
}

// CheckLinear checks that weights have the sizes that Trainer.SetLinear wants for w.
func CheckLinear(w Linear, weights [][]float32) error {
	size := 0
	for i, v := range weights {
		if len(v)%w.In() != 0 {
			return fmt.Errorf("linear: new weight %d has %d elements, want a multiple of the input size %d",
				i, len(v), w.In())
		}
		size += len(v)
	}
	if size != w.Out()*w.In() {
		return fmt.Errorf("linear: %d new values, want %d×%d", size, w.Out(), w.In())
	}
	return nil
}
