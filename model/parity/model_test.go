package parity_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/prompt"
)

const (
	length     = 7
	bottleneck = 3
)

// batch is batch.json.
type batch struct {
	MaxNewTokens int `json:"max_new_tokens"`
	Pairs        []struct{ Source, Target []int32 }
}

func (b batch) pairs() []model.Pair {
	pairs := make([]model.Pair, len(b.Pairs))
	for i, p := range b.Pairs {
		pairs[i] = model.Pair{Source: p.Source, Target: p.Target}
	}
	return pairs
}

// outcome is one half of expected.json: the batch with or without the prompt.
type outcome struct {
	Loss   float64
	Losses []float64
	Tokens []int
	Greedy [][]int32
}

// TestForward compares logits, losses and greedy decoding with those of Transformers, with the
// prompt and without.
func TestForward(t *testing.T) {
	for _, name := range tiny {
		for _, mode := range []string{"prompt", "plain"} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				b := backbone(t, name)
				var in batch
				readJSON(t, name+"/batch.json", &in)
				var expected map[string]outcome
				readJSON(t, name+"/expected.json", &expected)
				want := expected[mode]
				var soft []float32
				if mode == "prompt" {
					soft = tensors(t, name+"/prompt.safetensors")("prompt", length, b.Dim())
				}
				pairs := in.pairs()

				rows := 0
				for _, p := range pairs {
					rows += len(p.Target)
				}
				logits, err := b.Logits(soft, pairs)
				if err != nil {
					t.Fatal(err)
				}
				wantLogits := tensors(t, name+"/expected.safetensors")(mode+".logits", rows, b.VocabSize())
				within(t, "logits", farthest(slices.Concat(logits...), wantLogits), logitBound)

				score, err := b.Score(soft, pairs)
				if err != nil {
					t.Fatal(err)
				}
				checkResult(t, score, want)

				sources := make([][]int32, len(pairs))
				for i, p := range pairs {
					sources[i] = p.Source
				}
				outputs, err := b.Generate(soft, sources, in.MaxNewTokens)
				if err != nil {
					t.Fatal(err)
				}
				for i := range sources {
					if !slices.Equal(outputs[i], want.Greedy[i]) {
						t.Errorf("greedy output of source %d is %v, want %v", i, outputs[i], want.Greedy[i])
					}
				}
			})
		}
	}
}

func checkResult(t *testing.T, got model.Result, want outcome) {
	t.Helper()
	if !slices.Equal(got.Counts, want.Tokens) {
		t.Fatalf("token counts are %v, want %v", got.Counts, want.Tokens)
	}
	within(t, "mean loss", relative(got.Loss/float64(got.Tokens), want.Loss), lossBound)
	worst := 0.0
	for i := range want.Losses {
		worst = max(worst, relative(got.Losses[i], want.Losses[i]))
	}
	within(t, "loss of a pair", worst, lossBound)
}

// TestGradient compares the loss and its gradients with respect to the prompt, A and B with
// PyTorch's.
func TestGradient(t *testing.T) {
	for _, name := range tiny {
		t.Run(name, func(t *testing.T) {
			b := backbone(t, name)
			var in batch
			readJSON(t, name+"/batch.json", &in)
			var expected map[string]outcome
			readJSON(t, name+"/expected.json", &expected)
			want := tensors(t, name+"/expected.safetensors")
			given := tensors(t, name+"/prompt.safetensors")
			e := b.Dim()

			cfg := prompt.Config{Method: "dpt", Dim: e, Length: length, Bottleneck: bottleneck}
			params := parameters(t, cfg, map[string][]float32{
				"A": given("A", e, bottleneck), "B": given("B", bottleneck, length),
			})
			graph, err := prompt.NewGraph(cfg)
			if err != nil {
				t.Fatal(err)
			}
			embeddings, err := graph.Embeddings(params)
			if err != nil {
				t.Fatal(err)
			}
			within(t, "prompt", relativeNorm(embeddings, given("prompt", length, e)), 1e-6)

			var dP []float32
			loss, grad, err := graph.Gradient(params, meanLoss(b, in.pairs(), &dP))
			if err != nil {
				t.Fatal(err)
			}
			within(t, "loss", relative(loss, expected["prompt"].Loss), lossBound)
			within(t, "loss against float64", relative(loss, expected["float64"].Loss), lossBound)
			within(t, "dP", relativeNorm(dP, want("dP", length, e)), gradientBound)
			within(t, "dP against float64", relativeNorm(dP, want("dP64", length, e)), gradientBound)
			for _, part := range cfg.Tensors() {
				got := grad[part.Offset : part.Offset+part.Size()]
				within(t, "d"+part.Name, relativeNorm(got, want("d"+part.Name, part.Shape...)), gradientBound)
			}
		})
	}
}

// parameters returns the flat parameters of cfg made of the tensors' values.
func parameters(t *testing.T, cfg prompt.Config, values map[string][]float32) []float32 {
	t.Helper()
	params := make([]float32, cfg.Size())
	for _, part := range cfg.Tensors() {
		v, ok := values[part.Name]
		if !ok || len(v) != part.Size() {
			t.Fatalf("the prompt's tensor %s has %d numbers, the golden's %d", part.Name, part.Size(), len(v))
		}
		copy(params[part.Offset:], v)
	}
	return params
}

// meanLoss is the batch's mean token loss, as Transformers defines it, and its gradient, which it
// also stores in last unless that is nil.
func meanLoss(b *model.Backbone, pairs []model.Pair, last *[]float32) prompt.Loss {
	return func(soft []float32) (float64, []float32, error) {
		result, grad, err := b.LossGrad(soft, pairs)
		if err != nil {
			return 0, nil, err
		}
		mean := make([]float32, len(grad))
		for i, g := range grad {
			mean[i] = g / float32(result.Tokens)
		}
		if last != nil {
			*last = mean
		}
		return result.Loss / float64(result.Tokens), mean, nil
	}
}

// TestGoldensDetectChanges: the goldens reveal a small mistake: with one token changed, no result
// agrees with them.
func TestGoldensDetectChanges(t *testing.T) {
	for _, name := range tiny {
		t.Run(name, func(t *testing.T) {
			b := backbone(t, name)
			var in batch
			readJSON(t, name+"/batch.json", &in)
			var expected map[string]outcome
			readJSON(t, name+"/expected.json", &expected)
			soft := slices.Clone(tensors(t, name+"/prompt.safetensors")("prompt", length, b.Dim()))
			longest := len(in.Pairs) - 1
			in.Pairs[longest].Source[0] ^= 1 // the farthest token, which only the outermost bucket reaches

			result, err := b.Score(soft, in.pairs())
			if err != nil {
				t.Fatal(err)
			}
			if d := relative(result.Losses[longest], expected["prompt"].Losses[longest]); d < 10*lossBound {
				t.Errorf("one changed token moves the loss by %.2g only; the goldens would miss a mistake", d)
			}
			for i := range longest {
				if d := relative(result.Losses[i], expected["prompt"].Losses[i]); d > lossBound {
					t.Errorf("pair %d moved by %.2g with a token of pair %d", i, d, longest)
				}
			}
		})
	}
}

// TestNames: the models of testdata have their names and sizes.
func TestNames(t *testing.T) {
	for _, name := range tiny {
		if b := backbone(t, name); !strings.Contains(b.Name(), name) || b.VocabSize() != 384 || b.Dim() != 32 {
			t.Errorf("%s opened as %q with %d ids and %d dimensions, want 384 and 32",
				name, b.Name(), b.VocabSize(), b.Dim())
		}
	}
}
