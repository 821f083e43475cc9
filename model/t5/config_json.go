package t5

import (
	"bytes"
	"encoding/json"
)

// written is a config.json as Transformers writes it for a T5, in its order.
type written struct {
	Architectures     []string `json:"architectures"`
	DFF               int      `json:"d_ff"`
	DKV               int      `json:"d_kv"`
	DModel            int      `json:"d_model"`
	DecoderStartToken int32    `json:"decoder_start_token_id"`
	DenseAct          string   `json:"dense_act_fn"`
	Dropout           float64  `json:"dropout_rate"`
	DType             string   `json:"dtype"`
	EOS               any      `json:"eos_token_id"`
	FeedForward       string   `json:"feed_forward_proj"`
	IsEncoderDecoder  bool     `json:"is_encoder_decoder"`
	IsGated           bool     `json:"is_gated_act"`
	Epsilon           float64  `json:"layer_norm_epsilon"`
	ModelType         string   `json:"model_type"`
	NumDecoderLayers  int      `json:"num_decoder_layers"`
	NumHeads          int      `json:"num_heads"`
	NumLayers         int      `json:"num_layers"`
	Pad               int32    `json:"pad_token_id"`
	MaxDistance       int      `json:"relative_attention_max_distance"`
	Buckets           int      `json:"relative_attention_num_buckets"`
	Scale             bool     `json:"scale_decoder_outputs"`
	Tie               bool     `json:"tie_word_embeddings"`
	UseCache          bool     `json:"use_cache"`
	VocabSize         int      `json:"vocab_size"`
}

// JSON is a config.json that ParseConfig reads as c, and that Transformers reads as the same model.
// tied says that the output projection is the embedding table; dtype is the type of the stored
// weights, as torch names it.
func (c Config) JSON(tied bool, dtype string) ([]byte, error) {
	w := written{
		Architectures:     []string{"T5ForConditionalGeneration"},
		DFF:               c.DFF,
		DKV:               c.DKV,
		DModel:            c.DModel,
		DecoderStartToken: c.DecoderStartToken,
		DenseAct:          "relu",
		FeedForward:       "relu",
		DType:             dtype,
		EOS:               c.EOSTokenIDs,
		IsEncoderDecoder:  true,
		IsGated:           c.gated(),
		Epsilon:           c.LayerNormEpsilon,
		ModelType:         c.ModelType,
		NumDecoderLayers:  c.NumDecoderLayers,
		NumHeads:          c.NumHeads,
		NumLayers:         c.NumLayers,
		Pad:               c.PadTokenID,
		MaxDistance:       c.RelativeDistance,
		Buckets:           c.RelativeBuckets,
		Scale:             c.ScaleOutput,
		Tie:               tied,
		UseCache:          true,
		VocabSize:         c.VocabSize,
	}
	switch c.ModelType {
	case "mt5":
		w.Architectures[0] = "MT5ForConditionalGeneration"
	case "umt5":
		w.Architectures[0] = "UMT5ForConditionalGeneration"
	}
	if c.GatedGELU {
		w.DenseAct, w.FeedForward = "gelu_new", "gated-gelu"
	}
	if c.GatedSiLU {
		w.DenseAct, w.FeedForward = "silu", "gated-silu"
	}
	if len(c.EOSTokenIDs) == 1 {
		w.EOS = c.EOSTokenIDs[0]
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(w)
	return b.Bytes(), err
}
