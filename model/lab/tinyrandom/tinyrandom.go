// Package tinyrandom is part of the lab, not of the trainer: it makes the T5 for tests that need
// any model rather than the embedded one. It is so small that a cluster's step takes milliseconds,
// and it stays the same when the embedded model changes.
//
// The model is a T5 v1.0 of two encoder and two decoder layers, d_model 64, with ByT5's byte-level
// vocabulary of 384, in the files that Transformers' save_pretrained writes. Its weights are
// random, drawn from a seed as Transformers initializes a T5 (the scheme of Mesh TensorFlow) with
// an initializer_factor of 1.5: at 1 the final norm leaves the logits so narrow that no prompt can
// bring the loss below about 2. Making it takes some milliseconds.
package tinyrandom

import (
	"fmt"
	"math"
	"os"
	"sync"
	"testing"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/internal/gauss"
	"github.com/dptune/dpt/model/t5"
)

// The model's shape, as far as tests need it.
const (
	DModel    = 64
	VocabSize = 384
)

const (
	seed   = 1
	factor = 1.5 // Transformers' initializer_factor
)

// config is the architecture. The output projection is tied to the embeddings.
func config() t5.Config {
	return t5.Config{
		ModelType:        "t5",
		VocabSize:        VocabSize,
		DModel:           DModel,
		DKV:              16,
		DFF:              192,
		NumLayers:        2,
		NumDecoderLayers: 2,
		NumHeads:         4,
		RelativeBuckets:  32,
		RelativeDistance: 128,
		LayerNormEpsilon: 1e-6,
		ScaleOutput:      true,
		EOSTokenIDs:      []int32{1},
	}
}

// byteLevel is a tokenizer_config.json for ByT5: three special tokens, 256 bytes, 125 extra ids.
const byteLevel = `{
  "eos_token": "</s>",
  "extra_ids": 125,
  "pad_token": "<pad>",
  "tokenizer_class": "ByT5Tokenizer",
  "unk_token": "<unk>"
}
`

// made returns the weights, which it draws once in a process.
var made = sync.OnceValue(func() []checkpoint.Tensor { return tensors(config()) })

// write writes the model's directory: config.json, model.safetensors and tokenizer_config.json.
func write(dir string) error {
	encoded, err := config().JSON(true, "float32")
	if err != nil {
		return fmt.Errorf("encode config: %w", err)
	}
	return checkpoint.WriteModel(dir, encoded, made(), map[string][]byte{"tokenizer_config.json": []byte(byteLevel)})
}

// Dir writes the model into a temporary directory of the test and returns its path.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := write(dir); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// Main runs the tests of a TestMain with the model in a directory that they share. It sets dir to
// the directory's path before they run, and removes the directory afterwards.
func Main(m *testing.M, dir *string) (code int) {
	made, err := os.MkdirTemp("", "tiny-random-t5-")
	if err == nil {
		err = write(made)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "write the model for tests:", err)
		return 1
	}
	*dir = made
	code = m.Run()
	if err := os.RemoveAll(made); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// tensors returns the weights of a T5 v1.0 as Transformers names and initializes them
// (T5PreTrainedModel._init_weights). The output projection is tied to the embeddings and so is not
// among them.
func tensors(c t5.Config) []checkpoint.Tensor {
	var b builder
	dModel, inner, dFF := float64(c.DModel), c.NumHeads*c.DKV, float64(c.DFF)
	attention := func(prefix string, bias bool) {
		b.normal(prefix+".q.weight", 1/math.Sqrt(dModel*float64(c.DKV)), inner, c.DModel)
		b.normal(prefix+".k.weight", 1/math.Sqrt(dModel), inner, c.DModel)
		b.normal(prefix+".v.weight", 1/math.Sqrt(dModel), inner, c.DModel)
		b.normal(prefix+".o.weight", 1/math.Sqrt(float64(inner)), c.DModel, inner)
		if bias {
			b.normal(prefix+".relative_attention_bias.weight", 1/math.Sqrt(dModel), c.RelativeBuckets, c.NumHeads)
		}
	}
	stack := func(name string, layers int, cross bool) {
		for i := range layers {
			block := fmt.Sprintf("%s.block.%d.layer.", name, i)
			attention(block+"0.SelfAttention", i == 0)
			b.ones(block+"0.layer_norm.weight", c.DModel)
			mlp := "1"
			if cross {
				attention(block+"1.EncDecAttention", false)
				b.ones(block+"1.layer_norm.weight", c.DModel)
				mlp = "2"
			}
			b.normal(block+mlp+".DenseReluDense.wi.weight", 1/math.Sqrt(dModel), c.DFF, c.DModel)
			b.normal(block+mlp+".DenseReluDense.wo.weight", 1/math.Sqrt(dFF), c.DModel, c.DFF)
			b.ones(block+mlp+".layer_norm.weight", c.DModel)
		}
		b.ones(name+".final_layer_norm.weight", c.DModel)
	}
	b.normal("shared.weight", 1, c.VocabSize, c.DModel)
	stack("encoder", c.NumLayers, false)
	stack("decoder", c.NumDecoderLayers, true)
	return b.tensors
}

// builder collects tensors, scaled by factor.
type builder struct{ tensors []checkpoint.Tensor }

// normal adds a rows×cols matrix of draws from N(0, (factor·std)²), each tensor from a stream of
// its own.
func (b *builder) normal(name string, std float64, rows, cols int) {
	v := make([]float32, rows*cols)
	gauss.New(seed, "tiny/"+name).Fill(v, float64(factor*std))
	b.tensors = append(b.tensors, checkpoint.F32(name, []int{rows, cols}, v))
}

// ones adds a norm's weight: factor everywhere.
func (b *builder) ones(name string, n int) {
	v := make([]float32, n)
	for i := range v {
		v[i] = factor
	}
	b.tensors = append(b.tensors, checkpoint.F32(name, []int{n}, v))
}
