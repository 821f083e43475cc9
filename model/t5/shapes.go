package t5

import (
	"fmt"
	"strings"
)

// Shapes returns the names that Shape knows.
func Shapes() []string {
	return []string{"t5-small", "t5-base", "t5-large", "t5-v1_1-small", "t5-v1_1-base", "t5-v1_1-large"}
}

// Shape returns the architecture of the published checkpoint of that name.
func Shape(name string) (Config, error) {
	c := Config{
		ModelType: "t5", VocabSize: 32128, DKV: 64, RelativeBuckets: 32, RelativeDistance: 128, LayerNormEpsilon: 1e-6,
		ScaleOutput: true, EOSTokenIDs: []int32{1},
	}
	size := strings.TrimPrefix(name, "t5-")
	if v11 := strings.TrimPrefix(size, "v1_1-"); v11 != size {
		size, c.GatedGELU, c.ScaleOutput = v11, true, false
	}
	switch {
	case name == size:
	case size == "small" && c.GatedGELU:
		c.DModel, c.DFF, c.NumHeads, c.NumLayers = 512, 1024, 6, 8
	case size == "small":
		c.DModel, c.DFF, c.NumHeads, c.NumLayers = 512, 2048, 8, 6
	case size == "base":
		c.DModel, c.DFF, c.NumHeads, c.NumLayers = 768, 3072, 12, 12
	case size == "large":
		c.DModel, c.DFF, c.NumHeads, c.NumLayers = 1024, 4096, 16, 24
	}
	if c.DModel == 0 {
		return Config{}, fmt.Errorf("shape %s, want one of %s", name, strings.Join(Shapes(), ", "))
	}
	if c.GatedGELU && size != "small" {
		c.DFF = c.DFF * 2 / 3 // 2048 and, for large, 2816: the next multiple of 256
		c.DFF = (c.DFF + 255) / 256 * 256
	}
	c.NumDecoderLayers = c.NumLayers
	return c, nil
}

// StepFLOPs counts the multiplications and additions of the matrix products of a loss and its
// gradient with respect to a prompt of that many rows, by the standard algorithm: frozen weights
// have no gradients, every layer projects every row, backward keeps the attention's probabilities.
// There is no padding.
func (c Config) StepFLOPs(rows int, pairs []Pair) float64 {
	d, inner, f := float64(c.DModel), float64(c.inner()), float64(c.DFF)
	ff := 2 * d * f
	if c.gated() {
		ff = 3 * d * f
	}
	var macs float64
	for _, p := range pairs {
		n, t := float64(rows+len(p.Source)), float64(len(p.Target))
		// A linear layer's product runs once in each direction; attention's two run once forward
		// and twice backward.
		encoder := 2*n*(4*d*inner+ff) + 6*n*n*inner
		decoder := 2*t*(6*d*inner+ff) + 2*n*2*d*inner + 6*t*t*inner + 6*t*n*inner
		macs += float64(c.NumLayers)*encoder + float64(c.NumDecoderLayers)*decoder + 2*t*d*float64(c.VocabSize)
	}
	return 2 * macs
}
