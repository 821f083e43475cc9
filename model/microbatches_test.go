package model

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/lab/meter"
	"github.com/dptune/dpt/model/lab/unfused"
)

// TestMicroBatchesTogether: on every engine of the build and in every dtype, micro-batches in one
// call have the losses and gradients that they have alone, also where a pass begins in the middle
// of one.
func TestMicroBatchesTogether(t *testing.T) {
	wraps := map[string]func(engine.Engine) engine.Engine{
		"":        nil,
		"metered": func(e engine.Engine) engine.Engine { return meter.New(e) },
		"unfused": func(e engine.Engine) engine.Engine { return unfused.New(e.(engine.Trainer)) },
	}
	for _, name := range Engines() {
		for _, dtype := range DTypes() {
			for wrap, f := range wraps {
				o := Options{Device: CPU, Engine: name, DType: dtype, Threads: 2, Wrap: f}
				if o.Check() != nil {
					continue // the engine lacks the dtype
				}
				for _, dir := range goldenDirs {
					t.Run(strings.TrimSuffix(fmt.Sprintf("%s/%s/%s/%s", dir[len(dir)-3:], name, dtype, wrap), "/"),
						func(t *testing.T) { checkMicroBatches(t, dir, o) })
				}
			}
		}
	}
	t.Run("trained weights", func(t *testing.T) {
		checkMicroBatches(t, goldenDir, Options{Device: CPU, Engine: "portable", Threads: 2, TrainWeights: true})
	})
}

func checkMicroBatches(t *testing.T, dir string, o Options) {
	alone := openWith(t, dir, o)
	pairs, prompt := randomPairs(20, alone.VocabSize()), randomPrompt(9, alone.Dim())
	var microBatches [][]Pair
	for rest, n := pairs, 1; len(rest) > 0; n = n%4 + 1 {
		n = min(n, len(rest))
		microBatches, rest = append(microBatches, rest[:n]), rest[n:]
	}
	var want []Result
	var wantGrads [][]float32
	for _, pairs := range microBatches {
		res, grad, err := alone.LossGrad(prompt, pairs)
		if err != nil {
			t.Fatal(err)
		}
		want, wantGrads = append(want, res), append(wantGrads, grad)
	}
	for _, bytes := range []int64{0, 1, 600_000, 2_000_000} {
		o.MaxMemory = bytes
		b := openWith(t, dir, o)
		results, grads, err := b.LossGrads(prompt, microBatches)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if !slices.Equal(results[i].Losses, want[i].Losses) || results[i].Loss != want[i].Loss ||
				!slices.Equal(results[i].Counts, want[i].Counts) || results[i].Tokens != want[i].Tokens {
				t.Errorf("within %d bytes: micro-batch %d is %+v, want %+v", bytes, i, results[i], want[i])
			}
			if !slices.Equal(grads[i], wantGrads[i]) {
				t.Errorf("within %d bytes: micro-batch %d has another gradient than alone", bytes, i)
			}
		}
	}
}

// TestLossGradsNamesTheMicroBatch: errors name micro-batch and pair.
func TestLossGradsNamesTheMicroBatch(t *testing.T) {
	b := open(t, poisonedModel(t), 1)
	good, prompt := Pair{Source: []int32{5, 1}, Target: []int32{7, 1}}, randomPrompt(2, b.Dim())
	for _, c := range []struct {
		bad  Pair
		want string
	}{
		{Pair{Source: []int32{5, 200, 1}, Target: []int32{7, 1}}, "micro-batch 2: pair 1: "},
		{Pair{Target: []int32{1}}, "micro-batch 2: pair 1: source is empty"},
	} {
		_, _, err := b.LossGrads(prompt, [][]Pair{{good, good}, {good}, {good, c.bad}})
		var failed *MicroBatchError
		if !errors.As(err, &failed) || failed.Index != 2 || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("LossGrads: %v, want %q", err, c.want)
		}
		if _, _, err := b.LossGrad(prompt, []Pair{good, c.bad}); err == nil ||
			strings.Contains(err.Error(), "micro-batch") {
			t.Errorf("LossGrad: %v, want an error about a pair", err)
		}
	}
	prompt[3] = float32(math.Inf(1))
	if _, _, err := b.LossGrads(prompt, [][]Pair{{good}}); err == nil ||
		!strings.HasPrefix(err.Error(), "prompt number 3 is +Inf") {
		t.Errorf("LossGrads of an infinite prompt: %v", err)
	}
	if res, grads, err := b.LossGrads(nil, nil); err != nil || len(res) != 0 || len(grads) != 0 {
		t.Errorf("LossGrads of nothing: %v %v %v", res, grads, err)
	}
}
