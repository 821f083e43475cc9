package checkpoint

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// dpt returns a prompt of 3 tokens of 2 numbers with bottleneck 1.
func dpt() Prompt {
	return Prompt{
		Length: 3, Dim: 2,
		Factors:    []Factor{{"A", []int{2, 1}, []float32{2, 3}}, {"B", []int{1, 3}, []float32{1, 10, 100}}},
		Embeddings: []float32{2, 3, 20, 30, 200, 300},
		Metadata:   map[string]string{"task": "rte"},
	}
}

func TestPromptReadsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prompt.safetensors")
	plain := dpt()
	plain.Factors = nil
	other := plain
	other.Factors = []Factor{{"mlp.bias", []int{4}, []float32{1, 2, 3, 4}}, {"table", []int{1, 2}, []float32{5, 6}}}
	for _, want := range []Prompt{dpt(), plain, other} {
		if err := WritePrompt(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := ReadPrompt(path)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("read %+v, want %+v (%v)", got, want, err)
		}
	}
}

func TestReadPromptForms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.safetensors")
	a, b := F32("A", []int{2, 1}, []float32{2, 3}), F32("B", []int{1, 3}, []float32{1, 10, 100})
	rows := []float32{2, 3, 20, 30, 200, 300}
	for _, c := range []struct {
		name    string
		tensors []Tensor
		factors int
		err     string
	}{
		{"factors alone", []Tensor{a, b}, 2, ""},
		{"PEFT", []Tensor{F32("prompt_embeddings", []int{3, 2}, rows)}, 0, ""},
		{"bfloat16", []Tensor{{Name: "prompt", DType: BFloat16, Shape: []int{3, 2}, Data: bf16(rows)}}, 0, ""},
		{"nothing", []Tensor{F32("lora_A", []int{1, 1}, rows[:1])}, 0,
			`found the tensors ["lora_A"], want "prompt", "prompt_embeddings" or both "A" and "B"`},
		{"half", []Tensor{a, F32("prompt", []int{3, 2}, rows)}, 0, `want both "A" and "B" or neither`},
		{"no product", []Tensor{a, F32("B", []int{2, 1}, rows[:2])}, 0, "tensors A [2 1] and B [2 1] have no product"},
		{"other prompt", []Tensor{a, b, F32("prompt", []int{2, 3}, rows)}, 0,
			"tensors A [2 1] and B [1 3] do not make a prompt of shape [2 3]"},
		{"vector", []Tensor{F32("prompt", []int{6}, rows)}, 0, "tensor prompt: shape [6], want a matrix"},
		{"empty", []Tensor{F32("prompt", []int{0, 2}, nil)}, 0, "tensor prompt: shape [0 2], want a matrix"},
		{"integers", []Tensor{{Name: "prompt", DType: "I64", Shape: []int{1, 1}, Data: make([]byte, 8)}}, 0,
			"tensor prompt: dtype I64, want F32"},
		{"not finite", []Tensor{F32("prompt", []int{1, 2}, []float32{1, float32(math.Inf(1))})}, 0,
			"tensor prompt: number 1 is +Inf, want a finite one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Write(path, c.tensors, nil); err != nil {
				t.Fatal(err)
			}
			p, err := ReadPrompt(path)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) ||
					!strings.HasPrefix(err.Error(), "read "+path+": ") {
					t.Errorf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil || p.Length != 3 || p.Dim != 2 || len(p.Factors) != c.factors ||
				!slices.Equal(p.Embeddings, rows) {
				t.Errorf("read %+v (%v)", p, err)
			}
		})
	}
}

// bf16 cuts float32s, which must be representable, to bfloat16.
func bf16(v []float32) []byte {
	full := F32("", nil, v).Data
	var out []byte
	for i := 0; i < len(full); i += 4 {
		out = append(out, full[i+2], full[i+3])
	}
	return out
}

func TestWritePromptRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.safetensors")
	for want, change := range map[string]func(*Prompt){
		"tensor prompt: 6 numbers, want 8": func(p *Prompt) { p.Length = 4 },
		"tensor A: 2 numbers, want 4":      func(p *Prompt) { p.Factors[0].Shape = []int{2, 2} },
		"tensor A: want factors sorted":    func(p *Prompt) { slices.Reverse(p.Factors) },
		"tensor prompt: want factors":      func(p *Prompt) { p.Factors[1].Name = "prompt" },
		"want both positive":               func(p *Prompt) { p.Dim = 0 },
		"number 0 is NaN":                  func(p *Prompt) { p.Factors[1].Data[0] = float32(math.NaN()) },
	} {
		p := dpt()
		change(&p)
		if err := WritePrompt(path, p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was written")
	}
}

func TestExportPEFT(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs", "adapter")
	p := dpt()
	if err := ExportPEFT(dir, p, "google-t5/t5-small",
		[]byte(`{"d_model": 2, "num_layers": 6, "num_heads": 8}`)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "adapter_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(got, func(_ string, v any) bool { return v == nil })
	want := map[string]any{
		"base_model_name_or_path":    "google-t5/t5-small",
		"inference_mode":             true,
		"num_attention_heads":        8.0,
		"num_layers":                 6.0,
		"num_transformer_submodules": 1.0,
		"num_virtual_tokens":         3.0,
		"peft_type":                  "PROMPT_TUNING",
		"prompt_tuning_init":         "RANDOM",
		"task_type":                  "SEQ_2_SEQ_LM",
		"token_dim":                  2.0,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("configuration %v, want %v", got, want)
	}
	back, err := ReadPrompt(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil || !slices.Equal(back.Embeddings, p.Embeddings) || back.Length != 3 ||
		back.Metadata["format"] != "pt" {
		t.Errorf("read back %+v (%v)", back, err)
	}
	if p.Metadata["format"] != "" {
		t.Error("the caller's metadata changed")
	}

	// Without a base model's name PEFT wants null: it takes an empty one for a name on the Hub.
	if err := ExportPEFT(dir, p, "", []byte(`{"d_model": 2}`)); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(filepath.Join(dir, "adapter_config.json")); err != nil ||
		!strings.Contains(string(data), `"base_model_name_or_path": null`) {
		t.Errorf("without a base model: %s (%v)", data, err)
	}
	if err := ExportPEFT(dir, p, "", []byte(`{"d_model": 512}`)); err == nil ||
		!strings.Contains(err.Error(), "prompt has dimension 2, want the model's d_model 512") {
		t.Errorf("error %v", err)
	}
}

// TestImportPEFT reads adapters as PEFT writes them, which by default hold the
// prompt twice: for the encoder, and unused for the decoder.
func TestImportPEFT(t *testing.T) {
	for _, c := range []struct{ name, config, err string }{
		{"default", `{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "num_transformer_submodules": 2,
			"token_dim": 2, "modules_to_save": null}`, ""},
		{"other method", `{"peft_type": "LORA", "r": 8}`,
			`adapter_config.json: peft_type "LORA", want "PROMPT_TUNING"`},
		{"other length", `{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5}`,
			"num_virtual_tokens 5, want a divisor of the 6 rows of prompt_embeddings"},
		{"no length", `{"peft_type": "PROMPT_TUNING"}`, "num_virtual_tokens 0, want"},
		{"not JSON", `{`, "adapter_config.json: unexpected end of JSON input"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows := []float32{2, 3, 20, 30, 200, 300, 0, 0, 0, 0, 0, 0}
			data, err := encode([]Tensor{F32("prompt_embeddings", []int{6, 2}, rows)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			dir := write(t, map[string][]byte{
				"adapter_model.safetensors": data,
				"adapter_config.json":       []byte(c.config),
			})
			for _, path := range []string{dir, filepath.Join(dir, "adapter_model.safetensors")} {
				p, err := ReadPrompt(path)
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) {
						t.Errorf("error %v, want one with %q", err, c.err)
					}
					continue
				}
				if err != nil || p.Length != 3 || !slices.Equal(p.Embeddings, rows[:6]) {
					t.Errorf("read %+v (%v)", p, err)
				}
			}
		})
	}
}
