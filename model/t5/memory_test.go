package t5

import (
	"fmt"
	"slices"
	"testing"

	"github.com/dptune/dpt/model/engine/portable"
	"github.com/dptune/dpt/model/lab/meter"
)

// TestMemoryEstimates: calls take at most the estimated memory, and not much less when it counts,
// with and without absorption.
func TestMemoryEstimates(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	const c, maxNew = 20, 12
	for _, gated := range []bool{false, true} {
		for _, opt := range []Options{{}, {NoAbsorption: true}, {NoFirstLayer: true}} {
			t.Run(fmt.Sprintf("gated=%v/%+v", gated, opt), func(t *testing.T) {
				cfg := Config{
					ModelType:        "t5",
					VocabSize:        100,
					DModel:           64,
					DKV:              16,
					DFF:              128,
					NumLayers:        6,
					NumDecoderLayers: 6,
					NumHeads:         4,
					RelativeBuckets:  8,
					RelativeDistance: 10,
					LayerNormEpsilon: 1e-6,
					GatedGELU:        gated,
					ScaleOutput:      !gated,
				}
				eng := meter.New(portable.New[float32](2))
				defer eng.Close()
				m, err := New(eng, cfg, randomWeights{lmHead: gated}, opt)
				if err != nil {
					t.Fatal(err)
				}
				pairs, prompt := benchPairs(3, cfg.VocabSize), make([]float32, c*cfg.DModel)
				losses, grad := make([]float64, len(pairs)), make([]float64, len(prompt))
				check := func(what string, least float64, estimate func(p Pair) int, call func() error) {
					m.begin()
					eng.Reset()
					if err := call(); err != nil {
						t.Fatal(err)
					}
					sum := 0
					for _, p := range pairs {
						sum += estimate(p)
					}
					peak := eng.PeakElems()
					if share := float64(peak) / float64(sum); share > 1 || share < least {
						t.Errorf("%s keeps %d numbers, estimated are %d", what, peak, sum)
					} else {
						t.Logf("%s keeps %.2f of what is estimated", what, share)
					}
				}
				check("LossGrad", 0.85, func(p Pair) int { return m.pairElems(c, p, true) }, func() error {
					return m.LossGrad(prompt, pairs, losses, grad)
				})
				check("Score", 0.4, func(p Pair) int { return m.pairElems(c, p, false) }, func() error {
					return m.Score(prompt, pairs, losses)
				})
				check("Evaluate", 0.4, func(p Pair) int {
					return max(m.pairElems(c, p, false), m.sourceElems(c, len(p.Source), maxNew))
				}, func() error {
					_, err := m.Evaluate(prompt, pairs, maxNew, losses)
					return err
				})
			})
		}
	}
}

func TestPasses(t *testing.T) {
	for _, c := range []struct {
		sizes []int
		limit int
		ends  []int
	}{
		{[]int{1, 1, 1, 1, 1, 1, 1, 1}, 0, []int{8}},
		{[]int{1, 1, 1, 1, 1, 1, 1, 1}, 8, []int{8}},
		{[]int{1, 1, 1, 1, 1, 1, 1, 1}, 7, []int{4, 8}},
		{[]int{1, 1, 1, 1, 1, 1, 1}, 3, []int{3, 5, 7}},
		{[]int{9, 9, 9}, 1, []int{1, 2, 3}},
		{[]int{9, 1, 1, 9, 1}, 9, []int{1, 3, 4, 5}},
		{[]int{5, 4, 3, 2, 1}, 10, []int{2, 5}},
	} {
		m := &Model{opt: Options{MaxElems: c.limit}}
		var ends []int
		for lo := 0; lo < len(c.sizes); {
			lo = m.passEnd(lo, len(c.sizes), func(i int) int { return c.sizes[i] })
			ends = append(ends, lo)
		}
		if !slices.Equal(ends, c.ends) {
			t.Errorf("%v within %d: passes end at %v, want %v", c.sizes, c.limit, ends, c.ends)
		}
	}
}

func TestShapes(t *testing.T) {
	// The weights of embeddings, attention and feed-forward layers, without norms and biases.
	parameters := map[string]int{
		"t5-small":      60_506_112,
		"t5-base":       222_882_048,
		"t5-large":      737_626_112,
		"t5-v1_1-small": 60_490_496 + 32128*512,
	}
	for _, name := range Shapes() {
		c, err := Shape(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		attention, ff := 4*c.DModel*c.inner(), 2*c.DModel*c.DFF
		n := c.VocabSize*c.DModel + c.NumLayers*(attention+ff) + c.NumDecoderLayers*(2*attention+ff)
		if c.GatedGELU {
			n += c.VocabSize*c.DModel + (c.NumLayers+c.NumDecoderLayers)*c.DModel*c.DFF
		}
		if want := parameters[name]; want != 0 && (n > want || n < want-want/200) {
			t.Errorf("%s has %d weights, want about %d", name, n, want)
		}
	}
	if _, err := Shape("t5-3b"); err == nil {
		t.Error("t5-3b: no error")
	}
}
