package parity_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/t5"
)

// trainer opens a model of testdata to train its weights, and its batch.
func trainer(t *testing.T, name string) (*t5.Trainer, []float32, []t5.Parameter, []t5.Pair) {
	t.Helper()
	m, err := checkpoint.OpenModel(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	cfg, err := t5.ParseConfig(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	weights, err := t5.ReadAll(cfg, m)
	if err != nil {
		t.Fatal(err)
	}
	eng, err := model.OpenEngine(model.Options{Device: model.CPU})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	})
	tr, err := t5.NewTrainer(eng, cfg, t5.Tied(m), weights)
	if err != nil {
		t.Fatal(err)
	}
	var batch struct {
		Pairs []struct{ Source, Target []int32 }
	}
	data, err := os.ReadFile(filepath.Join("testdata", name, "batch.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &batch); err != nil {
		t.Fatal(err)
	}
	var pairs []t5.Pair
	for _, p := range batch.Pairs {
		pairs = append(pairs, t5.Pair(p))
	}
	return tr, weights, cfg.Parameters(t5.Tied(m)), pairs
}

// step returns the mean token loss and sets grad to its gradient.
func step(t *testing.T, tr *t5.Trainer, pairs []t5.Pair, grad []float32) float64 {
	t.Helper()
	losses := make([]float64, len(pairs))
	if err := tr.LossGrad(pairs, losses, grad); err != nil {
		t.Fatal(err)
	}
	var loss float64
	tokens := 0
	for i, p := range pairs {
		loss, tokens = loss+losses[i], tokens+len(p.Target)
	}
	for i := range grad {
		grad[i] /= float32(tokens)
	}
	return loss / float64(tokens)
}

// TestWeightGradients: the gradient with respect to every weight is PyTorch's.
func TestWeightGradients(t *testing.T) {
	for _, name := range tiny {
		t.Run(name, func(t *testing.T) {
			tr, weights, params, pairs := trainer(t, name)
			grad := make([]float32, len(weights))
			step(t, tr, pairs, grad)
			want := tensors(t, filepath.Join(name, "weights.safetensors"))
			for _, p := range params {
				within(t, p.Name, relativeNorm(grad[p.Offset:p.Offset+p.Size()], want(p.Name, p.Shape...)),
					gradientBound)
			}
		})
	}
}

// TestFineTuning: five steps of clipped AdamW on all weights give PyTorch's results.
func TestFineTuning(t *testing.T) {
	for _, name := range tiny {
		t.Run(name, func(t *testing.T) {
			var want struct {
				LR          float64 `json:"lr"`
				WeightDecay float64 `json:"weight_decay"`
				MaxNorm     float64 `json:"max_norm"`
				Steps       []struct {
					Loss float64
					Norm float64 `json:"grad_norm"`
				}
			}
			readJSON(t, filepath.Join(name, "weights.json"), &want)
			tr, weights, _, pairs := trainer(t, name)
			s, grad := optim.NewState(weights), make([]float32, len(weights))
			for _, w := range want.Steps {
				loss := step(t, tr, pairs, grad)
				norm := optim.ClipGlobalNorm(grad, want.MaxNorm)
				if err := optim.NewAdamW(want.LR, want.WeightDecay).Update(s, grad, 1); err != nil {
					t.Fatal(err)
				}
				if err := tr.Set(s.Params); err != nil {
					t.Fatal(err)
				}
				within(t, "loss", relative(loss, w.Loss), trajectoryBound)
				within(t, "gradient norm", relative(norm, w.Norm), trajectoryBound)
			}
		})
	}
}
