package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/lab/tinyrandom"
	"github.com/dptune/dpt/model/prompt"
)

// manyPairs are more than one pass takes.
func manyPairs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"source\":\"source %d %s\",\"target\":\"%s\"}\n",
			i, strings.Repeat("w", i%7), strings.Repeat("t", i%5))
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
		out := mustRun(t, strings.NewReader(lines[n-1]), append([]string{"score", "--data", "-"}, with...)...)
		alone := jsonLines[score](t, out)
		if len(alone) != 2 || alone[0] != scores[n-1] || alone[1] != alone[0] {
			t.Errorf("the last pair alone gives %v, want %v twice", alone, scores[n-1])
		}
	}
}

func TestScoreCutsLengths(t *testing.T) {
	pair := `{"source":"a long source","target":"a long target"}` + "\n" + `{"source":"a l","target":"a l"}`
	scores := jsonLines[score](t, mustRun(t, strings.NewReader(pair), "score", "--data", "-",
		"--max-source-length", "4", "--max-target-length", "4"))
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
	for i := range n {
		tensor, err := f.Tensor(fmt.Sprintf("logits.%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if want := []int{i%5 + 1, tinyrandom.VocabSize}; !slices.Equal(tensor.Shape, want) || tensor.DType != "F32" {
			t.Errorf("%s is %s %v, want F32 %v", tensor.Name, tensor.DType, tensor.Shape, want)
		}
	}
}

// The gradients are the printed loss's: they agree with its central difference along a direction.
func TestScoreGradient(t *testing.T) {
	dir := t.TempDir()
	data := writeFile(t, dir, "pairs.jsonl", manyPairs(passPairs+1))
	const dim = tinyrandom.DModel
	loss := func(p checkpoint.Prompt, more ...string) float64 {
		path := writePrompt(t, dir, "p.safetensors", p)
		out := mustRun(t, nil, append([]string{"score", "--data", data, "--prompt", path}, more...)...)
		scores := jsonLines[score](t, out)
		return scores[len(scores)-1].Loss
	}
	// slope checks the gradient along itself: the slope there is its squared norm, the largest that
	// there is.
	slope := func(what string, grad, from []float32, at func(params []float32) checkpoint.Prompt) {
		t.Helper()
		var norm2 float64
		for _, v := range grad {
			norm2 += float64(v) * float64(v)
		}
		// A step that changes the loss by about 2e-2: far above float32's noise, far below its
		// curvature.
		h := 1e-2 / norm2
		up, down := make([]float32, len(grad)), make([]float32, len(grad))
		for i, v := range grad {
			up[i], down[i] = from[i]+float32(h*float64(v)), from[i]-float32(h*float64(v))
		}
		if got := (loss(at(up)) - loss(at(down))) / (2 * h); !near(got, norm2, 2e-2) {
			t.Errorf("%s: slope along the gradient %v, want its squared norm %v", what, got, norm2)
		}
	}
	for _, cfg := range []prompt.Config{
		{Method: "dpt", Dim: dim, Length: 5, Bottleneck: 3}, {Method: "pt", Dim: dim, Length: 5},
		{Method: "respt", Dim: dim, Length: 5, Bottleneck: 8}, {Method: "svd", Dim: dim, Length: 5, Bottleneck: 5},
	} {
		params, err := cfg.Init(prompt.Start{Seed: 1, Std: 0.7})
		if err != nil {
			t.Fatal(err)
		}
		p := promptOf(t, cfg, params)
		out := filepath.Join(dir, cfg.Method+".safetensors")
		loss(p, "--grad", out)
		grad := readTensors(t, out)
		want := []checkpoint.Factor{{Name: "prompt", Shape: []int{p.Length, p.Dim}}}
		var all []float32
		for _, part := range cfg.Tensors() {
			if part.Name != "prompt" {
				want = append(want, checkpoint.Factor{Name: "d" + part.Name, Shape: part.Shape})
				all = append(all, grad["d"+part.Name].Data...)
			}
		}
		if len(grad) != len(want) {
			t.Errorf("%s: %d tensors, want %d", cfg.Method, len(grad), len(want))
		}
		for _, w := range want {
			if got := grad[w.Name]; !slices.Equal(got.Shape, w.Shape) {
				t.Fatalf("%s: %s has shape %v, want %v", cfg.Method, w.Name, got.Shape, w.Shape)
			}
		}
		slope(cfg.Method+", prompt", grad["prompt"].Data, p.Embeddings, func(rows []float32) checkpoint.Prompt {
			return checkpoint.Prompt{Length: p.Length, Dim: p.Dim, Embeddings: rows}
		})
		if len(all) > 0 {
			slope(cfg.Method+", all that is trained", all, params,
				func(params []float32) checkpoint.Prompt { return promptOf(t, cfg, params) })
		}
	}
}

// readTensors reads a safetensors file of float32s.
func readTensors(t *testing.T, path string) map[string]checkpoint.Factor {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]checkpoint.Factor{}
	for _, name := range f.Names() {
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := tensor.Float32()
		if err != nil {
			t.Fatal(err)
		}
		out[name] = checkpoint.Factor{Name: name, Shape: tensor.Shape, Data: slices.Clone(v)}
	}
	return out
}
