// Package weights makes the tiny model's files from a seed.
package weights

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/prompt/gauss"
)

// seed of the random weights.
const seed = 1

// config is a config.json as Transformers writes it for a T5, in its order.
type config struct {
	Architectures       []string `json:"architectures"`
	ClassifierDropout   float64  `json:"classifier_dropout"`
	DFF                 int      `json:"d_ff"`
	DKV                 int      `json:"d_kv"`
	DModel              int      `json:"d_model"`
	DecoderStartTokenID int      `json:"decoder_start_token_id"`
	DenseActFn          string   `json:"dense_act_fn"`
	DropoutRate         float64  `json:"dropout_rate"`
	DType               string   `json:"dtype"`
	EOSTokenID          int      `json:"eos_token_id"`
	FeedForwardProj     string   `json:"feed_forward_proj"`
	InitializerFactor   float64  `json:"initializer_factor"`
	IsEncoderDecoder    bool     `json:"is_encoder_decoder"`
	IsGatedAct          bool     `json:"is_gated_act"`
	LayerNormEpsilon    float64  `json:"layer_norm_epsilon"`
	ModelType           string   `json:"model_type"`
	NumDecoderLayers    int      `json:"num_decoder_layers"`
	NumHeads            int      `json:"num_heads"`
	NumLayers           int      `json:"num_layers"`
	PadTokenID          int      `json:"pad_token_id"`
	MaxDistance         int      `json:"relative_attention_max_distance"`
	NumBuckets          int      `json:"relative_attention_num_buckets"`
	TieWordEmbeddings   bool     `json:"tie_word_embeddings"`
	UseCache            bool     `json:"use_cache"`
	VocabSize           int      `json:"vocab_size"`
}

var tiny = config{
	Architectures:     []string{"T5ForConditionalGeneration"},
	DFF:               192,
	DKV:               16,
	DModel:            64,
	DenseActFn:        "relu",
	DropoutRate:       0.1,
	DType:             "float32",
	EOSTokenID:        1,
	FeedForwardProj:   "relu",
	InitializerFactor: 1.5,
	IsEncoderDecoder:  true,
	LayerNormEpsilon:  1e-6,
	ModelType:         "t5",
	NumDecoderLayers:  2,
	NumHeads:          4,
	NumLayers:         2,
	MaxDistance:       128,
	NumBuckets:        32,
	TieWordEmbeddings: true,
	UseCache:          true,
	VocabSize:         384,
}

// tokenizer is a tokenizer_config.json for ByT5: three special tokens, 256
// bytes, 125 extra ids.
var tokenizer = struct {
	EOS      string `json:"eos_token"`
	ExtraIDs int    `json:"extra_ids"`
	Pad      string `json:"pad_token"`
	Class    string `json:"tokenizer_class"`
	Unk      string `json:"unk_token"`
}{"</s>", 125, "<pad>", "ByT5Tokenizer", "<unk>"}

// Files returns the files of the model directory by name. They depend on
// nothing but this package.
func Files() (map[string][]byte, error) {
	model, err := checkpoint.Encode(tensors(tiny), map[string]string{"format": "pt"})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"model.safetensors": model}
	for name, v := range map[string]any{"config.json": tiny, "tokenizer_config.json": tokenizer} {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		files[name] = buf.Bytes()
	}
	return files, nil
}

// tensors returns the weights of a T5 v1.0 as Transformers names and
// initializes them (T5PreTrainedModel._init_weights). The output projection is
// tied to the embeddings and so is not among them.
func tensors(c config) []checkpoint.Tensor {
	b := builder{factor: c.InitializerFactor}
	dModel, inner, dFF := float64(c.DModel), c.NumHeads*c.DKV, float64(c.DFF)
	attention := func(prefix string, bias bool) {
		b.normal(prefix+".q.weight", 1/math.Sqrt(dModel*float64(c.DKV)), inner, c.DModel)
		b.normal(prefix+".k.weight", 1/math.Sqrt(dModel), inner, c.DModel)
		b.normal(prefix+".v.weight", 1/math.Sqrt(dModel), inner, c.DModel)
		b.normal(prefix+".o.weight", 1/math.Sqrt(float64(inner)), c.DModel, inner)
		if bias {
			b.normal(prefix+".relative_attention_bias.weight", 1/math.Sqrt(dModel), c.NumBuckets, c.NumHeads)
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

// builder collects tensors; factor scales all of them.
type builder struct {
	factor  float64
	tensors []checkpoint.Tensor
}

// normal adds a rows×cols matrix of draws from N(0, (factor·std)²), each tensor
// from a stream of its own.
func (b *builder) normal(name string, std float64, rows, cols int) {
	v := make([]float32, rows*cols)
	gauss.New(seed, "tiny/"+name).Fill(v, float64(b.factor*std))
	b.tensors = append(b.tensors, checkpoint.F32(name, []int{rows, cols}, v))
}

// ones adds a norm's weight: factor everywhere.
func (b *builder) ones(name string, n int) {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(b.factor)
	}
	b.tensors = append(b.tensors, checkpoint.F32(name, []int{n}, v))
}
