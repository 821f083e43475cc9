package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/prompt"
)

// manyPairs are more than one pass takes.
func manyPairs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"source\":\"source %d %s\",\"target\":\"%s\"}\n", i, strings.Repeat("w", i%7), strings.Repeat("t", i%5))
	}
	return b.String()
}

func TestScore(t *testing.T) {
	dir := t.TempDir()
	n := passPairs + 3
	text := manyPairs(n)
	data := writeFile(t, dir, "pairs.jsonl", text)
	p := writePrompt(t, dir, "prompt.safetensors", newPrompt(t))
	for _, with := range [][]string{nil, {"--prompt", p}} {
		scores := jsonLines[score](t, mustRun(t, nil, append([]string{"score", "--data", data}, with...)...))
		if len(scores) != n+1 {
			t.Fatalf("%d lines, want %d", len(scores), n+1)
		}
		var sum float64
		tokens := 0
		for i, s := range scores[:n] {
			if want := i%5 + 1; s.Tokens != want { // bytes and </s>
				t.Errorf("line %d: %d tokens, want %d", i, s.Tokens, want)
			}
			sum += s.Loss * float64(s.Tokens)
			tokens += s.Tokens
		}
		if last := scores[n]; last.Tokens != tokens || !near(last.Loss, sum/float64(tokens), 1e-12) {
			t.Errorf("last line %+v, want loss %v over %d tokens", last, sum/float64(tokens), tokens)
		}
		// A pair's loss does not depend on its neighbours.
		lines := slices.Collect(strings.Lines(text))
		alone := jsonLines[score](t, mustRun(t, strings.NewReader(lines[n-1]), append([]string{"score", "--data", "-"}, with...)...))
		if len(alone) != 2 || alone[0] != scores[n-1] || alone[1] != alone[0] {
			t.Errorf("the last pair alone gives %v, want %v twice", alone, scores[n-1])
		}
	}
}

func TestScoreCutsLengths(t *testing.T) {
	pair := `{"source":"a long source","target":"a long target"}` + "\n" + `{"source":"a l","target":"a l"}`
	scores := jsonLines[score](t, mustRun(t, strings.NewReader(pair), "score", "--data", "-", "--max-source-length", "4", "--max-target-length", "4"))
	if scores[0] != scores[1] || scores[0].Tokens != 4 {
		t.Errorf("cut to the same 4 tokens: %v, want equal scores of 4 tokens", scores)
	}
}

func TestScoreLogits(t *testing.T) {
	dir := t.TempDir()
	n := passPairs + 2
	data := writeFile(t, dir, "pairs.jsonl", manyPairs(n))
	out := filepath.Join(dir, "logits.safetensors")
	mustRun(t, nil, "score", "--data", data, "--logits", out)
	f, err := checkpoint.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(f.Names()) != n {
		t.Fatalf("%d tensors, want %d", len(f.Names()), n)
	}
	_, vocabulary := tinyConfig(t)
	for i := range n {
		tensor, err := f.Tensor(fmt.Sprintf("logits.%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if want := []int{i%5 + 1, vocabulary}; !slices.Equal(tensor.Shape, want) || tensor.DType != "F32" {
			t.Errorf("%s is %s %v, want F32 %v", tensor.Name, tensor.DType, tensor.Shape, want)
		}
	}
}

// The gradients are the printed loss's: they agree with its central difference along a direction.
func TestScoreGradient(t *testing.T) {
	dir := t.TempDir()
	data := writeFile(t, dir, "pairs.jsonl", manyPairs(passPairs+1))
	p := newPrompt(t)
	cfg := prompt.Config{Method: "dpt", Dim: p.Dim, Length: p.Length, Bottleneck: p.Bottleneck}
	loss := func(p checkpoint.Prompt, more ...string) float64 {
		path := writePrompt(t, dir, "p.safetensors", p)
		scores := jsonLines[score](t, mustRun(t, nil, append([]string{"score", "--data", data, "--prompt", path}, more...)...))
		return scores[len(scores)-1].Loss
	}
	out := filepath.Join(dir, "grad.safetensors")
	loss(p, "--grad", out)
	f, err := checkpoint.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	grad := map[string][]float32{}
	for name, shape := range map[string][]int{"prompt": {p.Length, p.Dim}, "dA": {p.Dim, p.Bottleneck}, "dB": {p.Bottleneck, p.Length}} {
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(tensor.Shape, shape) {
			t.Fatalf("%s has shape %v, want %v", name, tensor.Shape, shape)
		}
		if grad[name], err = tensor.Float32(); err != nil {
			t.Fatal(err)
		}
	}
	// Along the gradient itself the slope is the squared norm, the largest there is.
	for _, test := range []struct {
		name  string
		along []float32
		at    func(step []float32) checkpoint.Prompt
	}{
		{"prompt", grad["prompt"], func(step []float32) checkpoint.Prompt {
			q := p
			q.A, q.B, q.Bottleneck, q.Embeddings = nil, nil, 0, sum(p.Embeddings, step)
			return q
		}},
		{"A and B", append(slices.Clone(grad["dA"]), grad["dB"]...), func(step []float32) checkpoint.Prompt {
			return promptOf(t, cfg, sum(append(slices.Clone(p.A), p.B...), step))
		}},
	} {
		var norm2 float64
		for _, v := range test.along {
			norm2 += float64(v) * float64(v)
		}
		// A step that changes the loss by about 2e-2: far above float32's noise, far below its curvature.
		h := 1e-2 / norm2
		up, down := make([]float32, len(test.along)), make([]float32, len(test.along))
		for i, v := range test.along {
			up[i], down[i] = float32(h*float64(v)), float32(-h*float64(v))
		}
		slope := (loss(test.at(up)) - loss(test.at(down))) / (2 * h)
		if !near(slope, norm2, 2e-2) {
			t.Errorf("%s: slope along the gradient %v, want its squared norm %v", test.name, slope, norm2)
		}
	}
	// A prompt without factors has no dA and dB.
	bare := p
	bare.A, bare.B, bare.Bottleneck = nil, nil, 0
	loss(bare, "--grad", out+"2")
	g, err := checkpoint.Open(out + "2")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if !slices.Equal(g.Names(), []string{"prompt"}) {
		t.Errorf("tensors %v, want prompt alone", g.Names())
	}
}

func sum(a, b []float32) []float32 {
	out := make([]float32, len(a))
	for i := range a {
		out[i] = a[i] + b[i]
	}
	return out
}
