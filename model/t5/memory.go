package t5

import "math"

// pairElems estimates how many numbers a pair behind c prompt rows keeps in memory during LossGrad
// (train) or Score, so that passes can be bounded.
func (m *Model) pairElems(c int, p Pair, train bool) int {
	cfg := m.cfg
	source, target := c+len(p.Source), len(p.Target)
	perTarget, perSource := 2*cfg.inner(), 2*cfg.inner() // cross-attention, of one layer
	if m.absorbs(source, max(target, 1)) {
		perTarget, perSource = perTarget+cfg.NumHeads*(2*cfg.DModel+1), 0
	}
	encoder := 2*cfg.DModel + 4*cfg.inner() + cfg.NumHeads + 2 + cfg.savedHidden()
	decoder := 3*cfg.DModel + 4*cfg.inner() + 2*cfg.NumHeads + 3 + cfg.savedHidden() + perTarget
	encoderLayers, decoderLayers := cfg.NumLayers, cfg.NumDecoderLayers
	if !train {
		encoderLayers, decoderLayers = 2, 2 // at a time
	}
	return source*(encoderLayers*encoder+decoderLayers*perSource+perSource+m.scratchElems()) +
		target*(decoderLayers*decoder+perTarget+m.scratchElems()+cfg.VocabSize)
}

// microBatchesAtOnce is how many micro-batches behind c prompt rows have their gradients summed at
// the same time: the sums take at most a quarter of Options.MaxElems, beside it, unless one alone
// takes more.
func (m *Model) microBatchesAtOnce(c int) int {
	if m.opt.MaxElems == 0 || c == 0 {
		return math.MaxInt
	}
	return max(1, m.opt.MaxElems/4/(c*(m.cfg.DModel+3*m.cfg.inner())))
}

// sourceElems is pairElems for a source in Generate with maxNew new tokens.
func (m *Model) sourceElems(c, source, maxNew int) int {
	cfg := m.cfg
	rows := c + source
	encoder := 2 * (2*cfg.DModel + 4*cfg.inner() + cfg.NumHeads + 2 + cfg.savedHidden())
	caches := maxNew * cfg.NumDecoderLayers * 2 * cfg.inner()
	if maxNew > m.absorbSteps() {
		caches += rows * cfg.NumDecoderLayers * 2 * cfg.inner()
	}
	return rows*(encoder+m.scratchElems()) + caches + cfg.VocabSize + m.scratchElems() + 4*cfg.NumHeads*cfg.DModel
}

// scratchElems is the memory of a row beside the numbers that its layers save: the embeddings, the
// stack's output and its norm's input, a sublayer's pending output, two gradients, and the current
// sublayer's operands.
func (m *Model) scratchElems() int {
	act := m.cfg.DFF // of the feed-forward layer in backward
	if m.cfg.gated() {
		act *= 3
	}
	return 7*m.cfg.DModel + max(act, 2*m.cfg.DModel+4*m.cfg.inner())
}

// savedHidden is the memory that a row of the feed-forward layer keeps of its activation: with ReLU
// a bit for each input.
func (c Config) savedHidden() int {
	if c.gated() {
		return 2 * c.DFF
	}
	return (c.DFF + 31) / 32
}
