package t5

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// trainerBuffers are slices that calls fill and hand to the engine, kept for the next call.
type trainerBuffers struct {
	ids, complement []int32
	targets         []int32
	sources, spans  []engine.Span
	losses          []float64
	sum             []float32
}

// normTrained holds the operands of the backward of a norm and of the product behind it:
// y = norm(x), with x's reciprocal root mean squares r.
type normTrained struct{ x, r, y engine.Tensor }

// attentionTrained holds the operands of attention's backward: qkv holds q, k and v side by side,
// or k and v alone in cross-attention.
type attentionTrained struct {
	norm         normTrained
	qkv, q, k, v engine.Tensor
	out, logNorm engine.Tensor
}

// feedForwardTrained holds the operands of the feed-forward layer's backward: hidden is the input
// of the activation act. With ReLU, act overwrites it and a mask keeps where it was positive.
type feedForwardTrained struct {
	norm        normTrained
	hidden, act engine.Tensor
	positive    engine.Mask
}

type encoderTrained struct {
	self attentionTrained
	ff   feedForwardTrained
}

type decoderTrained struct {
	self, cross attentionTrained
	ff          feedForwardTrained
}

// run computes losses and adds all gradients, the prompt's to promptGrad.
func (t *Trainer) run(prompt []float32, pairs []Pair, losses, promptGrad []float64) error {
	m, h := t.m, &t.host
	t.pass.Reset()
	c := len(prompt) / m.cfg.DModel
	var embeddedPrompt, dprompt engine.Tensor
	if c > 0 {
		embeddedPrompt, dprompt = t.pass.Tensor(engine.Wide, c, m.cfg.DModel), t.zeros(c)
		t.eng.Upload(embeddedPrompt, prompt)
	}

	// The encoder's rows: of each pair the prompt, then its source.
	h.ids, h.sources = h.ids[:0], h.sources[:0]
	for _, p := range pairs {
		h.sources = append(h.sources, engine.Span{Start: len(h.ids), Len: c + len(p.Source)})
		for r := range int32(c) {
			h.ids = append(h.ids, ^r)
		}
		h.ids = append(h.ids, p.Source...)
	}
	sourceIDs, sourceBack := t.index(h.ids)
	encoderSegments := t.pass.Segments(engine.SegmentSpec{Q: h.sources, KV: h.sources})

	// The decoder's rows: of each pair its target, shifted right.
	h.ids, h.targets, h.spans = h.ids[:0], h.targets[:0], h.spans[:0]
	for _, p := range pairs {
		h.spans = append(h.spans, engine.Span{Start: len(h.ids), Len: len(p.Target)})
		h.ids = append(append(h.ids, m.cfg.DecoderStartToken), p.Target[:len(p.Target)-1]...)
		h.targets = append(h.targets, p.Target...)
	}
	targetIDs, targetBack := t.index(h.ids)
	targets := t.pass.Index(h.targets)
	decoderSegments := t.pass.Segments(engine.SegmentSpec{Q: h.spans, KV: h.spans, Causal: true})
	crossSegments := t.pass.Segments(engine.SegmentSpec{Q: h.spans, KV: h.sources})

	m.part("encoder forward")
	encoder := make([]encoderTrained, len(m.encoder))
	s := t.embedded(sourceIDs, embeddedPrompt)
	for i := range encoder {
		w := &m.encoder[i]
		s, encoder[i].self = t.selfForward(&w.self, s, encoderSegments, w.self.bias)
		s, encoder[i].ff = t.feedForwardForward(&w.ff, s)
	}
	encoderEnd := t.norm(s, m.encoderNorm)

	m.part("decoder forward")
	decoder := make([]decoderTrained, len(m.decoder))
	s = t.embedded(targetIDs, nil)
	for i := range decoder {
		w := &m.decoder[i]
		s, decoder[i].self = t.selfForward(&w.self, s, decoderSegments, w.self.bias)
		s, decoder[i].cross = t.crossForward(&w.cross, s, encoderEnd.y, crossSegments)
		s, decoder[i].ff = t.feedForwardForward(&w.ff, s)
	}
	decoderEnd := t.norm(s, m.decoderNorm)

	m.part("loss")
	if m.cfg.ScaleOutput {
		t.eng.Scale(decoderEnd.y, m.outputScale())
	}
	logits := t.linear(t.pass, engine.Wide, decoderEnd.y, m.head)
	loss, logNorm := t.pass.Tensor(engine.Wide, logits.Rows(), 1), t.pass.Tensor(engine.Wide, logits.Rows(), 1)
	t.eng.CrossEntropyForward(loss, logNorm, logits, targets)
	t.eng.CrossEntropyBackward(logits, logits, logNorm, targets)

	m.part("decoder backward")
	t.tmp.Reset()
	dy := t.linearBackward(engine.Wide, logits, decoderEnd.y, m.head, t.head)
	if m.cfg.ScaleOutput {
		t.eng.Scale(dy, m.outputScale())
	}
	dx, denc := t.zeros(logits.Rows()), t.zeros(encoderEnd.y.Rows())
	t.normBackward(dx, dy, &decoderEnd, m.decoderNorm, t.decoderNorm)
	for i := len(decoder) - 1; i >= 0; i-- {
		w, g := &m.decoder[i], &t.decoder[i]
		t.feedForwardBackward(&w.ff, &g.ff, &decoder[i].ff, dx)
		t.crossBackward(&w.cross, &g.cross, &decoder[i].cross, dx, denc, encoderEnd.y, crossSegments)
		t.selfBackward(&w.self, &g.self, &decoder[i].self, dx, decoderSegments, w.self.bias, t.decoderBias)
	}
	t.eng.EmbedBackward(t.embed, dx, targetBack)

	m.part("encoder backward")
	dx = t.zeros(denc.Rows())
	t.normBackward(dx, denc, &encoderEnd, m.encoderNorm, t.encoderNorm)
	for i := len(encoder) - 1; i >= 0; i-- {
		w, g := &m.encoder[i], &t.encoder[i]
		t.feedForwardBackward(&w.ff, &g.ff, &encoder[i].ff, dx)
		t.selfBackward(&w.self, &g.self, &encoder[i].self, dx, encoderSegments, w.self.bias, t.encoderBias)
	}
	t.eng.EmbedBackward(t.embed, dx, sourceBack)

	// The prompt's gradient is the sum over the pairs.
	if c > 0 {
		t.eng.EmbedBackward(dprompt, dx, sourceIDs)
		h.losses = sized(h.losses, len(prompt))
		if err := t.eng.Download(h.losses, dprompt); err != nil {
			return fmt.Errorf("gradient: %w", err)
		}
		for i, g := range h.losses {
			promptGrad[i] += g
		}
	}
	m.part("")
	return t.downloadLosses(loss, pairs, losses)
}

