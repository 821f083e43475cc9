package t5

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// hostBuffers are slices that calls fill and hand to the engine, kept for the next call.
type hostBuffers struct {
	ids, targets []int32
	q, kv        []engine.Span
	offset       []int
	losses       []float64
	grad         []float64
}

// encoderInput is a ragged batch of sources behind a prompt.
type encoderInput struct {
	prompt   engine.Tensor // [c, d_model]; nil without a prompt
	ids      engine.Index  // [n]: token ids, and ^i for prompt row i
	segments engine.Segments
	final    normSaved
}

// decoderInput is a ragged batch of targets, shifted right.
type decoderInput struct {
	ids     engine.Index // [nt]
	targets engine.Index // [nt]
	self    engine.Segments
	cross   engine.Segments
	final   normSaved
}

// Check reports the first mistake in a call's arguments: an empty source or target, an id outside the vocabulary, a prompt that is no c×d_model.
func (m *Model) Check(prompt []float32, pairs []Pair) error {
	if err := m.checkPrompt(prompt); err != nil {
		return err
	}
	for i, p := range pairs {
		if err := m.checkIDs("source", p.Source); err != nil {
			return fmt.Errorf("pair %d: %w", i, err)
		}
		if err := m.checkIDs("target", p.Target); err != nil {
			return fmt.Errorf("pair %d: %w", i, err)
		}
	}
	return nil
}

// CheckSources is Check for Generate.
func (m *Model) CheckSources(prompt []float32, sources [][]int32) error {
	if err := m.checkPrompt(prompt); err != nil {
		return err
	}
	for i, s := range sources {
		if err := m.checkIDs("source", s); err != nil {
			return fmt.Errorf("source %d: %w", i, err)
		}
	}
	return nil
}

func (m *Model) checkPrompt(prompt []float32) error {
	if len(prompt)%m.cfg.DModel != 0 {
		return fmt.Errorf("prompt has %d numbers, want a multiple of d_model %d", len(prompt), m.cfg.DModel)
	}
	return nil
}

func (m *Model) checkIDs(what string, ids []int32) error {
	if len(ids) == 0 {
		return fmt.Errorf("%s is empty, want at least one token", what)
	}
	for i, id := range ids {
		if id < 0 || int(id) >= m.cfg.VocabSize {
			return fmt.Errorf("%s token %d is id %d, want one in [0, %d), the model's vocabulary", what, i, id, m.cfg.VocabSize)
		}
	}
	return nil
}

// begin forgets the previous call.
func (m *Model) begin() {
	for _, ws := range []engine.Workspace{m.batch, m.layers[0], m.layers[1], m.tmp, m.pending, m.grads, m.cache} {
		ws.Reset()
	}
}

// encoderInput lays out n sources behind the prompt. source(i) is the i-th.
func (m *Model) encoderInput(prompt []float32, n int, source func(i int) []int32) encoderInput {
	c := len(prompt) / m.cfg.DModel
	var in encoderInput
	if c > 0 {
		in.prompt = m.batch.Tensor(engine.Wide, c, m.cfg.DModel)
		m.eng.Upload(in.prompt, prompt)
	}
	h := &m.host
	h.ids, h.q = h.ids[:0], h.q[:0]
	for i := range n {
		start := len(h.ids)
		for r := range c {
			h.ids = append(h.ids, ^int32(r))
		}
		h.ids = append(h.ids, source(i)...)
		h.q = append(h.q, engine.Span{Start: start, Len: len(h.ids) - start})
	}
	in.ids = m.batch.Index(h.ids)
	in.segments = m.batch.Segments(engine.SegmentSpec{Q: h.q, KV: h.q})
	return in
}

// decoderInput lays out targets after encoderInput has laid out the same pairs' sources, whose spans are still in m.host.q.
func (m *Model) decoderInput(pairs []Pair) decoderInput {
	h := &m.host
	h.ids, h.targets, h.kv = h.ids[:0], h.targets[:0], h.kv[:0]
	for _, p := range pairs {
		h.kv = append(h.kv, engine.Span{Start: len(h.ids), Len: len(p.Target)})
		h.ids = append(h.ids, m.cfg.DecoderStartToken)
		h.ids = append(h.ids, p.Target[:len(p.Target)-1]...)
		h.targets = append(h.targets, p.Target...)
	}
	return decoderInput{
		ids:     m.batch.Index(h.ids),
		targets: m.batch.Index(h.targets),
		self:    m.batch.Segments(engine.SegmentSpec{Q: h.kv, KV: h.kv, Causal: true}),
		cross:   m.batch.Segments(engine.SegmentSpec{Q: h.kv, KV: h.q}),
	}
}
