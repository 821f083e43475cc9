package t5

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// v10Config is the config.json of google-t5/t5-small as far as it is read.
const v10Config = `{"model_type":"t5","vocab_size":32128,"d_model":512,"d_kv":64,"d_ff":2048,
	"num_layers":6,"num_heads":8,"relative_attention_num_buckets":32,"layer_norm_epsilon":1e-06,
	"pad_token_id":0,"eos_token_id":1,"decoder_start_token_id":0,
	"n_positions":512,"task_specific_params":{"summarization":{"num_beams":4}}}`

// with is v10Config with fields replaced, or deleted if nil.
func with(fields map[string]any) []byte {
	var m map[string]any
	if err := json.Unmarshal([]byte(v10Config), &m); err != nil {
		panic(err)
	}
	for k, v := range fields {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

func TestParseConfig(t *testing.T) {
	type f = map[string]any
	small := Config{
		ModelType:        "t5",
		VocabSize:        32128,
		DModel:           512,
		DKV:              64,
		DFF:              2048,
		NumLayers:        6,
		NumDecoderLayers: 6,
		NumHeads:         8,
		RelativeBuckets:  32,
		RelativeDistance: 128,
		LayerNormEpsilon: 1e-6,
		ScaleOutput:      true,
		EOSTokenIDs:      []int32{1},
	}
	changed := func(change func(*Config)) Config {
		c := small
		c.EOSTokenIDs = []int32{1}
		change(&c)
		return c
	}
	for _, c := range []struct {
		name   string
		fields f
		want   Config
	}{
		{"v1.0", nil, small},
		{"v1.1 as published", f{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "d_ff": 1024},
			changed(func(c *Config) { c.GatedGELU, c.ScaleOutput, c.DFF = true, false, 1024 })},
		{"v1.1 as Transformers 5 writes it",
			f{
				"feed_forward_proj":     "gated-gelu",
				"tie_word_embeddings":   true,
				"scale_decoder_outputs": false,
				"is_gated_act":          true,
				"dense_act_fn":          "gelu_new",
			},
			changed(func(c *Config) { c.GatedGELU, c.ScaleOutput = true, false })},
		{"mT5", f{"model_type": "mt5", "tie_word_embeddings": true},
			changed(func(c *Config) { c.ModelType, c.GatedGELU, c.ScaleOutput = "mt5", true, false })},
		{"UMT5", f{"model_type": "umt5", "tie_word_embeddings": false}, changed(func(c *Config) {
			c.ModelType, c.GatedGELU, c.LayerBiases, c.ScaleOutput = "umt5", true, true, false
		})},
		{"UL2", f{"feed_forward_proj": "gated-silu", "tie_word_embeddings": false},
			changed(func(c *Config) { c.GatedSiLU, c.ScaleOutput = true, false })},
		{"UL2 as Transformers 5 writes it",
			f{"feed_forward_proj": "gated-silu", "dense_act_fn": "silu", "is_gated_act": true},
			changed(func(c *Config) { c.GatedSiLU = true })},
		{"an activation beside the form", f{"feed_forward_proj": "gated-gelu", "dense_act_fn": "swish"},
			changed(func(c *Config) { c.GatedSiLU = true })},
		{"more decoder layers", f{"num_decoder_layers": 12}, changed(func(c *Config) { c.NumDecoderLayers = 12 })},
		{"null decoder layers", f{"num_decoder_layers": json.RawMessage("null")}, small},
		{"several ends", f{"eos_token_id": []int{1, 7}}, changed(func(c *Config) { c.EOSTokenIDs = []int32{1, 7} })},
		{"start from pad", f{"decoder_start_token_id": nil, "pad_token_id": 3},
			changed(func(c *Config) { c.PadTokenID, c.DecoderStartToken = 3, 3 })},
		{"distance", f{"relative_attention_max_distance": 64, "relative_attention_num_buckets": 16},
			changed(func(c *Config) { c.RelativeDistance, c.RelativeBuckets = 64, 16 })},
	} {
		got, err := ParseConfig(with(c.fields))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v (%v), want %+v", c.name, got, err, c.want)
		}
	}
	for _, c := range []struct {
		fields f
		want   string
	}{
		{f{"model_type": "bart"}, `model_type is "bart", want "t5", "mt5" or "umt5"`},
		{f{"model_type": nil}, `model_type is "", want "t5", "mt5" or "umt5"`},
		{f{"feed_forward_proj": "gated-relu"},
			`feed_forward_proj is "gated-relu", want "relu", "gated-gelu" or "gated-silu"`},
		{f{"feed_forward_proj": "silu"}, `feed_forward_proj is "silu", want "relu", "gated-gelu" or "gated-silu"`},
		{f{"dense_act_fn": "gelu"}, `dense_act_fn is "gelu", want "relu"`},
		{f{"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"},
			`dense_act_fn of a gated feed-forward is "gelu", want "gelu_new" or "silu"`},
		{f{"quantization_config": f{"load_in_8bit": true}}, `quantization_config is {"load_in_8bit":true}, want`},
		{f{"d_model": nil}, "d_model is missing"},
		{f{"d_kv": 0}, "d_kv is 0, want 1"},
		{f{"num_layers": 1 << 40}, "num_layers is"},
		{f{"num_heads": "8"}, "parse config"},
		{f{"eos_token_id": "x"}, `eos_token_id is "x"`},
		{f{"eos_token_id": []int{}}, "eos_token_id is []"},
		{f{"eos_token_id": 40000}, "eos_token_id is 40000, want one in [0, vocab_size 32128)"},
		{f{"decoder_start_token_id": -1}, "decoder_start_token_id is -1"},
		{f{"layer_norm_epsilon": 0}, "layer_norm_epsilon is 0"},
		{f{"relative_attention_max_distance": 16}, "relative_attention_max_distance is 16, want more than half"},
	} {
		if _, err := ParseConfig(with(c.fields)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: error %v, want %q", c.fields, err, c.want)
		}
	}
}

// FuzzParseConfig: any input gives an error or a config that Validate accepts.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(v10Config))
	f.Add(with(map[string]any{"feed_forward_proj": "gated-gelu", "eos_token_id": []int{1, 2}}))
	f.Add([]byte("{}"))
	for _, v := range []string{"v10", "v11"} {
		data, err := os.ReadFile(filepath.Join("..", "parity", "testdata", v, "config.json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err == nil && c.Validate() != nil {
			t.Errorf("parsed %+v, which is invalid: %v", c, c.Validate())
		}
	})
}

func TestConfigJSON(t *testing.T) {
	for _, gated := range []bool{false, true} {
		for _, eos := range [][]int32{{1}, {1, 5}} {
			c := oddConfig(gated)
			c.EOSTokenIDs = eos
			c.GatedGELU, c.GatedSiLU = gated && len(eos) == 1, gated && len(eos) > 1
			data, err := c.JSON(!gated, "float32")
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseConfig(data)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c) {
				t.Errorf("read back as %+v, want %+v", got, c)
			}
		}
	}
}
