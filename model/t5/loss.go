package t5

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// LossGrad computes each pair's loss, the sum of its target tokens' cross-entropies, into losses [len(pairs)], and
// adds the gradient of their sum with respect to prompt, c×d_model row-major, to grad of the same size. The whole
// batch is in memory at once.
func (m *Model) LossGrad(prompt []float32, pairs []Pair, losses, grad []float64) error {
	if len(grad) != len(prompt) {
		return fmt.Errorf("gradient has room for %d numbers, want the prompt's %d", len(grad), len(prompt))
	}
	return m.loss(prompt, pairs, losses, grad, len(prompt) > 0)
}

// Score is LossGrad without the gradient.
func (m *Model) Score(prompt []float32, pairs []Pair, losses []float64) error {
	return m.loss(prompt, pairs, losses, nil, false)
}

func (m *Model) loss(prompt []float32, pairs []Pair, losses, grad []float64, train bool) error {
	if len(losses) != len(pairs) {
		return fmt.Errorf("room for %d losses, want one for each of %d pairs", len(losses), len(pairs))
	}
	if err := m.Check(prompt, pairs); err != nil {
		return err
	}
	if len(pairs) == 0 {
		return nil
	}
	m.begin()
	source, target, enc, logits := m.forward(prompt, pairs, train)
	n := logits.Rows()
	loss, logNorm := m.batch.Tensor(engine.Wide, n, 1), m.batch.Tensor(engine.Wide, n, 1)
	m.eng.CrossEntropyForward(loss, logNorm, logits, target.targets)
	var dprompt engine.Tensor
	if train {
		m.eng.CrossEntropyBackward(logits, logits, logNorm, target.targets)
		denc := m.decoderBackward(&target, enc, logits)
		dprompt = m.encoderBackward(&source, denc)
	}
	if err := m.downloadLosses(loss, pairs, losses); err != nil {
		return err
	}
	if !train {
		return nil
	}
	m.host.grad = sized(m.host.grad, len(grad))
	if err := m.eng.Download(m.host.grad, dprompt); err != nil {
		return fmt.Errorf("gradient: %w", err)
	}
	for i, g := range m.host.grad {
		grad[i] += g
	}
	return nil
}

// forward runs encoder and decoder; enc is the encoder's output, logits [Σ target lengths, vocab].
func (m *Model) forward(prompt []float32, pairs []Pair, train bool) (source encoderInput, target decoderInput, enc, logits engine.Tensor) {
	source = m.encoderInput(prompt, len(pairs), func(i int) []int32 { return pairs[i].Source })
	target = m.decoderInput(pairs)
	enc = m.encoderForward(&source, train)
	logits = m.decoderForward(&target, enc, train)
	return source, target, enc, logits
}

// downloadLosses sums the token losses of each pair.
func (m *Model) downloadLosses(loss engine.Tensor, pairs []Pair, losses []float64) error {
	m.host.losses = sized(m.host.losses, loss.Rows())
	if err := m.eng.Download(m.host.losses, loss); err != nil {
		return fmt.Errorf("losses: %w", err)
	}
	rest := m.host.losses
	for i, p := range pairs {
		losses[i] = 0
		for _, l := range rest[:len(p.Target)] {
			losses[i] += l
		}
		rest = rest[len(p.Target):]
	}
	return nil
}

// Logits returns each pair's logits, [target length × vocab] row-major, given its target as the decoder's input.
func (m *Model) Logits(prompt []float32, pairs []Pair) ([][]float32, error) {
	if err := m.Check(prompt, pairs); err != nil || len(pairs) == 0 {
		return nil, err
	}
	m.begin()
	_, _, _, logits := m.forward(prompt, pairs, false)
	lens := make([]int, len(pairs))
	for i, p := range pairs {
		lens[i] = len(p.Target)
	}
	return m.split(logits, lens)
}

// Encode returns the encoder's output for each source, [(c + source length) × d_model] row-major, prompt rows first.
func (m *Model) Encode(prompt []float32, sources [][]int32) ([][]float32, error) {
	if err := m.CheckSources(prompt, sources); err != nil || len(sources) == 0 {
		return nil, err
	}
	m.begin()
	in := m.encoderInput(prompt, len(sources), func(i int) []int32 { return sources[i] })
	enc := m.encoderForward(&in, false)
	lens := make([]int, len(sources))
	for i, s := range sources {
		lens[i] = len(prompt)/m.cfg.DModel + len(s)
	}
	return m.split(enc, lens)
}

// split downloads t and cuts it into runs of the given numbers of rows.
func (m *Model) split(t engine.Tensor, rows []int) ([][]float32, error) {
	all := make([]float64, t.Rows()*t.Cols())
	if err := m.eng.Download(all, t); err != nil {
		return nil, err
	}
	out := make([][]float32, len(rows))
	for i, n := range rows {
		out[i] = make([]float32, n*t.Cols())
		for j := range out[i] {
			out[i][j] = float32(all[j])
		}
		all = all[len(out[i]):]
	}
	return out, nil
}

// sized returns s with n elements, contents undefined, grown if need be.
func sized(s []float64, n int) []float64 {
	if cap(s) < n {
		s = make([]float64, n)
	}
	return s[:n]
}
