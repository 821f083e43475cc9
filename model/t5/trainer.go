package t5

import (
	"errors"
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// Trainer computes the gradient of the loss with respect to all weights, for pre-training and full
// fine-tuning. As weights are not frozen, it uses neither absorption nor the first layer's savings.
// One goroutine at a time may use it.
type Trainer struct {
	m    *Model
	eng  engine.Trainer
	tied bool

	slots []slot
	// Sums of gradients, in the shapes of the weights in m.
	embed, head              engine.Tensor
	encoder                  []encoderLayerGradient
	decoder                  []decoderLayerGradient
	encoderBias, decoderBias engine.Tensor // [heads, distances]
	encoderNorm, decoderNorm engine.Tensor

	sums    engine.Workspace // the gradients
	pass    engine.Workspace // operands of backward
	tmp     engine.Workspace // during a sublayer
	pending engine.Workspace // the stream's delta

	host trainerBuffers
}

// attentionGradient: in self-attention q is the gradient of queries, keys and values, and kv is
// nil.
type attentionGradient struct{ norm, q, kv, o engine.Tensor }

type feedForwardGradient struct{ norm, wi, wo engine.Tensor }

type encoderLayerGradient struct {
	self attentionGradient
	ff   feedForwardGradient
}

type decoderLayerGradient struct {
	self, cross attentionGradient
	ff          feedForwardGradient
}

// slot is one or more neighbouring parameters of the vector that are one tensor in the engine.
type slot struct {
	offset, size int
	sum          engine.Tensor
	set          func(values []float32) error
	// fold turns the numbers of sum into the gradient of the parameters; nil if they are the same.
	fold func(dst, sum []float32)
}

// NewTrainer makes a T5 of the weights in one vector, laid out as cfg.Parameters(tied) says. eng
// must be an engine.Trainer.
func NewTrainer(eng engine.Engine, cfg Config, tied bool, weights []float32) (*Trainer, error) {
	te, ok := eng.(engine.Trainer)
	if !ok {
		return nil, fmt.Errorf("engine %s computes no gradients of weights, want one that does", eng.Name())
	}
	if cfg.LayerBiases {
		return nil, fmt.Errorf("model_type is %q, want \"t5\" or \"mt5\" for gradients of all weights: "+
			"those of a bias in every layer are not computed", cfg.ModelType)
	}
	params := cfg.Parameters(tied)
	v, err := newVector(params, weights)
	if err != nil {
		return nil, err
	}
	m, err := New(eng, cfg, v, Options{NoAbsorption: true, NoFirstLayer: true})
	if err != nil {
		return nil, err
	}
	t := &Trainer{
		m:       m,
		eng:     te,
		tied:    tied,
		sums:    eng.NewWorkspace(),
		pass:    eng.NewWorkspace(),
		tmp:     eng.NewWorkspace(),
		pending: eng.NewWorkspace(),
	}
	t.layOut(v)
	return t, nil
}

// Model returns the model, which computes with the weights that were set last.
func (t *Trainer) Model() *Model { return t.m }

// layOut makes a slot for every weight.
func (t *Trainer) layOut(v *vector) {
	cfg, m := t.m.cfg, t.m
	d, inner := cfg.DModel, cfg.inner()

	// Slots by kind of weight and of sublayer. A slot has the name of its first parameter.
	linear := func(w engine.Linear, rows, cols int, name string) engine.Tensor {
		return t.slot(v, name, rows, cols, func(values []float32) error { return t.eng.SetLinear(w, values) })
	}
	gain := func(g engine.Gain, name string) engine.Tensor {
		return t.slot(v, name, 1, d, func(values []float32) error { return t.eng.SetGain(g, values) })
	}
	self := func(w *selfAttention, prefix string) attentionGradient {
		return attentionGradient{
			norm: gain(w.norm, prefix+"layer_norm.weight"),
			q:    linear(w.qkv, 3*inner, d, prefix+"SelfAttention.q.weight"),
			o:    linear(w.o, d, inner, prefix+"SelfAttention.o.weight"),
		}
	}
	feedForward := func(w *feedForward, prefix string) feedForwardGradient {
		wi := prefix + "DenseReluDense.wi.weight"
		if cfg.gated() {
			wi = prefix + "DenseReluDense.wi_0.weight"
		}
		return feedForwardGradient{
			norm: gain(w.norm, prefix+"layer_norm.weight"),
			wi:   linear(w.wi, w.wi.Out(), d, wi),
			wo:   linear(w.wo, d, cfg.DFF, prefix+"DenseReluDense.wo.weight"),
		}
	}

	// The embedding table, which may also be the output projection, and the stacks.
	t.embed = t.slot(v, "shared.weight", cfg.VocabSize, d, func(values []float32) error {
		if t.tied {
			return errors.Join(t.eng.SetTable(m.embed, values), t.eng.SetLinear(m.head, values))
		}
		return t.eng.SetTable(m.embed, values)
	})
	t.head = t.embed
	if !t.tied {
		t.head = linear(m.head, cfg.VocabSize, d, "lm_head.weight")
	}
	for i := range m.encoder {
		w, p := &m.encoder[i], fmt.Sprintf("encoder.block.%d.layer.", i)
		t.encoder = append(t.encoder, encoderLayerGradient{self(&w.self, p+"0."), feedForward(&w.ff, p+"1.")})
	}
	for i := range m.decoder {
		w, p := &m.decoder[i], fmt.Sprintf("decoder.block.%d.layer.", i)
		a := p + "1.EncDecAttention."
		t.decoder = append(t.decoder, decoderLayerGradient{
			self: self(&w.self, p+"0."),
			cross: attentionGradient{
				norm: gain(w.cross.norm, p+"1.layer_norm.weight"),
				q:    linear(w.cross.q, inner, d, a+"q.weight"),
				kv:   linear(w.cross.kv, 2*inner, d, a+"k.weight"),
				o:    linear(w.cross.o, d, inner, a+"o.weight"),
			},
			ff: feedForward(&w.ff, p+"2."),
		})
	}
	t.encoderBias = t.biasSlot(v, "encoder", m.encoder[0].self.bias, true)
	t.decoderBias = t.biasSlot(v, "decoder", m.decoder[0].self.bias, false)
	t.encoderNorm = gain(m.encoderNorm, "encoder.final_layer_norm.weight")
	t.decoderNorm = gain(m.decoderNorm, "decoder.final_layer_norm.weight")
}

// slot adds a slot of the parameters, from the named one on, that fill rows × cols.
func (t *Trainer) slot(v *vector, name string, rows, cols int, set func([]float32) error) engine.Tensor {
	sum := t.sums.Tensor(engine.Wide, rows, cols)
	t.slots = append(t.slots, slot{offset: v.params[name].Offset, size: rows * cols, sum: sum, set: set})
	return sum
}

// biasSlot adds a slot of a stack's relative attention bias [buckets, heads]; the engine computes
// its gradient by distance.
func (t *Trainer) biasSlot(v *vector, stack string, b engine.Bias, bidirectional bool) engine.Tensor {
	p := v.params[stack+".block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
	cfg := t.m.cfg
	lo, hi := cfg.distances(bidirectional)
	span := hi - lo + 1
	sum := t.sums.Tensor(engine.Wide, cfg.NumHeads, span)
	t.slots = append(t.slots, slot{
		offset: p.Offset, size: p.Size(), sum: sum,
		set: func(table []float32) error { return t.eng.SetBias(b, cfg.spreadBias(table, bidirectional)) },
		fold: func(dst, sum []float32) {
			clear(dst)
			for d := lo; d <= hi; d++ {
				b := bucket(d, bidirectional, cfg.RelativeBuckets, cfg.RelativeDistance)
				for h := range cfg.NumHeads {
					dst[b*cfg.NumHeads+h] += sum[h*span+d-lo]
				}
			}
		},
	})
	return sum
}

// Set replaces all weights.
func (t *Trainer) Set(weights []float32) error {
	for _, s := range t.slots {
		if s.offset+s.size > len(weights) {
			return fmt.Errorf("%d weights, want at least %d", len(weights), s.offset+s.size)
		}
		if err := s.set(weights[s.offset : s.offset+s.size]); err != nil {
			return err
		}
	}
	return nil
}

// LossGrad computes each pair's loss, the sum of its target tokens' cross-entropies, into losses
// [len(pairs)], and the gradient of their sum with respect to all weights into grad. Its bits
// depend only on the weights and on the pairs in their order. All pairs are computed at once.
func (t *Trainer) LossGrad(pairs []Pair, losses []float64, grad []float32) error {
	if len(grad) == 0 {
		return errors.New("gradient has room for no numbers, want one for each weight")
	}
	return t.lossGrad(nil, pairs, losses, nil, grad)
}

// PromptLossGrad is Model.LossGrad, but also computes the gradient with respect to all weights and
// leaves it in the engine: it measures the cost of a step whose weights are not frozen.
func (t *Trainer) PromptLossGrad(prompt []float32, pairs []Pair, losses, grad []float64) error {
	if len(grad) != len(prompt) {
		return fmt.Errorf("gradient has room for %d numbers, want the prompt's %d", len(grad), len(prompt))
	}
	return t.lossGrad(prompt, pairs, losses, grad, nil)
}

// lossGrad adds the prompt's gradient to promptGrad, and downloads that of the weights unless grad
// is nil.
func (t *Trainer) lossGrad(prompt []float32, pairs []Pair, losses, promptGrad []float64, grad []float32) error {
	if len(losses) != len(pairs) {
		return fmt.Errorf("room for %d losses, want one for each of %d pairs", len(losses), len(pairs))
	}
	if err := t.m.Check(prompt, pairs); err != nil {
		return err
	}
	for _, s := range t.slots {
		if grad != nil && s.offset+s.size > len(grad) {
			return fmt.Errorf("gradient has room for %d numbers, want at least %d", len(grad), s.offset+s.size)
		}
		t.eng.Zero(s.sum)
	}
	if len(pairs) > 0 {
		if err := t.run(prompt, pairs, losses, promptGrad); err != nil {
			return err
		}
	}
	if grad == nil {
		return nil
	}
	for _, s := range t.slots {
		dst := grad[s.offset : s.offset+s.size]
		if s.fold == nil {
			if err := t.eng.DownloadFloat32(dst, s.sum); err != nil {
				return fmt.Errorf("gradient: %w", err)
			}
			continue
		}
		t.host.sum = append(t.host.sum[:0], make([]float32, s.sum.Rows()*s.sum.Cols())...)
		if err := t.eng.DownloadFloat32(t.host.sum, s.sum); err != nil {
			return fmt.Errorf("gradient: %w", err)
		}
		s.fold(dst, t.host.sum)
	}
	return nil
}
