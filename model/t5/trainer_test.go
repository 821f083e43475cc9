package t5

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/engine/portable"
)

func newTrainer[F portable.Float](t *testing.T, threads int, cfg Config, w Weights) (*Trainer, []float32) {
	t.Helper()
	eng := portable.New[F](threads)
	t.Cleanup(func() { eng.Close() })
	all, err := ReadAll(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := NewTrainer(eng, cfg, Tied(w), all)
	if err != nil {
		t.Fatal(err)
	}
	return tr, all
}

// TestWeightGradientsAgainstFiniteDifferences differentiates with respect to elements of every
// weight, in float64, at weights and steps that float32 holds exactly.
func TestWeightGradientsAgainstFiniteDifferences(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	for _, c := range []struct{ gated, silu, tied bool }{
		{false, false, true}, {true, false, false}, {true, false, true}, {true, true, true},
	} {
		t.Run(fmt.Sprintf("gated=%v/silu=%v/tied=%v", c.gated, c.silu, c.tied), func(t *testing.T) {
			cfg := oddConfig(c.gated)
			cfg.GatedGELU, cfg.GatedSiLU = c.gated && !c.silu, c.silu
			w := randomWeights{lmHead: !c.tied}
			tr, all := newTrainer[float64](t, 1, cfg, w)
			const step = 1.0 / (1 << 14)
			for i, v := range all {
				all[i] = float32(math.Round(float64(v)/step) * step)
			}
			pairs := oddPairs()
			losses, grad := make([]float64, len(pairs)), make([]float32, len(all))
			if err := tr.Set(all); err != nil {
				t.Fatal(err)
			}
			if err := tr.LossGrad(pairs, losses, grad); err != nil {
				t.Fatal(err)
			}
			loss := func() float64 {
				if err := tr.Set(all); err != nil {
					t.Fatal(err)
				}
				if err := tr.Model().Score(nil, pairs, losses); err != nil {
					t.Fatal(err)
				}
				var sum float64
				for _, l := range losses {
					sum += l
				}
				return sum
			}
			for _, p := range cfg.Parameters(c.tied) {
				for at := 0; at < p.Size(); at += 1 + p.Size()/7 {
					i := p.Offset + at
					v := all[i]
					all[i] = v + step
					up := loss()
					all[i] = v - step
					down := loss()
					all[i] = v
					want := (up - down) / (2 * step)
					if math.Abs(float64(grad[i])-want) > 2e-6*max(1, math.Abs(want)) {
						t.Errorf("%s: element %d: gradient %.9g, finite difference %.9g", p.Name, at, grad[i], want)
					}
				}
			}
		})
	}
}

// TestTrainerBits: losses are the Model's, and gradients depend neither on threads nor on earlier
// calls.
func TestTrainerBits(t *testing.T) {
	cfg := oddConfig(true)
	w := randomWeights{lmHead: true}
	pairs := oddPairs()
	tr, all := newTrainer[float32](t, 1, cfg, w)
	many, _ := newTrainer[float32](t, 3, cfg, w)
	losses, want := make([]float64, len(pairs)), make([]float64, len(pairs))
	first, grad := make([]float32, len(all)), make([]float32, len(all))
	if err := tr.LossGrad(pairs, losses, first); err != nil {
		t.Fatal(err)
	}
	if err := tr.Model().Score(nil, pairs, want); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(losses, want) {
		t.Errorf("losses %v, Score gives %v", losses, want)
	}
	for _, other := range []*Trainer{tr, many} {
		if err := other.LossGrad(pairs[1:3], losses[:2], grad); err != nil {
			t.Fatal(err)
		}
		if err := other.Set(all); err != nil {
			t.Fatal(err)
		}
		if err := other.LossGrad(pairs, losses, grad); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(grad, first) {
			t.Error("the gradient has other bits the second time")
		}
	}
}

func TestTrainerErrors(t *testing.T) {
	cfg := oddConfig(false)
	tr, all := newTrainer[float32](t, 1, cfg, randomWeights{})
	pairs := oddPairs()
	if err := tr.LossGrad(pairs, make([]float64, 1), all); err == nil {
		t.Error("too few losses were taken")
	}
	if err := tr.LossGrad(pairs, make([]float64, len(pairs)), all[1:]); err == nil {
		t.Error("too small a gradient was taken")
	}
	if err := tr.LossGrad([]Pair{{Source: []int32{99}, Target: []int32{1}}}, make([]float64, 1), all); err == nil {
		t.Error("an id outside the vocabulary was taken")
	}
	if err := tr.Set(all[1:]); err == nil {
		t.Error("too few weights were taken")
	}
	umt5 := cfg
	umt5.ModelType, umt5.LayerBiases = "umt5", true
	if _, err := NewTrainer(tr.eng, umt5, true, all); err == nil || !strings.Contains(err.Error(), `"umt5"`) {
		t.Errorf("a trainer of a bias in every layer: error %v", err)
	}
	if _, err := NewTrainer(tr.eng, cfg, true, all[1:]); err == nil {
		t.Error("a trainer was made of too few weights")
	}
}
