package t5

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/engine/portable"
)

// oddConfig is an architecture with no two equal sizes and none that is a multiple of four.
func oddConfig(gated bool) Config {
	return Config{
		ModelType:        "t5",
		VocabSize:        29,
		DModel:           11,
		DKV:              5,
		DFF:              14,
		NumLayers:        2,
		NumDecoderLayers: 3,
		NumHeads:         3,
		RelativeBuckets:  8,
		RelativeDistance: 10,
		LayerNormEpsilon: 1e-6,
		GatedGELU:        gated,
		ScaleOutput:      !gated,
		EOSTokenIDs:      []int32{1},
	}
}

func newModel[F portable.Float](t *testing.T, cfg Config, w Weights, opt Options) *Model {
	t.Helper()
	eng := portable.New[F](2)
	t.Cleanup(func() { eng.Close() })
	m, err := New(eng, cfg, w, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func oddPairs() []Pair {
	return []Pair{
		{Source: []int32{1}, Target: []int32{1}},
		{Source: []int32{5, 9, 9, 28, 0, 3, 17, 2, 1}, Target: []int32{4, 1}},
		{Source: []int32{7, 1}, Target: []int32{2, 0, 28, 11, 3, 1}},
		{
			Source: slices.Repeat([]int32{6, 12, 21}, 7),
			Target: slices.Repeat([]int32{13, 8}, 8),
		}, // beyond the trained distance
	}
}

// TestGradientAgainstFiniteDifferences differentiates the whole model in float64, at a prompt and
// steps that float32 holds exactly.
func TestGradientAgainstFiniteDifferences(t *testing.T) {
	for _, gated := range []bool{false, true} {
		for variant, opt := range variants {
			t.Run(fmt.Sprintf("gated=%v/%s", gated, variant), func(t *testing.T) {
				checkGradient(t, newModel[float64](t, oddConfig(gated), randomWeights{lmHead: gated}, opt))
			})
		}
	}
}

func checkGradient(t *testing.T, m *Model) {
	cfg := m.cfg
	const step = 1.0 / (1 << 14)
	r := rand.New(rand.NewPCG(1, 1))
	prompt := make([]float32, 4*cfg.DModel)
	for i := range prompt {
		prompt[i] = float32(math.Round(r.NormFloat64()/step) * step)
	}
	pairs := oddPairs()
	losses, grad := make([]float64, len(pairs)), make([]float64, len(prompt))
	if err := m.LossGrad(prompt, pairs, losses, grad); err != nil {
		t.Fatal(err)
	}
	loss := func() float64 {
		if err := m.Score(prompt, pairs, losses); err != nil {
			t.Fatal(err)
		}
		var sum float64
		for _, l := range losses {
			sum += l
		}
		return sum
	}
	for i, p := range prompt {
		prompt[i] = p + step
		up := loss()
		prompt[i] = p - step
		down := loss()
		prompt[i] = p
		want := (up - down) / (2 * step)
		// The step's own error is of order step² = 4e-9.
		if math.Abs(grad[i]-want) > 1e-6*max(1, math.Abs(want)) {
			t.Errorf("dP[%d] is %.9g, finite difference %.9g", i, grad[i], want)
		}
	}
}

// TestFloat64Parity: in float64 the losses equal the goldens' float64 losses to their precision,
// and the gradient nearly so.
func TestFloat64Parity(t *testing.T) {
	for _, version := range []string{"v10", "v11"} {
		g := openGolden(t, version)
		m := load[float64](t, g.dir, 1, Options{})
		losses, grad := make([]float64, len(g.pairs)), make([]float64, len(g.prompt))
		if err := m.LossGrad(g.prompt, g.pairs, losses, grad); err != nil {
			t.Fatal(err)
		}
		for i, want := range g.want["float64"].Losses {
			if math.Abs(losses[i]-want) > 1e-11*want {
				t.Errorf("%s: pair %d: loss %.15g, want %.15g", version, i, losses[i], want)
			}
		}
		dp, err := g.tensors.Tensor("dP64")
		if err != nil {
			t.Fatal(err)
		}
		tokens := 0
		for _, p := range g.pairs {
			tokens += len(p.Target)
		}
		var diff, norm float64
		for i := range grad {
			want := math.Float64frombits(binary.LittleEndian.Uint64(dp.Data[8*i:])) * float64(tokens)
			diff += (grad[i] - want) * (grad[i] - want)
			norm += want * want
		}
		// dP64 was taken at A·B in float64, this at the product rounded to float32.
		if d := math.Sqrt(diff / norm); !(d <= 1e-6) {
			t.Errorf("%s: dP differs by %.2g relative, want at most 1e-6", version, d)
		}
	}
}

// TestGenerateFollowsLogits: greedy decoding with its caches chooses the token with the largest
// teacher-forced logit, before and after absorption ends.
func TestGenerateFollowsLogits(t *testing.T) {
	for _, gated := range []bool{false, true} {
		cfg := oddConfig(gated)
		m := newModel[float32](t, cfg, randomWeights{lmHead: gated}, Options{})
		if n := m.absorbSteps(); n != 9 {
			t.Fatalf("absorption ends after %d tokens, want 9", n)
		}
		prompt := make([]float32, 3*cfg.DModel)
		for i := range prompt {
			prompt[i] = float32(math.Cos(float64(i)))
		}
		var sources [][]int32
		for _, p := range oddPairs() {
			sources = append(sources, p.Source)
		}
		const maxNew = 25 // beyond the trained distance
		out, err := m.Generate(prompt, sources, maxNew)
		if err != nil {
			t.Fatal(err)
		}
		for i, ids := range out {
			target := slices.Clone(ids)
			if len(ids) < maxNew {
				target = append(target, cfg.EOSTokenIDs[0])
			}
			logits, err := m.Logits(prompt, []Pair{{sources[i], target}})
			if err != nil {
				t.Fatal(err)
			}
			for j, id := range target {
				row := logits[0][j*cfg.VocabSize : (j+1)*cfg.VocabSize]
				if best := slices.Max(row); row[id] < best-1e-4 {
					t.Errorf("gated=%v source %d, token %d: chose %d with logit %v, the best is %v",
						gated, i, j, id, row[id], best)
				}
			}
		}
		none, err := m.Generate(prompt, sources, 0)
		if err != nil || len(none) != len(sources) || len(none[0]) != 0 {
			t.Errorf("Generate of 0 tokens: %v (%v)", none, err)
		}
	}
}

// missingWeights lacks one tensor.
type missingWeights struct {
	randomWeights
	name string
}

var errMissing = errors.New("no such tensor")

func (w missingWeights) Float32(name string, shape ...int) ([]float32, error) {
	if name == w.name {
		return nil, fmt.Errorf("tensor %s: %w", name, errMissing)
	}
	return w.randomWeights.Float32(name, shape...)
}

func TestNewNamesTheTensor(t *testing.T) {
	eng := portable.New[float32](1)
	defer eng.Close()
	for _, name := range []string{
		"shared.weight", "encoder.block.1.layer.0.SelfAttention.k.weight",
		"decoder.block.2.layer.1.EncDecAttention.o.weight",
		"decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "encoder.final_layer_norm.weight",
		"decoder.block.0.layer.2.DenseReluDense.wo.weight",
	} {
		_, err := New(eng, oddConfig(false), missingWeights{name: name}, Options{})
		if !errors.Is(err, errMissing) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// onlyEmbedTokens holds the shared table under the encoder's name, as some old checkpoints do.
type onlyEmbedTokens struct{ randomWeights }

func (w onlyEmbedTokens) Has(name string) bool { return name == "encoder.embed_tokens.weight" }

func (w onlyEmbedTokens) Float32(name string, shape ...int) ([]float32, error) {
	switch name {
	case "shared.weight":
		return nil, errMissing
	case "encoder.embed_tokens.weight":
		name = "shared.weight"
	}
	return w.randomWeights.Float32(name, shape...)
}

func TestEmbeddingAlias(t *testing.T) {
	cfg := oddConfig(false)
	pairs := oddPairs()
	losses, want := make([]float64, len(pairs)), make([]float64, len(pairs))
	if err := newModel[float32](t, cfg, randomWeights{}, Options{}).Score(nil, pairs, want); err != nil {
		t.Fatal(err)
	}
	if err := newModel[float32](t, cfg, onlyEmbedTokens{}, Options{}).Score(nil, pairs, losses); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(losses, want) {
		t.Errorf("losses %v, want %v", losses, want)
	}
}

// tableWeights holds a table for the encoder beside shared.weight.
type tableWeights struct {
	randomWeights
	same bool
}

func (w tableWeights) Has(name string) bool {
	return name == "shared.weight" || name == "encoder.embed_tokens.weight"
}

func (w tableWeights) Float32(name string, shape ...int) ([]float32, error) {
	if name == "encoder.embed_tokens.weight" {
		name = "shared.weight"
		if !w.same {
			name = "encoder's"
		}
	}
	return w.randomWeights.Float32(name, shape...)
}

// TestTables: a second table is taken if it is the same, and refused by name if it is not.
func TestTables(t *testing.T) {
	eng := portable.New[float32](1)
	defer eng.Close()
	cfg := oddConfig(false)
	if _, err := New(eng, cfg, tableWeights{same: true}, Options{}); err != nil {
		t.Errorf("equal tables: %v", err)
	}
	const want = "tensors shared.weight and encoder.embed_tokens.weight differ"
	if _, err := New(eng, cfg, tableWeights{}, Options{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("other tables: error %v, want %q", err, want)
	}
	if _, err := ReadAll(cfg, tableWeights{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("other tables: ReadAll: error %v, want %q", err, want)
	}
}

func TestCheckNames(t *testing.T) {
	cfg := oddConfig(true)
	var names []string
	for _, p := range cfg.Parameters(false) {
		names = append(names, p.Name)
	}
	names = append(names, "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", unusedBias)
	if err := CheckNames(cfg, names); err != nil {
		t.Error(err)
	}
	for want, extra := range map[string][]string{
		"tensor encoder.block.2.layer.0.layer_norm.weight is left over": {"encoder.block.2.layer.0.layer_norm.weight"},
		"tensor a.SCB and 2 others are left over":                       {"a.SCB", "b", "c"},
	} {
		if err := CheckNames(cfg, slices.Concat(names, extra)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
