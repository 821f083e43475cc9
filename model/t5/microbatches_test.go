package t5

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dptune/dpt/model/engine/portable"
)

// TestMicroBatchesTogether: several micro-batches in one call give each the bits that it has alone,
// wherever passes begin.
func TestMicroBatchesTogether(t *testing.T) {
	for variant, opt := range variants {
		for _, gated := range []bool{false, true} {
			t.Run(fmt.Sprintf("gated=%v/%s/float32", gated, variant), func(t *testing.T) {
				checkMicroBatches[float32](t, gated, opt)
			})
			t.Run(fmt.Sprintf("gated=%v/%s/float64", gated, variant), func(t *testing.T) {
				checkMicroBatches[float64](t, gated, opt)
			})
		}
	}
}

func checkMicroBatches[F portable.Float](t *testing.T, gated bool, opt Options) {
	cfg := oddConfig(gated)
	weights := randomWeights{lmHead: gated}
	alone := newModel[F](t, cfg, weights, opt)
	r := rand.New(rand.NewPCG(11, 12))
	for round := range 12 {
		prompt := make([]float32, r.IntN(4)*cfg.DModel)
		for i := range prompt {
			prompt[i] = float32(r.NormFloat64())
		}
		pairs, sizes := randomMicroBatches(r, cfg.VocabSize)

		// One by one. Gradients are added to what was there.
		losses, grads := make([]float64, len(pairs)), make([]float64, len(sizes)*len(prompt))
		for i := range grads {
			grads[i] = float64(i)
		}
		wantLosses, want := slices.Clone(losses), slices.Clone(grads)
		first := 0
		for i, n := range sizes {
			err := alone.LossGrad(prompt, pairs[first:first+n], wantLosses[first:first+n],
				want[i*len(prompt):(i+1)*len(prompt)])
			if err != nil {
				t.Fatal(err)
			}
			first += n
		}

		// All at once, in about one, two or three passes.
		m := alone
		if passes := 1 + round%3; passes > 1 && opt.MaxElems == 0 {
			all := 0
			for _, p := range pairs {
				all += alone.pairElems(len(prompt)/cfg.DModel, p, true)
			}
			opt := opt
			opt.MaxElems = max(all/passes, 1)
			m = newModel[F](t, cfg, weights, opt)
		}
		if err := m.LossGrads(prompt, pairs, sizes, losses, grads); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(losses, wantLosses) {
			t.Errorf("round %d: micro-batches of %v pairs have losses %v together, want %v",
				round, sizes, losses, wantLosses)
		}
		if !slices.Equal(grads, want) {
			t.Errorf("round %d: micro-batches of %v pairs have other gradients together than alone", round, sizes)
		}
	}
}

// randomMicroBatches are pairs of many lengths, and how many are in each micro-batch: none, at
// times.
func randomMicroBatches(r *rand.Rand, vocab int) (pairs []Pair, sizes []int) {
	ids := func(n int) []int32 {
		x := make([]int32, n)
		for i := range x {
			x[i] = int32(r.IntN(vocab))
		}
		return x
	}
	for range 1 + r.IntN(6) {
		n := r.IntN(4)
		for range n {
			pairs = append(pairs, Pair{Source: ids(1 + r.IntN(30)), Target: ids(1 + r.IntN(20))})
		}
		sizes = append(sizes, n)
	}
	return pairs, sizes
}

func TestLossGradsChecksSizes(t *testing.T) {
	m := newModel[float32](t, oddConfig(false), randomWeights{}, Options{})
	pairs, prompt := oddPairs(), make([]float32, 2*m.cfg.DModel)
	losses, grads := make([]float64, len(pairs)), make([]float64, 2*len(prompt))
	for _, sizes := range [][]int{{1, 2}, {4, 1}, {4}, {2, 1, 1}, {5, -1}} {
		if err := m.LossGrads(prompt, pairs, sizes, losses, grads); err == nil {
			t.Errorf("%d pairs and 2 gradients in micro-batches of %v: no error", len(pairs), sizes)
		}
	}
	if err := m.LossGrads(prompt, pairs, []int{1, 3}, losses, grads); err != nil {
		t.Error(err)
	}
}
