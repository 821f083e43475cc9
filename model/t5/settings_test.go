package t5

import (
	"strings"
	"testing"
)

func TestCheckGeneration(t *testing.T) {
	c := oddConfig(false)
	for _, taken := range []string{
		`{}`,
		`{"eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 5, "use_cache": true}`,
		`{"eos_token_id": [1], "num_beams": 4, "max_length": 200, "no_repeat_ngram_size": 0}`,
		`{"eos_token_id": null, "repetition_penalty": 1.0, "suppress_tokens": null}`,
	} {
		if err := CheckGeneration(c, []byte(taken)); err != nil {
			t.Errorf("%s: %v", taken, err)
		}
	}
	for refused, want := range map[string]string{
		`{"eos_token_id": 2}`:         "eos_token_id is [2], want config.json's [1]",
		`{"eos_token_id": [2, 1]}`:    "eos_token_id is [1 2], want config.json's [1]",
		`{"eos_token_id": "x"}`:       `eos_token_id is "x"`,
		`{"no_repeat_ngram_size": 3}`: "no_repeat_ngram_size is 3, which greedy decoding here does not follow",
		`{"forced_bos_token_id": 0}`:  "forced_bos_token_id is 0",
		`{"repetition_penalty": 1.2}`: "repetition_penalty is 1.2",
		`[]`:                          "generation_config.json: json: cannot unmarshal",
	} {
		if err := CheckGeneration(c, []byte(refused)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", refused, err, want)
		}
	}
}
