package model

import (
	"math"
	"slices"
	"testing"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/lab/unfused"
)

// TestSavings: switching a saving off changes losses and gradients only by rounding.
func TestSavings(t *testing.T) {
	pairs := randomPairs(6, 100)
	pairs[2].Target = append(slices.Clone(pairs[2].Target), 5, 6, 7, 8, 9)
	var prompt []float32
	run := func(o Options) (Result, []float32) {
		o.Threads = 2
		b, err := Open(goldenDir, o)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if prompt == nil {
			prompt = randomPrompt(5, b.Dim())
		}
		res, grad, err := b.LossGrad(prompt, pairs)
		if err != nil {
			t.Fatal(err)
		}
		return res, grad
	}
	want, wantGrad := run(Options{})
	cases := map[string]Options{
		"frozen":            {TrainWeights: true},
		"absorption":        {DisableAbsorption: true},
		"first layer":       {DisableFirstLayer: true},
		"fused":             {Wrap: func(e engine.Engine) engine.Engine { return unfused.New(e.(engine.Trainer)) }},
		"target projection": {PadTargets: true},
	}
	if slices.Contains(Engines(), "onednn") {
		cases["packing"] = Options{DisablePacking: true}
	} else if err := (Options{DisablePacking: true}).Check(); err == nil {
		t.Error("a build without an engine that packs weights goes without packing")
	}
	for name, o := range cases {
		got, grad := run(o)
		var diff, norm float64
		for i, g := range grad {
			diff += math.Pow(float64(g)-float64(wantGrad[i]), 2)
			norm += math.Pow(float64(wantGrad[i]), 2)
		}
		if !(math.Abs(got.Loss-want.Loss) <= 1e-5*want.Loss) || !(diff <= 1e-8*norm) {
			t.Errorf("without %s: loss %v, want %v; gradient differs by %.2g of %.2g",
				name, got.Loss, want.Loss, math.Sqrt(diff), math.Sqrt(norm))
		}
	}
}

// holder is an engine that reports the memory that it holds.
type holder interface{ Memory() (blocks, bytes int) }

// TestSteadyStateStep: a step that ran before on the best engine of the build takes no memory, of
// the engine or of Go, but for its results.
func TestSteadyStateStep(t *testing.T) {
	for _, dtype := range DTypes() {
		o := Options{DType: dtype, Threads: 2, MaxMemory: 1 << 20}
		if o.Check() != nil {
			continue // this build's engines lack it
		}
		b, err := Open(tinyModel, o)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		pairs, prompt := randomPairs(12, b.VocabSize()), randomPrompt(20, b.Dim())
		losses, grad := make([]float64, len(pairs)), make([]float64, len(prompt))
		step := func() {
			if err := b.t5.LossGrad(prompt, pairs, losses, grad); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			step()
		}
		held := func() [2]int {
			h, ok := b.eng.(holder)
			if !ok {
				return [2]int{}
			}
			blocks, bytes := h.Memory()
			return [2]int{blocks, bytes}
		}
		before := held()
		if _, ok := b.eng.(holder); ok && before[1] == 0 {
			t.Error("the engine says that it holds nothing")
		}
		if n := testing.AllocsPerRun(5, step); n > 0 {
			t.Errorf("%s: a step allocates %v times", dtype, n)
		}
		if after := held(); after != before {
			t.Errorf("%s: the engine's blocks and bytes were %v before steps that had run before, and are %v",
				dtype, before, after)
		}
	}
}
