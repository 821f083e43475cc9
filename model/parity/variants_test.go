package parity_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/dptune/dpt/model"
)

// variants are the models of testdata/variants: relatives of T5 v1.0 and v1.1.
var variants = []string{"silu", "umt5", "umt5-head"}

// TestVariants: losses, logits, the prompt's gradient and greedy outputs are those of Transformers,
// on every engine.
func TestVariants(t *testing.T) {
	for _, name := range variants {
		for _, engine := range model.Engines() {
			t.Run(name+"/"+engine, func(t *testing.T) { checkVariant(t, filepath.Join("variants", name), engine) })
		}
	}
}

func checkVariant(t *testing.T, dir, engine string) {
	var want struct {
		Max    int `json:"max_new_tokens"`
		Pairs  []model.Pair
		Losses []float64
		Greedy [][]int32
	}
	readJSON(t, filepath.Join(dir, "expected.json"), &want)
	b, err := model.Open(filepath.Join("testdata", dir), model.Options{Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	tokens := 0
	var sources [][]int32
	for _, p := range want.Pairs {
		tokens += len(p.Target)
		sources = append(sources, p.Source)
	}
	get := tensors(t, filepath.Join(dir, "expected.safetensors"))
	prompt := get("prompt", 3, b.Dim())

	logits, err := b.Logits(prompt, want.Pairs)
	if err != nil {
		t.Fatal(err)
	}
	within(t, "logits", farthest(slices.Concat(logits...), get("logits", tokens, b.VocabSize())), logitBound)
	res, grad, err := b.LossGrad(prompt, want.Pairs)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range want.Losses {
		within(t, "loss", relative(res.Losses[i], l), lossBound)
	}
	for i := range grad {
		grad[i] /= float32(tokens)
	}
	within(t, "dP", relativeNorm(grad, get("dP", 3, b.Dim())), gradientBound)
	out, err := b.Generate(prompt, sources, want.Max)
	if err != nil {
		t.Fatal(err)
	}
	for i := range out {
		if !slices.Equal(out[i], want.Greedy[i]) {
			t.Errorf("source %d: greedy output %v, want %v", i, out[i], want.Greedy[i])
		}
	}
}
