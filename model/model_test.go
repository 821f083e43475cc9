package model

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/tiny"
)

var goldenDir = filepath.Join("parity", "testdata", "v11")

// goldenDirs are T5 v1.0 and v1.1.
var goldenDirs = []string{filepath.Join("parity", "testdata", "v10"), goldenDir}

func open(t *testing.T, dir string, threads int) *Backbone {
	t.Helper()
	return openWith(t, dir, Options{Device: CPU, Threads: threads})
}

func openWith(t *testing.T, dir string, opt Options) *Backbone {
	t.Helper()
	b, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// randomPairs are pairs of many lengths, 1 among them.
func randomPairs(n, vocab int) []Pair {
	r := rand.New(rand.NewPCG(1, 2))
	ids := func(n int) []int32 {
		out := make([]int32, n)
		for i := range out {
			out[i] = int32(r.IntN(vocab))
		}
		return out
	}
	pairs := make([]Pair, n)
	for i := range pairs {
		pairs[i] = Pair{Source: ids(1 + i*7%90), Target: ids(1 + i*5%11)}
	}
	return pairs
}

func randomPrompt(rows, dim int) []float32 {
	r := rand.New(rand.NewPCG(3, 4))
	p := make([]float32, rows*dim)
	for i := range p {
		p[i] = float32(r.NormFloat64())
	}
	return p
}

// TestBitsDoNotDependOnNeighbours: a pair's loss and output are the same bits alone, in a batch,
// after other batches and with other threads.
func TestBitsDoNotDependOnNeighbours(t *testing.T) {
	for _, dir := range goldenDirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { checkNeighbours(t, open(t, dir, 1), open(t, dir, 3)) })
	}
}

