package t5

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/dptune/dpt/model/engine/portable"
)

// randomWeights are random tensors, determined by their names and scaled as T5 initializes, so that
// activations stay in its range.
type randomWeights struct{ lmHead bool }

func (w randomWeights) Has(name string) bool {
	return name == "shared.weight" || w.lmHead && name == "lm_head.weight"
}

func (w randomWeights) Float32(name string, shape ...int) ([]float32, error) {
	h := fnv.New64a()
	h.Write([]byte(name))
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	n := 1
	for _, s := range shape {
		n *= s
	}
	data := make([]float32, n)
	scale, shift := 1/math.Sqrt(float64(shape[len(shape)-1])), 0.0
	switch {
	case len(shape) == 1:
		scale, shift = 0.1, 1 // a norm's gain
	case name == "shared.weight":
		scale = 1
	}
	for i := range data {
		data[i] = float32(shift + scale*r.NormFloat64())
	}
	return data, nil
}

func benchPairs(n, vocab int) []Pair {
	r := rand.New(rand.NewPCG(7, 8))
	pairs := make([]Pair, n)
	for i := range pairs {
		pairs[i] = Pair{Source: make([]int32, 60+r.IntN(140)), Target: make([]int32, 2+r.IntN(6))}
		for _, ids := range [][]int32{pairs[i].Source, pairs[i].Target} {
			for j := range ids {
				ids[j] = int32(r.IntN(vocab))
			}
		}
	}
	return pairs
}

// BenchmarkT5SmallLossGrad is a gradient of 4 examples behind a prompt of 100 at T5-Small's shape.
func BenchmarkT5SmallLossGrad(b *testing.B) {
	run := func(gated bool, variant string, opt Options) {
		cfg, err := Shape("t5-small")
		if err != nil {
			b.Fatal(err)
		}
		name := "relu"
		if gated {
			cfg.GatedGELU, cfg.DFF, name = true, 1024, "gated"
		}
		for threads := 1; threads <= runtime.GOMAXPROCS(0); threads *= 2 {
			b.Run(fmt.Sprintf("%s/%s/threads=%d", name, variant, threads), func(b *testing.B) {
				eng := portable.New[float32](threads)
				defer eng.Close()
				m, err := New(eng, cfg, randomWeights{}, opt)
				if err != nil {
					b.Fatal(err)
				}
				pairs := benchPairs(4, cfg.VocabSize)
				prompt := make([]float32, 100*cfg.DModel)
				for i := range prompt {
					prompt[i] = float32(math.Sin(float64(i)))
				}
				losses, grad := make([]float64, len(pairs)), make([]float64, len(prompt))
				tokens := 0
				for _, p := range pairs {
					tokens += len(p.Source) + len(p.Target)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := m.LossGrad(prompt, pairs, losses, grad); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(cfg.StepFLOPs(100, pairs)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				b.ReportMetric(float64(tokens*b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
	for _, gated := range []bool{false, true} {
		run(gated, "all", Options{})
		run(gated, "no absorption", Options{NoAbsorption: true})
		run(gated, "no first layer", Options{NoFirstLayer: true})
	}
}
