package t5

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Config is the architecture of a T5, as Transformers' config.json describes it.
type Config struct {
	ModelType         string // "t5", "mt5" or "umt5"
	VocabSize         int
	DModel            int
	DKV               int // size of one head; NumHeads·DKV need not be DModel
	DFF               int
	NumLayers         int
	NumDecoderLayers  int
	NumHeads          int
	RelativeBuckets   int
	RelativeDistance  int
	LayerNormEpsilon  float64
	GatedGELU         bool // v1.1's feed-forward; v1.0's is ReLU
	GatedSiLU         bool // UL2's feed-forward
	LayerBiases       bool // every layer has a relative attention bias of its own, as in UMT5
	ScaleOutput       bool // multiply the decoder's output by DModel^-0.5 before the output projection, as v1.0 does
	PadTokenID        int32
	EOSTokenIDs       []int32 // generation stops at any of them
	DecoderStartToken int32
}

// configJSON is config.json. Pointers tell an absent field from a zero.
type configJSON struct {
	ModelType        *string         `json:"model_type"`
	VocabSize        *int            `json:"vocab_size"`
	DModel           *int            `json:"d_model"`
	DKV              *int            `json:"d_kv"`
	DFF              *int            `json:"d_ff"`
	NumLayers        *int            `json:"num_layers"`
	NumDecoderLayers *int            `json:"num_decoder_layers"`
	NumHeads         *int            `json:"num_heads"`
	Buckets          *int            `json:"relative_attention_num_buckets"`
	MaxDistance      *int            `json:"relative_attention_max_distance"`
	Epsilon          *float64        `json:"layer_norm_epsilon"`
	FeedForward      *string         `json:"feed_forward_proj"`
	DenseAct         *string         `json:"dense_act_fn"`
	IsGated          *bool           `json:"is_gated_act"`
	Tie              *bool           `json:"tie_word_embeddings"`
	Scale            *bool           `json:"scale_decoder_outputs"`
	Pad              *int32          `json:"pad_token_id"`
	EOS              json.RawMessage `json:"eos_token_id"`
	DecoderStart     *int32          `json:"decoder_start_token_id"`
	Quantization     json.RawMessage `json:"quantization_config"`
}

// ParseConfig reads a config.json. Absent fields take Transformers' defaults for the model type
// (configuration_t5.py, configuration_mt5.py), except the sizes vocab_size, d_model, d_kv, d_ff,
// num_layers and num_heads, which must be present.
func ParseConfig(data []byte) (Config, error) {
	var j configJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return Config{}, fmt.Errorf("parse config: %w", err)
	}
	if q := string(j.Quantization); q != "" && q != "null" {
		return Config{}, fmt.Errorf("config: quantization_config is %.60s, want the weights as they were before", q)
	}
	c := Config{
		RelativeBuckets:  valueOr(j.Buckets, 32),
		RelativeDistance: valueOr(j.MaxDistance, 128),
		LayerNormEpsilon: valueOr(j.Epsilon, 1e-6),
		PadTokenID:       valueOr(j.Pad, 0),
	}
	defaultFF := "relu"
	switch c.ModelType = valueOr(j.ModelType, ""); c.ModelType {
	case "t5":
	case "mt5":
		defaultFF = "gated-gelu"
	case "umt5":
		defaultFF, c.LayerBiases = "gated-gelu", true
	default:
		return Config{}, fmt.Errorf("config: model_type is %q, want \"t5\", \"mt5\" or \"umt5\"", c.ModelType)
	}
	for _, f := range []struct {
		name string
		from *int
		to   *int
	}{
		{"vocab_size", j.VocabSize, &c.VocabSize},
		{"d_model", j.DModel, &c.DModel},
		{"d_kv", j.DKV, &c.DKV},
		{"d_ff", j.DFF, &c.DFF},
		{"num_layers", j.NumLayers, &c.NumLayers},
		{"num_heads", j.NumHeads, &c.NumHeads},
	} {
		if f.from == nil {
			return Config{}, fmt.Errorf("config: %s is missing", f.name)
		}
		*f.to = *f.from
	}
	c.NumDecoderLayers = valueOr(j.NumDecoderLayers, c.NumLayers)
	c.DecoderStartToken = valueOr(j.DecoderStart, c.PadTokenID)

	var err error
	if c.GatedGELU, c.GatedSiLU, err = parseActivation(j, defaultFF); err != nil {
		return Config{}, err
	}
	if c.EOSTokenIDs, err = parseEOS(j.EOS); err != nil {
		return Config{}, err
	}
	// T5 v1.0 scaled and tied; v1.1 neither, which old files say by tie_word_embeddings alone.
	// Transformers 5 writes tie_word_embeddings true for both and keeps the difference in
	// scale_decoder_outputs. mT5 never scales. UMT5 goes by tie_word_embeddings alone.
	c.ScaleOutput = c.ModelType != "mt5" && valueOr(j.Scale, valueOr(j.Tie, true))
	return c, c.Validate()
}