func checkNeighbours(t *testing.T, one, three *Backbone) {
	pairs := randomPairs(20, one.VocabSize())
	prompt := randomPrompt(9, one.Dim())
	sources := make([][]int32, len(pairs))
	for i, p := range pairs {
		sources[i] = p.Source
	}
	res1, grad1, err := one.LossGrad(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	res3, grad3, err := three.LossGrad(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(res1.Losses, res3.Losses) || !slices.Equal(grad1, grad3) {
		t.Error("1 and 3 threads give different bits")
	}
	gen, err := three.Generate(prompt, sources, 7)
	if err != nil {
		t.Fatal(err)
	}
	logits, err := three.Logits(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range pairs {
		alone, _, err := one.LossGrad(prompt, pairs[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		if alone.Losses[0] != res1.Losses[i] || alone.Tokens != len(pairs[i].Target) ||
			alone.Counts[0] != res1.Counts[i] {
			t.Errorf("pair %d: alone %+v, in the batch loss %v of %d tokens", i, alone, res1.Losses[i], res1.Counts[i])
		}
		l, err := one.Logits(prompt, pairs[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(l[0], logits[i]) {
			t.Errorf("pair %d: logits differ between alone and the batch", i)
		}
		g, err := one.Generate(prompt, sources[i:i+1], 7)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(g[0], gen[i]) {
			t.Errorf("source %d: generated %v alone, %v in the batch", i, g[0], gen[i])
		}
	}
	// In reverse order every pair has another place and other neighbours.
	reversed := slices.Clone(pairs)
	slices.Reverse(reversed)
	back, err := three.Score(prompt, reversed)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(back.Losses)
	if !slices.Equal(back.Losses, res1.Losses) {
		t.Error("pairs in reverse order have other losses")
	}
	again, grad, err := one.LossGrad(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Losses, res1.Losses) || !slices.Equal(grad, grad1) {
		t.Error("the same call gives other bits after other calls")
	}
	score, err := three.Score(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	if score.Loss != res1.Loss || score.Tokens != res1.Tokens {
		t.Errorf("Score: loss %v of %d tokens, LossGrad: %v of %d", score.Loss, score.Tokens, res1.Loss, res1.Tokens)
	}
}

// TestBitsDoNotDependOnMemory: however little memory there is, losses, gradient and outputs are the
// same.
func TestBitsDoNotDependOnMemory(t *testing.T) {
	for _, dir := range goldenDirs {
		whole := open(t, dir, 2)
		pairs, prompt := randomPairs(20, whole.VocabSize()), randomPrompt(9, whole.Dim())
		want, wantGrad, err := whole.LossGrad(prompt, pairs)
		if err != nil {
			t.Fatal(err)
		}
		outputs, _, err := whole.Evaluate(prompt, pairs, 40)
		if err != nil {
			t.Fatal(err)
		}
		logits, err := whole.Logits(prompt, pairs)
		if err != nil {
			t.Fatal(err)
		}
		for _, bytes := range []int64{1, 600_000, 2_000_000} {
			b := openWith(t, dir, Options{Device: CPU, Threads: 2, MaxMemory: bytes})
			res, grad, err := b.LossGrad(prompt, pairs)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(res.Losses, want.Losses) || !slices.Equal(grad, wantGrad) {
				t.Errorf("%s: within %d bytes losses or gradient have other bits", dir, bytes)
			}
			out, scored, err := b.Evaluate(prompt, pairs, 40)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(scored.Losses, want.Losses) || !slices.EqualFunc(out, outputs, slices.Equal) {
				t.Errorf("%s: within %d bytes evaluation gives other losses or outputs", dir, bytes)
			}
			l, err := b.Logits(prompt, pairs)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(l, logits, slices.Equal) {
				t.Errorf("%s: within %d bytes logits have other bits", dir, bytes)
			}
		}
	}
	if _, err := Open(goldenDir, Options{MaxMemory: -1}); err == nil || !strings.Contains(err.Error(), "-1 bytes") {
		t.Errorf("-1 bytes: %v", err)
	}
}

// TestEvaluate: losses are Score's and outputs are Generate's, whether or not pairs have targets.
func TestEvaluate(t *testing.T) {
	b := open(t, goldenDir, 2)
	pairs, prompt := randomPairs(12, b.VocabSize()), randomPrompt(5, b.Dim())
	sources := make([][]int32, len(pairs))
	for i, p := range pairs {
		sources[i] = p.Source
	}
	scored, err := b.Score(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	generated, err := b.Generate(prompt, sources, 40)
	if err != nil {
		t.Fatal(err)
	}
	want := Result{Losses: slices.Clone(scored.Losses), Counts: slices.Clone(scored.Counts)}
	for _, i := range []int{0, 5, 6, 11} {
		pairs[i].Target, want.Losses[i], want.Counts[i] = nil, 0, 0
	}
	want.sum()
	out, got, err := b.Evaluate(prompt, pairs, 40)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Losses, want.Losses) || !slices.Equal(got.Counts, want.Counts) || got.Loss != want.Loss ||
		got.Tokens != want.Tokens {
		t.Errorf("Evaluate: %+v, want %+v", got, want)
	}
	if !slices.EqualFunc(out, generated, slices.Equal) {
		t.Errorf("Evaluate: outputs %v, Generate's %v", out, generated)
	}
	if out, res, err := b.Evaluate(nil, pairs, 0); err != nil || len(out) != len(pairs) || len(out[3]) != 0 ||
		res.Tokens != want.Tokens {
		t.Errorf("Evaluate with 0 new tokens: %v %+v %v", out, res, err)
	}
	if out, res, err := b.Evaluate(nil, nil, 3); err != nil || len(out) != 0 || res.Tokens != 0 {
		t.Errorf("Evaluate of nothing: %v %+v %v", out, res, err)
	}
	if _, _, err := b.Evaluate(prompt, []Pair{{Source: []int32{1}}, {Target: []int32{1}}}, 3); err == nil ||
		!strings.Contains(err.Error(), "pair 1: source is empty") {
		t.Errorf("Evaluate of an empty source: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	b := open(t, goldenDir, 1)
	good := Pair{Source: []int32{5, 1}, Target: []int32{7, 1}}
	nan := float32(math.NaN())
	bad := randomPrompt(2, b.Dim())
	bad[40] = nan
	for _, c := range []struct {
		name   string
		prompt []float32
		pairs  []Pair
		want   string
	}{
		{"empty source", nil, []Pair{good, {Target: []int32{1}}}, "pair 1: source is empty"},
		{"empty target", nil, []Pair{{Source: []int32{1}}}, "pair 0: target is empty"},
		{"id too large", nil, []Pair{good, good, {Source: []int32{3, 384}, Target: []int32{1}}},
			"pair 2: source token 1 is id 384, want one in [0, 384)"},
		{"negative id", nil, []Pair{{Source: []int32{3}, Target: []int32{-1}}}, "pair 0: target token 0 is id -1"},
		{"ragged prompt", make([]float32, 33), []Pair{good}, "prompt has 33 numbers, want a multiple of d_model 32"},
		{"prompt not finite", bad, []Pair{good}, "prompt number 40 is NaN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := b.LossGrad(c.prompt, c.pairs)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("LossGrad: %v, want %q", err, c.want)
			}
			if _, err := b.Score(c.prompt, c.pairs); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Score: %v, want %q", err, c.want)
			}
			if _, err := b.Logits(c.prompt, c.pairs); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Logits: %v, want %q", err, c.want)
			}
		})
	}
	if _, err := b.Generate(nil, [][]int32{{1}, {}}, 3); err == nil ||
		!strings.Contains(err.Error(), "source 1: source is empty") {
		t.Errorf("Generate of an empty source: %v", err)
	}
	if _, err := b.Generate(nil, [][]int32{{1}}, -1); err == nil {
		t.Error("Generate of -1 tokens: no error")
	}
	if res, grad, err := b.LossGrad(nil, nil); err != nil || res.Tokens != 0 || len(grad) != 0 {
		t.Errorf("LossGrad of nothing: %+v %v %v", res, grad, err)
	}
}

// poisonedModel returns a directory with a model in which token 200 has an infinite embedding.
func poisonedModel(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(goldenDir, f))
		if err != nil {
			t.Fatal(err)
		}
		if f == "model.safetensors" {
			poison(t, data, "shared.weight", 200*32)
		}
		if err := os.WriteFile(filepath.Join(dir, f), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestNotFiniteNamesThePair: errors name the pair with the one token whose embedding is infinite.
func TestNotFiniteNamesThePair(t *testing.T) {
	b := open(t, poisonedModel(t), 1)
	good := Pair{Source: []int32{5, 1}, Target: []int32{7, 1}}
	pairs := []Pair{good, good, good, {Source: []int32{5, 200, 1}, Target: []int32{7, 1}}}
	prompt := randomPrompt(2, b.Dim())
	if _, _, err := b.LossGrad(prompt, pairs); err == nil || !strings.Contains(err.Error(), "pair 3: ") {
		t.Errorf("LossGrad: %v, want an error about pair 3", err)
	}
	if _, err := b.Score(prompt, pairs); err == nil || !strings.Contains(err.Error(), "pair 3: ") {
		t.Errorf("Score: %v, want an error about pair 3", err)
	}
	if _, _, err := b.Evaluate(prompt, []Pair{pairs[3], pairs[0]}, 2); err == nil ||
		!strings.Contains(err.Error(), "0: ") {
		t.Errorf("Evaluate: %v, want an error about the first pair", err)
	}
	if _, _, err := b.LossGrad(prompt, pairs[:3]); err != nil {
		t.Errorf("LossGrad of good pairs: %v", err)
	}
	if _, err := b.Generate(prompt, [][]int32{{5, 1}, {5, 200, 1}}, 2); err == nil ||
		!strings.Contains(err.Error(), "source 1: ") {
		t.Errorf("Generate: %v, want an error about source 1", err)
	}
}

// poison writes an infinity over one element of a float32 tensor in a safetensors file.
func poison(t *testing.T, file []byte, name string, element int) {
	t.Helper()
	n := int(file[0]) | int(file[1])<<8 | int(file[2])<<16
	var header map[string]struct {
		Offsets []int `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	at := 8 + n + header[name].Offsets[0] + 4*element
	copy(file[at:], []byte{0, 0, 0x80, 0x7f})
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(goldenDir, Options{Device: GPU(2)}); !errors.Is(err, ErrNoCUDA) ||
		!strings.Contains(err.Error(), "gpu 2: ") {
		t.Errorf("GPU in a build without CUDA: %v", err)
	}
	if _, err := Open(goldenDir, Options{Threads: -1}); err == nil || !strings.Contains(err.Error(), "-1 threads") {
		t.Errorf("-1 threads: %v", err)
	}
	if _, err := Open(t.TempDir(), Options{}); err == nil {
		t.Error("empty directory: no error")
	}
}

// TestSteadyStateMemory: once a batch has been computed, computing it again allocates only the
// results.
func TestSteadyStateMemory(t *testing.T) {
	b := open(t, goldenDir, 2)
	pairs := randomPairs(10, b.VocabSize())
	prompt := randomPrompt(5, b.Dim())
	step := func() {
		if _, _, err := b.LossGrad(prompt, pairs); err != nil {
			t.Fatal(err)
		}
	}
	step()
	step()
	if n := testing.AllocsPerRun(5, step); n > 12 {
		t.Errorf("a step allocates %v times, want only its results", n)
	}
}

// TestEmbeddedModel: the default model opens, and a gradient step on its prompt lowers the loss.
func TestEmbeddedModel(t *testing.T) {
	b := open(t, "", 2)
	if b.Name() != tiny.Name || b.Digest() == [32]byte{} || b.EngineName() == "" {
		t.Errorf("embedded model: name %q, digest %x, engine %q", b.Name(), b.Digest(), b.EngineName())
	}
	pairs := randomPairs(4, b.VocabSize())
	prompt := randomPrompt(4, b.Dim())
	before, grad, err := b.LossGrad(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	var norm float64
	for _, g := range grad {
		norm += float64(g) * float64(g)
	}
	for i := range prompt {
		prompt[i] -= grad[i] * float32(0.01/math.Sqrt(norm))
	}
	after, err := b.Score(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	if !(after.Loss < before.Loss) {
		t.Errorf("loss %v after a step down the gradient, %v before", after.Loss, before.Loss)
	}
}
