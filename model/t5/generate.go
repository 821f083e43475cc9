package t5

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// Generate decodes greedily: for each source it appends the most likely token until that is an
// end-of-sequence token, which is not returned, or there are maxNew tokens. A source's result does
// not depend on the other sources of the call.
func (m *Model) Generate(prompt []float32, sources [][]int32, maxNew int) ([][]int32, error) {
	if maxNew < 0 {
		return nil, fmt.Errorf("%d new tokens, want 0 or more", maxNew)
	}
	if err := m.checkSources(prompt, sources); err != nil {
		return nil, err
	}
	out := make([][]int32, len(sources))
	if len(sources) == 0 || maxNew == 0 {
		return out, nil
	}
	in := m.prompt(prompt, 0)
	size := func(i int) int { return m.sourceElems(in.rows, len(sources[i]), maxNew) }
	for lo, hi := 0, 0; lo < len(sources); lo = hi {
		hi = m.passEnd(lo, len(sources), size)
		m.begin()
		enc, spans := m.encode(in, hi-lo, func(i int) []int32 { return sources[lo+i] })
		err := m.decode(enc, spans, maxNew, func(i int) int { return lo + i }, out)
		if err != nil {
			return nil, err
		}
	}
	m.part("")
	return out, nil
}

// Evaluate is Score and Generate with one pass through the encoder: the losses of pairs, 0 for an
// empty target, and the greedy outputs for their sources. The bits are those of Score and Generate.
func (m *Model) Evaluate(prompt []float32, pairs []Pair, maxNew int, losses []float64) ([][]int32, error) {
	if maxNew < 0 {
		return nil, fmt.Errorf("%d new tokens, want 0 or more", maxNew)
	}
	if len(losses) != len(pairs) {
		return nil, fmt.Errorf("room for %d losses, want one for each of %d pairs", len(losses), len(pairs))
	}
	if err := m.checkEvaluate(prompt, pairs); err != nil {
		return nil, err
	}
	clear(losses)
	in := m.prompt(prompt, 0)
	m.arrange(in.rows, pairs)
	out := make([][]int32, len(pairs))
	size := func(i int) int {
		p := m.host.pairs[i]
		return max(m.pairElems(in.rows, p, false), m.sourceElems(in.rows, len(p.Source), maxNew))
	}
	for lo, hi := 0, 0; lo < len(pairs); lo = hi {
		hi = m.passEnd(lo, len(pairs), size)
		if err := m.evaluatePass(in, lo, hi, maxNew, losses, out); err != nil {
			return nil, err
		}
	}
	m.part("")
	return out, nil
}

// evaluatePass computes the losses and outputs of the arranged pairs lo to hi.
func (m *Model) evaluatePass(in *promptInput, lo, hi, maxNew int, losses []float64, out [][]int32) error {
	m.begin()
	pairs, order := m.host.pairs[lo:hi], m.host.order[lo:hi]
	enc, spans := m.encode(in, len(pairs), func(i int) []int32 { return pairs[i].Source })
	scored := len(pairs) // those without a target are last
	for scored > 0 && len(pairs[scored-1].Target) == 0 {
		scored--
	}
	if scored > 0 {
		mark := m.batch.Mark()
		m.part("decoder forward")
		target := m.decoderInput(pairs[:scored], enc)
		logits := m.decoderForward(&target, false)
		m.part("loss")
		loss, _ := m.crossEntropy(logits, target.targets)
		if err := m.downloadLosses(loss, pairs[:scored], order, losses); err != nil {
			return err
		}
		m.batch.Release(mark)
	}
	if maxNew == 0 {
		return nil
	}
	return m.decode(enc, spans, maxNew, func(i int) int { return order[i] }, out)
}

// encode runs the encoder on n sources and returns its output and each source's rows there.
func (m *Model) encode(prompt *promptInput, n int, source func(i int) []int32) (engine.Tensor, []engine.Span) {
	m.part("encoder forward")
	in := m.encoderInput(prompt, n, source)
	return m.encoderForward(&in, false), append([]engine.Span(nil), m.host.q[:n]...)
}

// decode appends to out[place(i)] the greedy output for the i-th source, whose rows of the
// encoder's output are spans[i].
func (m *Model) decode(enc engine.Tensor, spans []engine.Span, maxNew int, place func(i int) int, out [][]int32) error {
	m.part("decoding")
	d := m.newDecoding(enc, spans, maxNew)
	for d.step < maxNew && len(d.active) > 0 {
		next, err := m.decodeStep(d)
		if err != nil {
			return err
		}
		active := d.active[:0]
		for i, ex := range d.active {
			if next[i] < 0 {
				return &NaNError{Source: place(ex), Token: d.step}
			}
			if m.cfg.isEOS(next[i]) {
				continue
			}
			out[place(ex)] = append(out[place(ex)], next[i])
			d.last[ex] = next[i]
			active = append(active, ex)
		}
		d.active = active
		d.step++
	}
	return nil
}

// NaNError is the error of a source whose logits were NaN when a token was to be chosen.
type NaNError struct {
	Source int // index in Generate's sources or Evaluate's pairs
	Token  int // index of the token, from 0
}

