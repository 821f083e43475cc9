package t5

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// hostBuffers are slices that calls fill and hand to the engine, kept for the next call.
type hostBuffers struct {
	pairs        []Pair // the call's pairs in the order in which they are computed,
	order        []int  // and where each stood in the call
	microBatch   []int  // of the call's pairs, in the call's order
	one          [1]int // LossGrad's sizes
	ids, targets []int32
	q, kv        []engine.Span
	perHead      []engine.Span
	offset       []int
	distinct     []int32
	slot         []int32 // per id of the vocabulary, its place in distinct, or -1
	losses       []float64
	grad         []float64
}

// promptInput is a call's prompt and the sums from which its gradients, one for each micro-batch,
// are computed.
type promptInput struct {
	rows         int           // c
	x            engine.Tensor // [c, d_model]; nil without a prompt
	microBatches int           // 0 without gradients
	// dx [microBatches·c, d_model] and dqkv [microBatches·c, 3·inner] sum over each
	// micro-batch's examples the gradients of the prompt rows on the residual stream and behind the
	// first layer's projections. Examples are added one after the other, from pass to pass, in an
	// order that does not depend on other micro-batches. So the bits depend neither on these nor on
	// where passes begin.
	dx, dqkv engine.Tensor
}

// encoderInput is a ragged batch of sources behind a prompt.
type encoderInput struct {
	prompt   *promptInput
	ids      engine.Index // [n]: token ids, and ^i for prompt row i
	distinct engine.Index // [u]: the ids that occur, the prompt's first
	place    engine.Index // [n]: the index in distinct of a row's id
	segments engine.Segments
	final    normSaved
}

// decoderInput is a ragged batch of targets, shifted right.
type decoderInput struct {
	ids     engine.Index // [nt]
	targets engine.Index // [nt]
	self    engine.Segments
	cross   crossInput
	final   normSaved
	padding int // rows that Options.PadTargets adds
}

// crossInput is what the decoder's rows attend to. The first absorbed of them see rows of memory by
// absorption (see crossAttentionForward), the others rows of rest by keys and values. A part
// without rows is nil.
type crossInput struct {
	absorbed       int
	memory, rest   engine.Tensor
	memorySegments engine.Segments // of absorbed·heads query rows
	restSegments   engine.Segments
}

// Check returns an error about the first mistake in a call's arguments: an empty source or target,
// an id outside the vocabulary, a prompt that is no c×d_model.
func (m *Model) Check(prompt []float32, pairs []Pair) error { return m.check(prompt, pairs, false) }

// checkEvaluate is Check for Evaluate, where a target may be empty.
func (m *Model) checkEvaluate(prompt []float32, pairs []Pair) error {
	return m.check(prompt, pairs, true)
}

func (m *Model) check(prompt []float32, pairs []Pair, noTarget bool) error {
	if err := m.checkPrompt(prompt); err != nil {
		return err
	}
	for i, p := range pairs {
		if err := m.checkIDs("source", p.Source); err != nil {
			return fmt.Errorf("pair %d: %w", i, err)
		}
		if noTarget && len(p.Target) == 0 {
			continue
		}
		if err := m.checkIDs("target", p.Target); err != nil {
			return fmt.Errorf("pair %d: %w", i, err)
		}
	}
	return nil
}

// checkSources is Check for Generate.
func (m *Model) checkSources(prompt []float32, sources [][]int32) error {
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
			return fmt.Errorf("%s token %d is id %d, want one in [0, %d), the model's vocabulary",
				what, i, id, m.cfg.VocabSize)
		}
	}
	return nil
}

// begin forgets the previous pass.
func (m *Model) begin() {
	for _, ws := range []engine.Workspace{m.batch, m.layers[0], m.layers[1], m.tmp, m.pending, m.grads, m.cache} {
		ws.Reset()
	}
}

// prompt forgets the previous call and uploads the prompt. There is room for as many gradients as
// there are micro-batches.
func (m *Model) prompt(prompt []float32, microBatches int) *promptInput {
	m.call.Reset()
	d := m.cfg.DModel
	m.promptIn = promptInput{rows: len(prompt) / d, microBatches: microBatches}
	in := &m.promptIn
	if in.rows == 0 {
		return in
	}
	in.x = m.call.Tensor(engine.Wide, in.rows, d)
	m.eng.Upload(in.x, prompt)
	if microBatches > 0 {
		rows := microBatches * in.rows
		in.dx, in.dqkv = m.call.Tensor(engine.Wide, rows, d), m.call.Tensor(engine.Wide, rows, 3*m.cfg.inner())
		m.eng.Zero(in.dx)
		m.eng.Zero(in.dqkv)
	}
	return in
}

// arrange puts pairs into the order in which they are computed: first those whose cross-attention
// is absorbed, then the others, last those without a target.
func (m *Model) arrange(c int, pairs []Pair) {
	h := &m.host
	h.pairs, h.order = h.pairs[:0], h.order[:0]
	for group := range 3 {
		for i, p := range pairs {
			g := 2
			if len(p.Target) > 0 {
				g = 1
				if m.absorbs(c+len(p.Source), len(p.Target)) {
					g = 0
				}
			}
			if g == group {
				h.pairs, h.order = append(h.pairs, p), append(h.order, i)
			}
		}
	}
}

