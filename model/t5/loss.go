package t5

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// LossGrad computes each pair's loss, the sum of its target tokens' cross-entropies, into losses
// [len(pairs)], and adds the gradient of their sum with respect to prompt, c×d_model row-major, to
// grad of the same size.
func (m *Model) LossGrad(prompt []float32, pairs []Pair, losses, grad []float64) error {
	m.host.one[0] = len(pairs)
	return m.LossGrads(prompt, pairs, m.host.one[:], losses, grad)
}

// LossGrads is LossGrad for several micro-batches behind one prompt, in as few passes as
// Options.MaxElems allows. Micro-batch i has the next sizes[i] of the pairs, and its gradient is
// added to rows i·c to (i+1)·c of grad, [len(sizes)·c, d_model] row-major. The bits are those of
// LossGrad for each micro-batch alone.
func (m *Model) LossGrads(prompt []float32, pairs []Pair, sizes []int, losses, grad []float64) error {
	if len(grad) != len(sizes)*len(prompt) {
		return fmt.Errorf("gradients have room for %d numbers, want the prompt's %d for each of %d micro-batches",
			len(grad), len(prompt), len(sizes))
	}
	total := 0
	for i, size := range sizes {
		if size < 0 {
			return fmt.Errorf("micro-batch %d of %d pairs, want 0 or more", i, size)
		}
		total += size
	}
	if total != len(pairs) {
		return fmt.Errorf("micro-batches of %d pairs together, want one for each of %d", total, len(pairs))
	}
	if err := m.checkLoss(prompt, pairs, losses); err != nil {
		return err
	}
	for len(sizes) > 0 {
		microBatches, end := min(len(sizes), m.microBatchesAtOnce(len(prompt)/m.cfg.DModel)), 0
		m.host.microBatch = m.host.microBatch[:0]
		for i, size := range sizes[:microBatches] {
			for range size {
				m.host.microBatch = append(m.host.microBatch, i)
			}
			end += size
		}
		n := microBatches * len(prompt)
		if err := m.loss(prompt, pairs[:end], losses[:end], grad[:n], microBatches); err != nil {
			return err
		}
		sizes, pairs, losses, grad = sizes[microBatches:], pairs[end:], losses[end:], grad[n:]
	}
	return nil
}

// Score is LossGrad without the gradient.
func (m *Model) Score(prompt []float32, pairs []Pair, losses []float64) error {
	if err := m.checkLoss(prompt, pairs, losses); err != nil {
		return err
	}
	return m.loss(prompt, pairs, losses, nil, 0)
}

// checkLoss returns an error about the first mistake in the arguments of LossGrads or Score.
func (m *Model) checkLoss(prompt []float32, pairs []Pair, losses []float64) error {
	if len(losses) != len(pairs) {
		return fmt.Errorf("room for %d losses, want one for each of %d pairs", len(losses), len(pairs))
	}
	return m.Check(prompt, pairs)
}

// loss computes losses and, behind a prompt, adds the gradients of a number of micro-batches, whose
// pairs m.host.microBatch tells; with none it is Score.
func (m *Model) loss(prompt []float32, pairs []Pair, losses, grad []float64, microBatches int) error {
	if len(pairs) == 0 {
		return nil
	}
	train := microBatches > 0 && len(prompt) > 0
	in := m.prompt(prompt, microBatches)
	m.arrange(in.rows, pairs)
	for lo, hi := 0, 0; lo < len(pairs); lo = hi {
		hi = m.passEnd(lo, len(pairs), func(i int) int { return m.pairElems(in.rows, m.host.pairs[i], train) })
		if err := m.lossPass(in, lo, hi, losses, train); err != nil {
			return err
		}
	}
	if !train {
		return nil
	}
	m.part("encoder backward")
	m.host.grad = sized(m.host.grad, len(grad))
	if err := m.eng.Download(m.host.grad, m.promptGradients(in)); err != nil {
		return fmt.Errorf("gradient: %w", err)
	}
	for i, g := range m.host.grad {
		grad[i] += g
	}
	m.part("")
	return nil
}