func valueOr[T any](p *T, otherwise T) T {
	if p != nil {
		return *p
	}
	return otherwise
}

// parseActivation reads the form of the feed-forward layer. As in Transformers, dense_act_fn and
// is_gated_act, if present, override feed_forward_proj.
func parseActivation(j configJSON, defaultFF string) (gatedGELU, gatedSiLU bool, err error) {
	ff := valueOr(j.FeedForward, defaultFF)
	act, gated := strings.CutPrefix(ff, "gated-")
	switch {
	case gated && (act == "gelu" || act == "gelu_new"):
		act = "gelu_new"
	case gated && isSiLU(act), !gated && act == "relu":
	default:
		return false, false, fmt.Errorf(
			"config: feed_forward_proj is %q, want \"relu\", \"gated-gelu\" or \"gated-silu\"", ff)
	}
	gated = valueOr(j.IsGated, gated)
	act = valueOr(j.DenseAct, act)
	switch {
	case gated && act == "gelu_new":
		return true, false, nil
	case gated && isSiLU(act):
		return false, true, nil
	case !gated && act == "relu":
		return false, false, nil
	case gated:
		return false, false, fmt.Errorf(
			"config: dense_act_fn of a gated feed-forward is %q, want \"gelu_new\" or \"silu\"", act)
	default:
		return false, false, fmt.Errorf("config: dense_act_fn is %q, want \"relu\"", act)
	}
}

// isSiLU reports whether act is one of Transformers' two names for SiLU.
func isSiLU(act string) bool { return act == "silu" || act == "swish" }

// parseEOS reads one id, a list of ids, or nothing (1).
func parseEOS(raw json.RawMessage) ([]int32, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return []int32{1}, nil
	}
	var id int32
	if err := json.Unmarshal(raw, &id); err == nil {
		return []int32{id}, nil
	}
	var ids []int32
	if err := json.Unmarshal(raw, &ids); err != nil || len(ids) == 0 {
		return nil, fmt.Errorf("config: eos_token_id is %s, want an id or a list of ids", raw)
	}
	return ids, nil
}

// maxSize bounds every size, so that a product of two never overflows.
const maxSize = 1 << 24

// Validate returns an error about a field that no T5 can have.
func (c Config) Validate() error {
	for _, f := range []struct {
		name  string
		value int
		least int
	}{
		{"vocab_size", c.VocabSize, 2},
		{"d_model", c.DModel, 1},
		{"d_kv", c.DKV, 1},
		{"d_ff", c.DFF, 1},
		{"num_layers", c.NumLayers, 1},
		{"num_decoder_layers", c.NumDecoderLayers, 1},
		{"num_heads", c.NumHeads, 1},
		// The bidirectional encoder halves the buckets and halves again for the exact ones; one of
		// each is the least.
		{"relative_attention_num_buckets", c.RelativeBuckets, 4},
		{"relative_attention_max_distance", c.RelativeDistance, 2},
	} {
		if f.value < f.least || f.value > maxSize {
			return fmt.Errorf("config: %s is %d, want %d to %d", f.name, f.value, f.least, maxSize)
		}
	}
	// Beyond the exact buckets the rest are spaced logarithmically up to the distance, which must
	// leave them room.
	if c.RelativeDistance <= c.RelativeBuckets/2 {
		return fmt.Errorf(
			"config: relative_attention_max_distance is %d, want more than half of relative_attention_num_buckets %d",
			c.RelativeDistance, c.RelativeBuckets)
	}
	if c.GatedGELU && c.GatedSiLU {
		return errors.New("config: the feed-forward is gated by GELU and by SiLU, want one of them")
	}
	if !(c.LayerNormEpsilon > 0) {
		return fmt.Errorf("config: layer_norm_epsilon is %v, want more than 0", c.LayerNormEpsilon)
	}
	ids := append([]int32{c.PadTokenID, c.DecoderStartToken}, c.EOSTokenIDs...)
	for i, id := range ids {
		if id < 0 || int(id) >= c.VocabSize {
			name := "eos_token_id"
			if i < 2 {
				name = []string{"pad_token_id", "decoder_start_token_id"}[i]
			}
			return fmt.Errorf("config: %s is %d, want one in [0, vocab_size %d)", name, id, c.VocabSize)
		}
	}
	return nil
}

// gated reports whether the feed-forward multiplies its activation with a linear part.
func (c Config) gated() bool { return c.GatedGELU || c.GatedSiLU }

// inner is the width of queries, keys and values: all heads side by side.
func (c Config) inner() int { return c.NumHeads * c.DKV }

// isEOS reports whether id ends a generated text.
func (c Config) isEOS(id int32) bool {
	for _, e := range c.EOSTokenIDs {
		if id == e {
			return true
		}
	}
	return false
}