// encoderInput lays out n sources behind the prompt. source(i) is the i-th. It sets m.host.q to
// their spans.
func (m *Model) encoderInput(prompt *promptInput, n int, source func(i int) []int32) encoderInput {
	in := encoderInput{prompt: prompt}
	h := &m.host
	h.ids, h.q = h.ids[:0], h.q[:0]
	for i := range n {
		start := len(h.ids)
		for r := range prompt.rows {
			h.ids = append(h.ids, ^int32(r))
		}
		h.ids = append(h.ids, source(i)...)
		h.q = append(h.q, engine.Span{Start: start, Len: len(h.ids) - start})
	}
	in.ids = m.batch.Index(h.ids)
	in.segments = m.batch.Segments(engine.SegmentSpec{Q: h.q, KV: h.q})
	if !m.opt.NoFirstLayer {
		in.distinct, in.place = m.distinct(h.ids, prompt.rows)
	}
	return in
}

// gradientRows tells for each row of the encoder's input, of the arranged pairs lo to hi, where the
// row's gradient goes: ^i if it is added to row i of the prompt's gradients.
func (m *Model) gradientRows(in *encoderInput, lo, hi int) engine.Index {
	if in.prompt.microBatches == 1 {
		return in.ids
	}
	h := &m.host
	h.ids = h.ids[:0]
	for i := lo; i < hi; i++ {
		start := h.microBatch[h.order[i]] * in.prompt.rows
		for r := range in.prompt.rows {
			h.ids = append(h.ids, ^int32(start+r))
		}
		h.ids = append(h.ids, h.pairs[i].Source...)
	}
	return m.batch.Index(h.ids)
}

// distinct returns the distinct ids, the c prompt rows first, and the index of each id among them.
func (m *Model) distinct(ids []int32, c int) (distinct, place engine.Index) {
	h := &m.host
	for len(h.slot) < m.cfg.VocabSize {
		h.slot = append(h.slot, -1)
	}
	h.distinct, h.targets = h.distinct[:0], h.targets[:0]
	for r := range c {
		h.distinct = append(h.distinct, ^int32(r))
	}
	for _, id := range ids {
		if id < 0 {
			h.targets = append(h.targets, ^id)
			continue
		}
		if h.slot[id] < 0 {
			h.slot[id] = int32(len(h.distinct))
			h.distinct = append(h.distinct, id)
		}
		h.targets = append(h.targets, h.slot[id])
	}
	for _, id := range h.distinct[c:] {
		h.slot[id] = -1
	}
	return m.batch.Index(h.distinct), m.batch.Index(h.targets)
}

// decoderInput lays out the targets of arranged pairs, whose sources encoderInput has laid out. enc
// is the encoder's output for them.
func (m *Model) decoderInput(pairs []Pair, enc engine.Tensor) decoderInput {
	h := &m.host
	h.ids, h.targets, h.kv = h.ids[:0], h.targets[:0], h.kv[:0]
	absorbed, longest := 0, 0
	for i, p := range pairs {
		longest = max(longest, len(p.Target))
		h.kv = append(h.kv, engine.Span{Start: len(h.ids), Len: len(p.Target)})
		h.ids = append(h.ids, m.cfg.DecoderStartToken)
		h.ids = append(h.ids, p.Target[:len(p.Target)-1]...)
		h.targets = append(h.targets, p.Target...)
		if m.absorbs(h.q[i].Len, len(p.Target)) {
			absorbed = i + 1
		}
	}
	padding := 0
	if m.opt.PadTargets {
		padding = longest*len(pairs) - len(h.ids)
	}
	return decoderInput{
		padding: padding,
		ids:     m.batch.Index(h.ids),
		targets: m.batch.Index(h.targets),
		self:    m.batch.Segments(engine.SegmentSpec{Q: h.kv, KV: h.kv, Causal: true}),
		cross:   m.crossInput(enc, h.kv, h.q[:len(pairs)], absorbed),
	}
}

// crossInput lets the decoder rows targets[i] attend to the rows sources[i] of enc, the first
// absorbed examples by absorption. It changes sources.
func (m *Model) crossInput(enc engine.Tensor, targets, sources []engine.Span, absorbed int) crossInput {
	var in crossInput
	h := &m.host
	d, heads := m.cfg.DModel, m.cfg.NumHeads
	rows := 0 // of enc, that belong to absorbed examples
	if absorbed > 0 {
		h.perHead = h.perHead[:0]
		for i, t := range targets[:absorbed] {
			h.perHead = append(h.perHead, engine.Span{Start: t.Start * heads, Len: t.Len * heads})
			rows = max(rows, sources[i].Start+sources[i].Len)
			in.absorbed = t.Start + t.Len
		}
		in.memory = m.batch.View(enc, 0, rows, 0, d)
		in.memorySegments = m.batch.Segments(engine.SegmentSpec{Q: h.perHead, KV: sources[:absorbed]})
	}
	if absorbed < len(targets) {
		targets, sources = targets[absorbed:], sources[absorbed:]
		end := 0
		h.perHead = h.perHead[:0]
		for i := range targets {
			h.perHead = append(h.perHead, engine.Span{Start: targets[i].Start - in.absorbed, Len: targets[i].Len})
			end = max(end, sources[i].Start+sources[i].Len)
			sources[i].Start -= rows
		}
		// While decoding, enc is already projected: wider or narrower than d_model.
		in.rest = m.batch.View(enc, rows, end-rows, 0, enc.Cols())
		in.restSegments = m.batch.Segments(engine.SegmentSpec{Q: h.perHead, KV: sources})
	}
	return in
}
