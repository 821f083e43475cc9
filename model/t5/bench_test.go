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

// randomWeights are made up by name as they are asked for, scaled as T5 initializes, so that activations stay in its range.
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

// t5Small is the shape of google-t5/t5-small.
func t5Small() Config {
	return Config{
		ModelType: "t5", VocabSize: 32128, DModel: 512, DKV: 64, DFF: 2048, NumLayers: 6, NumDecoderLayers: 6, NumHeads: 8,
		RelativeBuckets: 32, RelativeDistance: 128, LayerNormEpsilon: 1e-6, ScaleOutput: true, EOSTokenIDs: []int32{1},
	}
}

// stepFlops counts the multiplications and additions of the matrix products in LossGrad, attention's included (in backward with its
// recomputed scores); they are what an engine is measured by. Skipped zeros count as if computed.
func stepFlops(c Config, prompt int, pairs []Pair) float64 {
	d, inner, f := float64(c.DModel), float64(c.Inner()), float64(c.DFF)
	ff := 2 * d * f
	if c.GatedGELU {
		ff = 3 * d * f
	}
	var fwd, bwd float64
	for _, p := range pairs {
		n, t := float64(prompt+len(p.Source)), float64(len(p.Target))
		enc := n * (4*d*inner + ff)
		fwd += float64(c.NumLayers) * (enc + 2*n*n*inner)
		bwd += float64(c.NumLayers)*(enc+5*n*n*inner) - (n)*3*d*inner
		dec := t * (6*d*inner + ff)
		kv := n * 2 * d * inner
		fwd += float64(c.NumDecoderLayers)*(dec+kv+2*t*t*inner+2*t*n*inner) + t*d*float64(c.VocabSize)
		bwd += float64(c.NumDecoderLayers)*(dec+kv+5*t*t*inner+5*t*n*inner) + t*d*float64(c.VocabSize)
	}
	return 2 * (fwd + bwd)
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
	for _, gated := range []bool{false, true} {
		cfg := t5Small()
		name := "relu"
		if gated {
			cfg.GatedGELU, cfg.DFF, name = true, 1024, "gated"
		}
		for threads := 1; threads <= runtime.GOMAXPROCS(0); threads *= 2 {
			b.Run(fmt.Sprintf("%s/threads=%d", name, threads), func(b *testing.B) {
				eng := portable.New[float32](threads)
				defer eng.Close()
				m, err := New(eng, cfg, randomWeights{}, Options{})
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
				b.ReportMetric(stepFlops(cfg, 100, pairs)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				b.ReportMetric(float64(tokens*b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}