func (e *NaNError) Error() string {
	return fmt.Sprintf("source %d: logits of new token %d are not numbers", e.Source, e.Token)
}

// decoding is the state of greedy decoding. Caches live in Model.cache, one of each per decoder
// layer.
type decoding struct {
	maxNew int
	step   int
	active []int   // examples not finished
	last   []int32 // per example, the decoder's next input
	enc    engine.Tensor
	spans  []engine.Span   // per example, its rows of the encoder's output
	cross  []engine.Tensor // keys and values of the encoder's output, once absorption has ended
	self   []engine.Tensor // [examples·maxNew, 2·inner]: keys and values; example i's from row i·maxNew on
}

func (m *Model) newDecoding(enc engine.Tensor, spans []engine.Span, maxNew int) *decoding {
	d := &decoding{maxNew: maxNew, enc: enc, spans: spans}
	for i := range spans {
		d.active = append(d.active, i)
		d.last = append(d.last, m.cfg.DecoderStartToken)
	}
	for range m.decoder {
		d.self = append(d.self, m.cache.Tensor(engine.Narrow, len(spans)*maxNew, 2*m.cfg.inner()))
	}
	return d
}

// project ends absorption: it projects the rows of the active examples to every layer's
// cross-attention keys and values.
func (m *Model) project(d *decoding) {
	m.tmp.Reset()
	var rows []int32
	for _, ex := range d.active {
		s := d.spans[ex]
		d.spans[ex].Start = len(rows)
		for i := range s.Len {
			rows = append(rows, int32(s.Start+i))
		}
	}
	enc := m.tmp.Tensor(engine.Narrow, len(rows), m.cfg.DModel)
	m.eng.GatherRows(enc, d.enc, m.tmp.Index(rows))
	for i := range m.decoder {
		d.cross = append(d.cross, m.linear(m.cache, engine.Narrow, enc, m.decoder[i].cross.kv))
	}
}

// decodeStep runs the decoder on one new position of every active example and returns their next
// tokens.
func (m *Model) decodeStep(d *decoding) ([]int32, error) {
	mark := m.batch.Mark()
	defer m.batch.Release(mark)
	if d.step == m.absorbSteps() {
		m.project(d)
	}

	// One row per active example: it sees its own earlier positions in the cache, and all of its
	// encoder output.
	n := len(d.active)
	h := &m.host
	h.ids, h.targets, h.q, h.kv, h.offset = h.ids[:0], h.targets[:0], h.q[:0], h.kv[:0], h.offset[:0]
	for i, ex := range d.active {
		h.ids = append(h.ids, d.last[ex])
		h.targets = append(h.targets, int32(ex*d.maxNew+d.step)) // the row for this position's key and value
		h.q = append(h.q, engine.Span{Start: i, Len: 1})
		h.kv = append(h.kv, engine.Span{Start: ex * d.maxNew, Len: d.step + 1})
		h.offset = append(h.offset, d.step)
	}
	ids, rows := m.batch.Index(h.ids), m.batch.Index(h.targets)
	self := m.batch.Segments(engine.SegmentSpec{Q: h.q, KV: h.kv, Offset: h.offset, Causal: true})
	for i, ex := range d.active {
		h.kv[i] = d.spans[ex]
	}
	absorbed, enc := n, d.enc
	if d.cross != nil {
		absorbed, enc = 0, d.cross[0]
	}
	cross := m.crossInput(enc, h.q, h.kv, absorbed)

	// The decoder's layers.
	x := m.batch.Tensor(engine.Wide, n, m.cfg.DModel)
	m.eng.EmbedForward(x, m.embed, nil, ids)
	s := stream{x: x}
	for i := range m.decoder {
		layer := &m.decoder[i]
		ws := m.layerSpace(i, false)
		s = m.selfAttentionCached(ws, &layer.self, s, d.self[i], rows, self)
		var kv engine.Tensor
		if d.cross != nil {
			kv = d.cross[i]
		}
		s, _ = m.crossAttentionForward(ws, &layer.cross, s, &cross, kv)
		s, _ = m.feedForwardForward(ws, &layer.ff, s)
	}
	logits, _ := m.logits(s, 0, false)
	next := make([]int32, n)
	if err := m.eng.Argmax(next, logits); err != nil {
		return nil, fmt.Errorf("next tokens: %w", err)
	}
	return next, nil
}

// selfAttentionCached is selfAttentionForward for one new row per segment. It first writes the
// row's key and value to the given row of the cache.
func (m *Model) selfAttentionCached(
	ws engine.Workspace,
	w *selfAttention,
	s stream,
	cache engine.Tensor,
	rows engine.Index,
	seg engine.Segments,
) stream {
	m.tmp.Reset()
	inner := m.cfg.inner()
	y, norm := m.norm(ws, s, w.norm)
	qkv := m.linear(m.tmp, engine.Narrow, y, w.qkv)
	m.eng.ScatterRows(cache, m.tmp.View(qkv, 0, qkv.Rows(), inner, 2*inner), rows)
	saved := attentionSaved{q: m.columns(m.tmp, qkv, 0), k: m.columns(m.tmp, cache, 0), v: m.columns(m.tmp, cache, 1)}
	return stream{norm.x, m.attend(ws, &saved, seg, w.bias, w.o)}
}