// index uploads ids and their complements: the table's gradient is computed as that of a prompt
// with a row for every id.
func (t *Trainer) index(ids []int32) (forward, backward engine.Index) {
	t.host.complement = t.host.complement[:0]
	for _, id := range ids {
		t.host.complement = append(t.host.complement, ^id)
	}
	return t.pass.Index(ids), t.pass.Index(t.host.complement)
}

// embedded looks ids up in the table, and complements in the prompt.
func (t *Trainer) embedded(ids engine.Index, prompt engine.Tensor) stream {
	x := t.pass.Tensor(engine.Wide, ids.Len(), t.m.cfg.DModel)
	t.eng.EmbedForward(x, t.m.embed, prompt, ids)
	return stream{x: x}
}

func (t *Trainer) zeros(rows int) engine.Tensor {
	x := t.pass.Tensor(engine.Wide, rows, t.m.cfg.DModel)
	t.eng.Zero(x)
	return x
}

func (t *Trainer) downloadLosses(loss engine.Tensor, pairs []Pair, losses []float64) error {
	h := &t.host
	h.losses = sized(h.losses, loss.Rows())
	if err := t.eng.Download(h.losses, loss); err != nil {
		return fmt.Errorf("losses: %w", err)
	}
	rest := h.losses
	for i, p := range pairs {
		losses[i] = 0
		for _, l := range rest[:len(p.Target)] {
			losses[i] += l
		}
		rest = rest[len(p.Target):]
	}
	return nil
}
