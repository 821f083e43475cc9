package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Names of the files of a PEFT adapter.
const (
	adapterConfig  = "adapter_config.json"
	adapterWeights = "adapter_model.safetensors"
	adapterTorch   = "adapter_model.bin" // as PEFT before 0.7 saved it
)

// adapter is the adapter_config.json of Hugging Face PEFT's prompt tuning.
// NumTransformerSubmodules is 1: the prompt goes before the encoder's input and
// the decoder has none. Its default for SEQ_2_SEQ_LM is 2.
type adapter struct {
	AutoMapping              *string `json:"auto_mapping"`
	BaseModel                *string `json:"base_model_name_or_path"` // nil if unknown
	InferenceMode            bool    `json:"inference_mode"`
	NumAttentionHeads        *int    `json:"num_attention_heads"`
	NumLayers                *int    `json:"num_layers"`
	NumTransformerSubmodules int     `json:"num_transformer_submodules"`
	NumVirtualTokens         int     `json:"num_virtual_tokens"`
	PEFTType                 string  `json:"peft_type"`
	PromptTuningInit         string  `json:"prompt_tuning_init"`
	PromptTuningInitText     *string `json:"prompt_tuning_init_text"`
	Revision                 *string `json:"revision"`
	TaskType                 string  `json:"task_type"`
	TokenDim                 int     `json:"token_dim"`
	Tokenizer                *string `json:"tokenizer_name_or_path"`
}

// ExportPEFT writes p into dir, which it creates, as a prompt-tuning adapter
// that PEFT's PeftModel.from_pretrained loads onto a T5ForConditionalGeneration:
// adapter_config.json and adapter_model.safetensors. baseModel names the model
// that the prompt belongs to, "" if it has no name; config is that model's config.json, from which
// the adapter takes the numbers of layers and heads. The weights are written
// before the configuration, without which PEFT finds no adapter.
func ExportPEFT(dir string, p Prompt, baseModel string, config []byte) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("export adapter %s: %w", dir, err)
	}
	var model struct {
		NumLayers *int `json:"num_layers"`
		NumHeads  *int `json:"num_heads"`
		DModel    int  `json:"d_model"`
	}
	if err := json.Unmarshal(config, &model); err != nil {
		return fmt.Errorf("export adapter %s: model configuration: %w", dir, err)
	}
	if model.DModel != p.Dim {
		return fmt.Errorf("export adapter %s: prompt has dimension %d, want the model's d_model %d",
			dir, p.Dim, model.DModel)
	}
	var base *string
	if baseModel != "" {
		base = &baseModel
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(adapter{
		BaseModel:                base,
		InferenceMode:            true,
		NumAttentionHeads:        model.NumHeads,
		NumLayers:                model.NumLayers,
		NumTransformerSubmodules: 1,
		NumVirtualTokens:         p.Length,
		PEFTType:                 "PROMPT_TUNING",
		PromptTuningInit:         "RANDOM",
		TaskType:                 "SEQ_2_SEQ_LM",
		TokenDim:                 p.Dim,
	}); err != nil {
		return fmt.Errorf("export adapter %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("export adapter %s: %w", dir, bareError(err))
	}
	weights := F32(tensorPEFT, []int{p.Length, p.Dim}, p.Embeddings)
	if err := Write(filepath.Join(dir, adapterWeights), []Tensor{weights},
		p.withMetadata(map[string]string{"format": "pt"})); err != nil {
		return err
	}
	return WriteFileAtomic(filepath.Join(dir, adapterConfig), buf.Bytes())
}

// readAdapterConfig reads the adapter_config.json in dir; nil if there is none. It refuses adapters
// of other methods than prompt tuning, whatever their tensors are.
func readAdapterConfig(dir string) (*adapter, error) {
	data, err := os.ReadFile(filepath.Join(dir, adapterConfig))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = checkLFS(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", adapterConfig, bareError(err))
	}
	var a adapter
	// Fields of other methods may have other types: the method is told first.
	var method struct {
		PEFTType string `json:"peft_type"`
	}
	if err := json.Unmarshal(data, &method); err != nil {
		return nil, fmt.Errorf("%s: %w", adapterConfig, err)
	}
	if method.PEFTType != "PROMPT_TUNING" {
		return nil, fmt.Errorf("%s: peft_type %q, want %q: adapters of other methods are no soft prompt",
			adapterConfig, method.PEFTType, "PROMPT_TUNING")
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("%s: %w", adapterConfig, err)
	}
	return &a, nil
}

// encoderRows cuts a prompt read from PEFT's prompt_embeddings to the rows that
// PEFT puts before the encoder's input. By default PEFT also stores as many rows
// for the decoder, which it never uses; only adapter_config.json has their
// number. Without it, an odd number of rows, or ones that ExportPEFT wrote, are
// the encoder's alone.
func (p *Prompt) encoderRows(a *adapter) error {
	if a == nil {
		if p.Length%2 == 0 && p.Metadata["model_digest"] == "" {
			return fmt.Errorf("%s is missing beside it, want it there: only it says whether the %d rows of %s "+
				"are the encoder's alone or half of them the decoder's", adapterConfig, p.Length, tensorPEFT)
		}
		return nil
	}
	if n := a.NumVirtualTokens; n < 1 || p.Length%n != 0 {
		return fmt.Errorf("%s: num_virtual_tokens %d, want a divisor of the %d rows of %s",
			adapterConfig, n, p.Length, tensorPEFT)
	}
	p.Length = a.NumVirtualTokens
	p.Embeddings = p.Embeddings[:p.Length*p.Dim]
	return nil
}
