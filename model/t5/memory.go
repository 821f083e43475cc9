package t5

// PairElems estimates how many numbers a pair behind c prompt rows keeps in memory during LossGrad (train) or
// Score, so that a caller can bound its batches.
func (m *Model) PairElems(c int, p Pair, train bool) int {
	cfg := m.cfg
	source, target := c+len(p.Source), len(p.Target)
	hidden := cfg.hidden()
	encoder := cfg.NumLayers * (2*cfg.DModel + 4*cfg.Inner() + hidden)
	decoder := cfg.NumDecoderLayers * (3*cfg.DModel + 6*cfg.Inner() + hidden)
	cross := cfg.NumDecoderLayers * 2 * cfg.Inner() // keys and values of the encoder's rows
	if !train {
		encoder = 2 * encoder / cfg.NumLayers // two layers at a time
		decoder = 2 * decoder / cfg.NumDecoderLayers
		cross = 2 * cross / cfg.NumDecoderLayers
	}
	return source*(encoder+cross+m.scratchElems()) + target*(decoder+m.scratchElems()+cfg.VocabSize)
}

// SourceElems is PairElems for a source in Generate with maxNew new tokens.
func (m *Model) SourceElems(c int, source []int32, maxNew int) int {
	cfg := m.cfg
	rows := c + len(source)
	encoder := 2 * (2*cfg.DModel + 4*cfg.Inner() + cfg.hidden())
	caches := (rows + maxNew) * cfg.NumDecoderLayers * 2 * cfg.Inner()
	return rows*(encoder+m.scratchElems()) + caches + cfg.VocabSize
}

// scratchElems is what a row needs beside what its layers save: residual stream, gradients and the current sublayer.
func (m *Model) scratchElems() int {
	return 6*m.cfg.DModel + 2*max(m.cfg.hidden(), 3*m.cfg.Inner())
}

// hidden is the width of the feed-forward layer's input projection.
func (c Config) hidden() int {
	if c.GatedGELU {
		return 2 * c.DFF
	}
	return c.DFF
}
