package t5

import (
	"fmt"
	"slices"

	"github.com/dptune/dpt/model/engine"
)

// Weights is a checkpoint's tensors by the names that Transformers writes.
type Weights interface {
	// Float32 returns a tensor's elements, row-major, or an error if it is missing or has another
	// shape.
	Float32(name string, shape ...int) ([]float32, error)
	Has(name string) bool
}

// selfAttention holds query, key and value projections as one weight [3·inner, d_model].
type selfAttention struct {
	bias engine.Bias // the stack's, except in UMT5
	norm engine.Gain
	qkv  engine.Linear
	o    engine.Linear
}

// crossAttention projects queries from the decoder and keys and values, as one weight [2·inner,
// d_model], from the encoder's output. k and v are the same weights again, head by head, for
// absorption; nil if it is switched off.
type crossAttention struct {
	norm engine.Gain
	q    engine.Linear
	kv   engine.Linear
	k, v engine.Heads
	o    engine.Linear
}

// feedForward's wi is [d_ff, d_model] with ReLU; gated, gate and linear part are stacked to
// [2·d_ff, d_model].
type feedForward struct {
	norm engine.Gain
	wi   engine.Linear
	wo   engine.Linear
}

type encoderLayer struct {
	self selfAttention
	ff   feedForward
}

type decoderLayer struct {
	self  selfAttention
	cross crossAttention
	ff    feedForward
}

// loader reads weights into an engine and keeps the first error.
type loader struct {
	eng engine.Engine
	cfg Config
	opt Options
	w   Weights
	err error
}

func (l *loader) tensor(name string, shape ...int) []float32 {
	if l.err != nil {
		return nil
	}
	data, err := l.w.Float32(name, shape...)
	if err != nil {
		l.err = err
	}
	return data
}

func (l *loader) gain(name string) engine.Gain {
	w := l.tensor(name, l.cfg.DModel)
	if l.err != nil {
		return nil
	}
	g, err := l.eng.NewGain(w)
	l.keep(name, err)
	return g
}

// linear stacks the named weights, each [out, in].
func (l *loader) linear(out, in int, sparse bool, names ...string) engine.Linear {
	spec := engine.LinearSpec{In: in, SparseInput: sparse}
	for _, name := range names {
		spec.Weights = append(spec.Weights, l.tensor(name, out, in))
	}
	if l.err != nil {
		return nil
	}
	lin, err := l.eng.NewLinear(spec)
	l.keep(names[0], err)
	return lin
}

// heads reads a projection to heads·d columns head by head.
func (l *loader) heads(name string) engine.Heads {
	w := l.tensor(name, l.cfg.inner(), l.cfg.DModel)
	if l.err != nil {
		return nil
	}
	h, err := l.eng.NewHeads(l.cfg.NumHeads, l.cfg.DModel, w)
	l.keep(name, err)
	return h
}

func (l *loader) keep(name string, err error) {
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("load %s: %w", name, err)
	}
}

func (l *loader) selfAttention(prefix string) selfAttention {
	inner, d := l.cfg.inner(), l.cfg.DModel
	a := prefix + "SelfAttention."
	return selfAttention{
		norm: l.gain(prefix + "layer_norm.weight"),
		qkv:  l.linear(inner, d, false, a+"q.weight", a+"k.weight", a+"v.weight"),
		o:    l.linear(d, inner, false, a+"o.weight"),
	}
}

func (l *loader) crossAttention(prefix string) crossAttention {
	inner, d := l.cfg.inner(), l.cfg.DModel
	a := prefix + "EncDecAttention."
	w := crossAttention{
		norm: l.gain(prefix + "layer_norm.weight"),
		q:    l.linear(inner, d, false, a+"q.weight"),
		kv:   l.linear(inner, d, false, a+"k.weight", a+"v.weight"),
		o:    l.linear(d, inner, false, a+"o.weight"),
	}
	if !l.opt.NoAbsorption {
		w.k, w.v = l.heads(a+"k.weight"), l.heads(a+"v.weight")
	}
	return w
}

