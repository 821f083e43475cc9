package t5

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// Generate decodes greedily: for each source the most likely token, time after time, until it is an end-of-sequence token, which is
// not returned, or maxNew tokens are there. A source's result does not depend on the other sources of the call.
func (m *Model) Generate(prompt []float32, sources [][]int32, maxNew int) ([][]int32, error) {
	if maxNew < 0 {
		return nil, fmt.Errorf("%d new tokens, want 0 or more", maxNew)
	}
	if err := m.CheckSources(prompt, sources); err != nil {
		return nil, err
	}
	out := make([][]int32, len(sources))
	if len(sources) == 0 || maxNew == 0 {
		return out, nil
	}
	m.begin()
	d := m.newDecoding(prompt, sources, maxNew)
	for d.step < maxNew && len(d.active) > 0 {
		next, err := m.decodeStep(d)
		if err != nil {
			return nil, err
		}
		active := d.active[:0]
		for i, ex := range d.active {
			if next[i] < 0 {
				return nil, &NaNError{Source: ex, Token: d.step}
			}
			if m.cfg.IsEOS(next[i]) {
				continue
			}
			out[ex] = append(out[ex], next[i])
			d.last[ex] = next[i]
			active = append(active, ex)
		}
		d.active = active
		d.step++
	}
	return out, nil
}

// NaNError says that a source's logits were not numbers when a token was to be chosen.
type NaNError struct {
	Source int // index in Generate's sources
	Token  int // index of the token, from 0
}

func (e *NaNError) Error() string {
	return fmt.Sprintf("source %d: logits of new token %d are not numbers", e.Source, e.Token)
}

// decoding is the state of greedy decoding. Caches live in Model.cache, one of each per decoder layer.
type decoding struct {
	maxNew int
	step   int
	active []int         // examples not finished
	last   []int32       // per example, the decoder's next input
	spans  []engine.Span // per example, its rows of the encoder's output
	cross  []engine.Tensor
	self   []engine.Tensor // [examples·maxNew, 2·inner]: keys and values; example i's from row i·maxNew on
}

// newDecoding runs the encoder and projects its output to every layer's cross-attention keys and values.
func (m *Model) newDecoding(prompt []float32, sources [][]int32, maxNew int) *decoding {
	in := m.encoderInput(prompt, len(sources), func(i int) []int32 { return sources[i] })
	d := &decoding{maxNew: maxNew, spans: append([]engine.Span(nil), m.host.q...)}
	enc := m.encoderForward(&in, false)
	for i := range sources {
		d.active = append(d.active, i)
		d.last = append(d.last, m.cfg.DecoderStartToken)
	}
	for i := range m.decoder {
		d.cross = append(d.cross, m.linear(m.cache, engine.Narrow, enc, m.decoder[i].cross.kv))
		d.self = append(d.self, m.cache.Tensor(engine.Narrow, len(sources)*maxNew, 2*m.cfg.Inner()))
	}
	return d
}

// decodeStep runs the decoder on one new position of every active example and returns their next tokens.
func (m *Model) decodeStep(d *decoding) ([]int32, error) {
	mark := m.batch.Mark()
	defer m.batch.Release(mark)

	n := len(d.active)
	h := &m.host
	h.ids, h.targets, h.q, h.kv, h.offset = h.ids[:0], h.targets[:0], h.q[:0], h.kv[:0], h.offset[:0]
	for i, ex := range d.active {
		h.ids = append(h.ids, d.last[ex])
		h.targets = append(h.targets, int32(ex*d.maxNew+d.step)) // where this position's key and value go
		h.q = append(h.q, engine.Span{Start: i, Len: 1})
		h.kv = append(h.kv, engine.Span{Start: ex * d.maxNew, Len: d.step + 1})
		h.offset = append(h.offset, d.step)
	}
	ids, rows := m.batch.Index(h.ids), m.batch.Index(h.targets)
	self := m.batch.Segments(engine.SegmentSpec{Q: h.q, KV: h.kv, Offset: h.offset, Causal: true})
	for i, ex := range d.active {
		h.kv[i] = d.spans[ex]
	}
	cross := m.batch.Segments(engine.SegmentSpec{Q: h.q, KV: h.kv})

	x := m.batch.Tensor(engine.Wide, n, m.cfg.DModel)
	m.eng.EmbedForward(x, m.embed, nil, ids)
	s := stream{x: x}
	for i := range m.decoder {
		layer := &m.decoder[i]
		ws := m.layerSpace(i, false)
		s = m.selfAttentionCached(ws, &layer.self, s, d.self[i], rows, self)
		s, _ = m.crossAttentionCached(ws, &layer.cross, s, attentionSaved{kv: d.cross[i]}, cross)
		s, _ = m.feedForwardForward(ws, &layer.ff, s)
	}
	logits, _ := m.logits(s, false)
	next := make([]int32, n)
	if err := m.eng.Argmax(next, logits); err != nil {
		return nil, fmt.Errorf("next tokens: %w", err)
	}
	return next, nil
}

// selfAttentionCached is selfAttentionForward for one new row per segment, whose key and value first join the others in cache, at the given rows.
func (m *Model) selfAttentionCached(ws engine.Workspace, w *selfAttention, s stream, cache engine.Tensor, rows engine.Index, seg engine.Segments) stream {
	m.tmp.Reset()
	inner := m.cfg.Inner()
	y, norm := m.norm(ws, s, w.norm)
	qkv := m.linear(m.tmp, engine.Narrow, y, w.qkv)
	m.eng.ScatterRows(cache, m.tmp.View(qkv, 0, qkv.Rows(), inner, 2*inner), rows)
	saved := attentionSaved{q: m.columns(m.tmp, qkv, 0), k: m.columns(m.tmp, cache, 0), v: m.columns(m.tmp, cache, 1)}
	return stream{norm.x, m.attend(ws, &saved, seg, m.decoderBias, w.o)}
}
