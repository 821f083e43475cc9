// Package t5 is T5 (Raffel et al., 2020), versions 1.0 and 1.1, frozen, behind a soft prompt:
// forward, the gradient of the loss with respect to the prompt, and greedy decoding. It computes
// what Transformers' modeling_t5.py computes, without dropout.
//
// An example's encoder input is the c prompt rows followed by its embedded source tokens. The
// examples of a call are one ragged matrix, row after row without padding; only attention needs to
// know where they begin (see package engine).
//
// # The computation
//
// Pre-norm residual sublayers. Adding a sublayer's output to the residual stream x is fused into
// the next sublayer's norm:
//
//	encoder layer:  x += o(attention(qkv(norm(x))))      bias by distance, all keys
//	                x += wo(act(wi(norm(x))))
//	decoder layer:  x += o(attention(qkv(norm(x))))      bias by distance, keys so far
//	                x += o(attention(q(norm(x)), kv(encoder output)))
//	                x += wo(act(wi(norm(x))))
//	loss:           cross-entropy of head(norm(x)) against the target, at target positions
//
// For short targets the cross-attention is computed by absorption. As q·k = q·(W_k·enc) =
// (W_kᵀ·q)·enc, it multiplies the queries with W_k, and their weighted sums of the encoder's
// output with W_v, instead of that output at all its positions. It is the same in exact arithmetic.
//
// Backward runs the same in reverse, from the losses through the decoder's cross-attention to the
// encoder's output, then through the encoder to the prompt rows. As weights are frozen, it needs no
// linear layer's input, and it stops where only embeddings are left.
package t5

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// Pair is one example: token ids of the source and of the target, both ending with </s>.
type Pair struct{ Source, Target []int32 }

// Model is a frozen T5 on an engine. One goroutine at a time may use it; its memory is reused from
// call to call.
type Model struct {
	cfg Config
	eng engine.Engine
	opt Options

	embed       engine.Table
	encoder     []encoderLayer
	encoderNorm engine.Gain
	decoder     []decoderLayer
	decoderNorm engine.Gain
	head        engine.Linear

	// Workspaces, by how long their tensors live.
	call    engine.Workspace    // a call, of several passes: the prompt and its gradients
	batch   engine.Workspace    // a pass: inputs, indexes, the encoder's output
	layers  [2]engine.Workspace // see layerSpace
	tmp     engine.Workspace    // a sublayer
	pending engine.Workspace    // until the next sublayer: the stream's delta
	grads   engine.Workspace    // backward: gradients that travel down the stacks
	cache   engine.Workspace    // decoding: keys and values

	promptIn     promptInput
	savedEncoder []encoderSaved
	savedDecoder []decoderSaved
	host         hostBuffers
}

// Options of New. The zero value is the fastest and has no bound on memory.
type Options struct {
	// MaxElems is about the most numbers that a pass keeps in memory. A call whose batch needs more
	// is computed in several passes, each of at least one example. The bits of its results do not
	// depend on that. 0 is no bound.
	MaxElems int
	// NoAbsorption projects the encoder's output to keys and values in every decoder layer, however
	// short the targets are.
	NoAbsorption bool
	// NoFirstLayer treats the first encoder layer like the others, without the savings of
	// firstAttentionForward and encoderBackward.
	NoFirstLayer bool
	// PadTargets projects every target of a pass with losses to the vocabulary, and back, with as
	// many rows as the longest has.
	PadTargets bool
}

// New loads a T5 into eng.
func New(eng engine.Engine, cfg Config, w Weights, opt Options) (*Model, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if opt.MaxElems < 0 {
		return nil, fmt.Errorf("a bound of %d numbers, want 0 or more", opt.MaxElems)
	}
	m := &Model{
		cfg:          cfg,
		eng:          eng,
		opt:          opt,
		call:         eng.NewWorkspace(),
		batch:        eng.NewWorkspace(),
		layers:       [2]engine.Workspace{eng.NewWorkspace(), eng.NewWorkspace()},
		tmp:          eng.NewWorkspace(),
		pending:      eng.NewWorkspace(),
		cache:        eng.NewWorkspace(),
		grads:        eng.NewWorkspace(),
		savedEncoder: make([]encoderSaved, cfg.NumLayers),
		savedDecoder: make([]decoderSaved, cfg.NumDecoderLayers),
	}
	l := &loader{eng: eng, cfg: cfg, opt: opt, w: w}
	m.embed, m.head = l.embedding()
	for i := range cfg.NumLayers {
		p := fmt.Sprintf("encoder.block.%d.layer.", i)
		m.encoder = append(m.encoder, encoderLayer{self: l.selfAttention(p + "0."), ff: l.feedForward(p + "1.")})
		m.encoder[i].self.bias = l.bias("encoder", i, m.encoder[0].self.bias)
	}
	m.encoderNorm = l.gain("encoder.final_layer_norm.weight")
	for i := range cfg.NumDecoderLayers {
		p := fmt.Sprintf("decoder.block.%d.layer.", i)
		m.decoder = append(m.decoder, decoderLayer{
			self:  l.selfAttention(p + "0."),
			cross: l.crossAttention(p + "1."),
			ff:    l.feedForward(p + "2."),
		})
		m.decoder[i].self.bias = l.bias("decoder", i, m.decoder[0].self.bias)
	}
	m.decoderNorm = l.gain("decoder.final_layer_norm.weight")
	if l.err != nil {
		return nil, l.err
	}
	return m, nil
}

// Config returns the architecture.
func (m *Model) Config() Config { return m.cfg }

// layerSpace is the workspace for tensors of layer i that outlive it: when training until the
// backward pass, else only until the layer after next, which reuses the memory.
func (m *Model) layerSpace(i int, train bool) engine.Workspace {
	if train {
		return m.layers[0]
	}
	ws := m.layers[i%2]
	ws.Reset()
	return ws
}

// part tells an engine that is an Observer which part of a call comes next.
func (m *Model) part(name string) {
	if o, ok := m.eng.(engine.Observer); ok {
		o.Part(name)
	}
}
