// Package t5 is T5 (Raffel et al., 2020), versions 1.0 and 1.1, frozen, behind a soft prompt: forward, the
// gradient of the loss with respect to the prompt, and greedy decoding. It computes what Transformers'
// modeling_t5.py computes, without dropout.
//
// An example's encoder input is the c prompt rows followed by its embedded source tokens. The examples of a call are
// one ragged matrix, row after row without padding; attention alone looks at their borders (see package engine).
//
// # The computation
//
// Pre-norm residual sublayers. Adding a sublayer's output to the residual stream x is fused into the next sublayer's norm:
//
//	encoder layer:  x += o(attention(qkv(norm(x))))      bias by distance, all keys
//	                x += wo(act(wi(norm(x))))
//	decoder layer:  x += o(attention(qkv(norm(x))))      bias by distance, keys so far
//	                x += o(attention(q(norm(x)), kv(encoder output)))
//	                x += wo(act(wi(norm(x))))
//	loss:           cross-entropy of head(norm(x)) against the target, at target positions
//
// Backward goes through the same in reverse, from the losses to the encoder's output by way of the decoder's cross-attention, then through
// the encoder to the prompt rows. Weights are frozen, so it saves no linear layer's input; and it stops where only embeddings are left.
package t5

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// Pair is one example: token ids of the source and of the target, both ending with </s>.
type Pair struct{ Source, Target []int32 }

// Model is a frozen T5 on an engine. One goroutine at a time may use it; its memory is reused from call to call.
type Model struct {
	cfg Config
	eng engine.Engine

	embed       engine.Table
	encoder     []encoderLayer
	encoderBias engine.Bias
	encoderNorm engine.Gain
	decoder     []decoderLayer
	decoderBias engine.Bias
	decoderNorm engine.Gain
	head        engine.Linear

	// batch holds what a whole call needs: inputs, indexes, the encoder's output. Sublayers keep what lives past them in layers and the rest
	// in tmp. grads holds gradients that travel down the stacks.
	batch   engine.Workspace
	layers  [2]engine.Workspace
	tmp     engine.Workspace
	pending engine.Workspace // the stream's delta
	grads   engine.Workspace
	cache   engine.Workspace // keys and values while generating

	savedEncoder []encoderSaved
	savedDecoder []decoderSaved
	host         hostBuffers
}

// New loads a T5 into eng.
func New(eng engine.Engine, cfg Config, w Weights) (*Model, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Model{
		cfg:          cfg,
		eng:          eng,
		batch:        eng.NewWorkspace(),
		layers:       [2]engine.Workspace{eng.NewWorkspace(), eng.NewWorkspace()},
		tmp:          eng.NewWorkspace(),
		pending:      eng.NewWorkspace(),
		cache:        eng.NewWorkspace(),
		grads:        eng.NewWorkspace(),
		savedEncoder: make([]encoderSaved, cfg.NumLayers),
		savedDecoder: make([]decoderSaved, cfg.NumDecoderLayers),
	}
	l := &loader{eng: eng, cfg: cfg, w: w}
	m.embed, m.head = l.embedding()
	for i := range cfg.NumLayers {
		p := fmt.Sprintf("encoder.block.%d.layer.", i)
		m.encoder = append(m.encoder, encoderLayer{self: l.selfAttention(p + "0."), ff: l.feedForward(p + "1.")})
	}
	m.encoderBias = l.bias("encoder", true)
	m.encoderNorm = l.gain("encoder.final_layer_norm.weight")
	for i := range cfg.NumDecoderLayers {
		p := fmt.Sprintf("decoder.block.%d.layer.", i)
		m.decoder = append(m.decoder, decoderLayer{self: l.selfAttention(p + "0."), cross: l.crossAttention(p + "1."), ff: l.feedForward(p + "2.")})
	}
	m.decoderBias = l.bias("decoder", false)
	m.decoderNorm = l.gain("decoder.final_layer_norm.weight")
	if l.err != nil {
		return nil, l.err
	}
	return m, nil
}

// Config returns the architecture.
func (m *Model) Config() Config { return m.cfg }

// layerSpace is where layer i keeps what outlives it: everything until the backward pass when training, else only until the
// layer after next, which takes the memory over.
func (m *Model) layerSpace(i int, train bool) engine.Workspace {
	if train {
		return m.layers[0]
	}
	ws := m.layers[i%2]
	ws.Reset()
	return ws
}