// passEnd is the end of a pass that begins with item lo of n. Passes are as few as Options.MaxElems
// allows and, to take the least memory, of about equal size; each has at least one item.
func (m *Model) passEnd(lo, n int, size func(i int) int) int {
	limit := m.opt.MaxElems
	if limit == 0 {
		return n
	}
	all, passes, pass := 0, 1, 0
	for i := lo; i < n; i++ {
		s := size(i)
		if all += s; pass > 0 && pass+s > limit {
			passes, pass = passes+1, 0
		}
		pass += s
	}
	even := min(limit, (all+passes-1)/passes)
	hi, total := lo+1, size(lo)
	for ; hi < n; hi++ {
		s := size(hi)
		if 2*total+s > 2*even || total+s > limit {
			break
		}
		total += s
	}
	return hi
}

// lossPass computes the losses, and the share of the gradients, of the arranged pairs lo to hi.
func (m *Model) lossPass(prompt *promptInput, lo, hi int, losses []float64, train bool) error {
	m.begin()
	pairs := m.host.pairs[lo:hi]
	source, target, enc, logits := m.forward(prompt, pairs, train)
	m.part("loss")
	loss, logNorm := m.crossEntropy(logits, target.targets)
	if train {
		m.eng.CrossEntropyBackward(logits, logits, logNorm, target.targets)
		m.part("decoder backward")
		denc := m.decoderBackward(&target, enc, logits)
		m.part("encoder backward")
		m.encoderBackward(&source, m.gradientRows(&source, lo, hi), denc)
	}
	return m.downloadLosses(loss, pairs, m.host.order[lo:hi], losses)
}

func (m *Model) crossEntropy(logits engine.Tensor, targets engine.Index) (loss, logNorm engine.Tensor) {
	n := logits.Rows()
	loss, logNorm = m.batch.Tensor(engine.Wide, n, 1), m.batch.Tensor(engine.Wide, n, 1)
	m.eng.CrossEntropyForward(loss, logNorm, logits, targets)
	return loss, logNorm
}

// forward runs encoder and decoder on arranged pairs; enc is the encoder's output, logits [Σ
// target lengths, vocab].
func (m *Model) forward(
	prompt *promptInput,
	pairs []Pair,
	train bool,
) (source encoderInput, target decoderInput, enc, logits engine.Tensor) {
	m.part("encoder forward")
	source = m.encoderInput(prompt, len(pairs), func(i int) []int32 { return pairs[i].Source })
	enc = m.encoderForward(&source, train)
	m.part("decoder forward")
	target = m.decoderInput(pairs, enc)
	logits = m.decoderForward(&target, train)
	return source, target, enc, logits
}

// downloadLosses adds up the token losses of each pair, in losses at the pair's index in order.
func (m *Model) downloadLosses(loss engine.Tensor, pairs []Pair, order []int, losses []float64) error {
	m.host.losses = sized(m.host.losses, loss.Rows())
	if err := m.eng.Download(m.host.losses, loss); err != nil {
		return fmt.Errorf("losses: %w", err)
	}
	rest := m.host.losses
	for i, p := range pairs {
		var sum float64
		for _, l := range rest[:len(p.Target)] {
			sum += l
		}
		losses[order[i]] = sum
		rest = rest[len(p.Target):]
	}
	return nil
}

// Logits returns each pair's logits, [target length × vocab] row-major, given its target as the
// decoder's input.
func (m *Model) Logits(prompt []float32, pairs []Pair) ([][]float32, error) {
	if err := m.Check(prompt, pairs); err != nil || len(pairs) == 0 {
		return nil, err
	}
	in := m.prompt(prompt, 0)
	m.arrange(in.rows, pairs)
	out := make([][]float32, len(pairs))
	for lo, hi := 0, 0; lo < len(pairs); lo = hi {
		hi = m.passEnd(lo, len(pairs), func(i int) int { return m.pairElems(in.rows, m.host.pairs[i], false) })
		m.begin()
		run := m.host.pairs[lo:hi]
		_, _, _, logits := m.forward(in, run, false)
		lens := make([]int, len(run))
		for i, p := range run {
			lens[i] = len(p.Target)
		}
		parts, err := m.split(logits, lens)
		if err != nil {
			return nil, err
		}
		for i, l := range parts {
			out[m.host.order[lo+i]] = l
		}
	}
	m.part("")
	return out, nil
}

// Encode returns the encoder's output for each source, [(c + source length) × d_model] row-major,
// prompt rows first, in one pass.
func (m *Model) Encode(prompt []float32, sources [][]int32) ([][]float32, error) {
	if err := m.checkSources(prompt, sources); err != nil || len(sources) == 0 {
		return nil, err
	}
	m.begin()
	in := m.encoderInput(m.prompt(prompt, 0), len(sources), func(i int) []int32 { return sources[i] })
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