func (l *loader) feedForward(prefix string) feedForward {
	d, f := l.cfg.DModel, l.cfg.DFF
	a := prefix + "DenseReluDense."
	ff := feedForward{norm: l.gain(prefix + "layer_norm.weight")}
	if l.cfg.gated() {
		ff.wi = l.linear(f, d, false, a+"wi_0.weight", a+"wi_1.weight")
		ff.wo = l.linear(d, f, false, a+"wo.weight")
	} else {
		ff.wi = l.linear(f, d, false, a+"wi.weight")
		ff.wo = l.linear(d, f, true, a+"wo.weight")
	}
	return ff
}

// bias returns the relative attention bias of a stack's layer: in UMT5 the layer's own, else the
// one that the first layer holds for all.
func (l *loader) bias(stack string, layer int, first engine.Bias) engine.Bias {
	if layer > 0 && !l.cfg.LayerBiases {
		return first
	}
	name := fmt.Sprintf("%s.block.%d.layer.0.SelfAttention.relative_attention_bias.weight", stack, layer)
	table := l.tensor(name, l.cfg.RelativeBuckets, l.cfg.NumHeads)
	if l.err != nil {
		return nil
	}
	b, err := newBias(l.eng, l.cfg, table, stack == "encoder")
	l.keep(name, err)
	return b
}

// tableAliases are further names of shared.weight: some checkpoints hold the table once for each of
// its users, or under one of their names alone.
var tableAliases = []string{"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}

// checkTables refuses a checkpoint whose encoder or decoder has an embedding table of its own,
// which Transformers would not tie to the other.
func checkTables(cfg Config, w Weights) error {
	name := tableName(w)
	for _, alias := range tableAliases {
		if alias == name || !w.Has(alias) {
			continue
		}
		table, err := w.Float32(name, cfg.VocabSize, cfg.DModel)
		if err != nil {
			return err
		}
		other, err := w.Float32(alias, cfg.VocabSize, cfg.DModel)
		if err != nil {
			return err
		}
		if !slices.Equal(table, other) {
			return fmt.Errorf("tensors %s and %s differ, want one table for encoder and decoder", name, alias)
		}
	}
	return nil
}

// unusedBias is in published checkpoints of T5 v1.0, though no T5 computes with it. Transformers
// passes over it too.
const unusedBias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

// CheckNames refuses a checkpoint with tensors that the architecture has no place for: it is
// another model than its config.json says.
func CheckNames(cfg Config, names []string) error {
	known := map[string]bool{unusedBias: true}
	for _, p := range cfg.Parameters(false) {
		known[p.Name] = true
	}
	for _, alias := range tableAliases {
		known[alias] = true
	}
	var left []string
	for _, name := range names {
		if !known[name] {
			left = append(left, name)
		}
	}
	if len(left) == 0 {
		return nil
	}
	more := " is"
	if len(left) > 1 {
		more = fmt.Sprintf(" and %d others are", len(left)-1)
	}
	return fmt.Errorf("tensor %s%s left over, want only the tensors of the T5 that config.json describes",
		left[0], more)
}

// tableName is a checkpoint's name of the table that encoder and decoder share.
func tableName(w Weights) string {
	name := "shared.weight"
	for _, alias := range tableAliases {
		if !w.Has(name) && w.Has(alias) {
			name = alias
		}
	}
	return name
}

// embedding reads the table that encoder and decoder share, and the output projection: the
// checkpoint's own if it has one, else the same table. (Transformers does not tie a projection that
// the checkpoint holds.)
func (l *loader) embedding() (engine.Table, engine.Linear) {
	if l.err == nil {
		l.err = checkTables(l.cfg, l.w)
	}
	name := tableName(l.w)
	w := l.tensor(name, l.cfg.VocabSize, l.cfg.DModel)
	if l.err != nil {
		return nil, nil
	}
	table, err := l.eng.NewTable(l.cfg.VocabSize, l.cfg.DModel, w)
	l.keep(name, err)
	if l.err != nil {
		return nil, nil
	}
	if l.w.Has("lm_head.weight") {
		return table, l.linear(l.cfg.VocabSize, l.cfg.DModel, false, "lm_head.weight")
	}
	head, err := l.eng.TableLinear(table)
	l.keep(name, err)
	return table, head
}
