package t5

import (
	"encoding/json"
	"fmt"
	"slices"
)

// neutral are the settings of Transformers' generate that change which tokens greedy decoding
// chooses, with the values that do not, beside null. How many beams there are, whether tokens are
// drawn and how long an output may be is not among them: the caller decides that.
var neutral = []struct {
	field  string
	values []string
}{
	{"bad_words_ids", []string{"[]"}},
	{"begin_suppress_tokens", []string{"[]"}},
	{"encoder_no_repeat_ngram_size", []string{"0"}},
	{"encoder_repetition_penalty", []string{"1", "1.0"}},
	{"exponential_decay_length_penalty", nil},
	{"forced_bos_token_id", nil},
	{"forced_decoder_ids", []string{"[]"}},
	{"forced_eos_token_id", nil},
	{"guidance_scale", []string{"1", "1.0"}},
	{"min_length", []string{"0"}},
	{"min_new_tokens", []string{"0"}},
	{"no_repeat_ngram_size", []string{"0"}},
	{"repetition_penalty", []string{"1", "1.0"}},
	{"sequence_bias", []string{"[]", "{}"}},
	{"suppress_tokens", []string{"[]"}},
	{"watermarking_config", nil},
}

// CheckGeneration refuses a generation_config.json with which Transformers' greedy decoding would
// choose other tokens than Generate: one with other ends than config.json, or that changes
// logits. It does not look at decoder_start_token_id: published models (MADLAD-400) have another
// one there than in config.json, whose token targets begin with.
func CheckGeneration(c Config, data []byte) error {
	var settings map[string]json.RawMessage
	if err := json.Unmarshal(data, &settings); err != nil {
		return fmt.Errorf("generation_config.json: %w", err)
	}
	for _, n := range neutral {
		value := string(settings[n.field])
		if value != "" && value != "null" && !slices.Contains(n.values, value) {
			return fmt.Errorf(
				"generation_config.json: %s is %.40s, which greedy decoding here does not follow: remove it",
				n.field, value)
		}
	}
	var special struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	if err := json.Unmarshal(data, &special); err != nil {
		return fmt.Errorf("generation_config.json: %w", err)
	}
	if len(special.EOS) == 0 || string(special.EOS) == "null" {
		return nil
	}
	eos, err := parseEOS(special.EOS)
	if err != nil {
		return fmt.Errorf("generation_config.json: %w", err)
	}
	slices.Sort(eos)
	if want := slices.Sorted(slices.Values(c.EOSTokenIDs)); !slices.Equal(eos, want) {
		return fmt.Errorf("generation_config.json: eos_token_id is %v, want config.json's %v", eos, want)
	}
	return nil
}
