package model

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/internal/gauss"
	"github.com/dptune/dpt/model/t5"
)

// oddShapes are sizes of which one is much smaller or larger than the others. In the published
// t5-efficient-*-kv16 and -nh1, keys and values of all heads together are narrower than half of
// d_model.
var oddShapes = []struct{ dModel, dKV, heads, dFF int }{
	{8, 1, 1, 4},
	{64, 8, 2, 96},
	{16, 2, 3, 8},
	{17, 8, 1, 3},
	{11, 5, 3, 14},
	{4, 8, 3, 20},
	{16, 16, 1, 16},
	{16, 15, 1, 16},
	{1, 1, 1, 1},
}

// writeRandom writes a checkpoint of random weights in the shape cfg and returns its directory.
func writeRandom(t *testing.T, cfg t5.Config) string {
	t.Helper()
	encoded, err := cfg.JSON(true, "float32")
	if err != nil {
		t.Fatal(err)
	}
	var tensors []checkpoint.Tensor
	for _, p := range cfg.Parameters(true) {
		values := make([]float32, p.Size())
		std := 1 / math.Sqrt(float64(p.Shape[len(p.Shape)-1]))
		if p.Name == "shared.weight" {
			std = 1
		}
		gauss.New(1, p.Name).Fill(values, std)
		if strings.HasSuffix(p.Name, "norm.weight") {
			for i := range values {
				values[i] = 1
			}
		}
		tensors = append(tensors, checkpoint.F32(p.Name, p.Shape, values))
	}
	dir := t.TempDir()
	if err := checkpoint.WriteModel(dir, encoded, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestOddShapes: whatever the sizes are, every engine decodes the tokens of the largest
// teacher-forced logits, before and after it projects the encoder's output, and computes the
// losses and the gradient that the portable engine computes.
func TestOddShapes(t *testing.T) {
	const maxNew = 24
	for i, s := range oddShapes {
		dir := writeRandom(t, t5.Config{
			ModelType:        "t5",
			VocabSize:        31,
			DModel:           s.dModel,
			DKV:              s.dKV,
			DFF:              s.dFF,
			NumLayers:        2,
			NumDecoderLayers: 2,
			NumHeads:         s.heads,
			RelativeBuckets:  8,
			RelativeDistance: 10,
			LayerNormEpsilon: 1e-6,
			GatedGELU:        i%3 == 1,
			GatedSiLU:        i%3 == 2,
			EOSTokenIDs:      []int32{1},
		})
		reference := openWith(t, dir, Options{Engine: "portable", Threads: 1})
		for _, name := range Engines() {
			t.Run(fmt.Sprintf("%s/%+v", name, s), func(t *testing.T) {
				checkOddShape(t, openWith(t, dir, Options{Engine: name, Threads: 2}), reference, maxNew)
			})
		}
	}
}

func checkOddShape(t *testing.T, b, reference *Backbone, maxNew int) {
	pairs := randomPairs(9, b.VocabSize())
	prompt := randomPrompt(3, b.Dim())
	res, grad, err := b.LossGrad(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	want, wantGrad, err := reference.LossGrad(prompt, pairs)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range want.Losses {
		if math.Abs(res.Losses[i]-l) > 1e-4*max(1, l) {
			t.Errorf("pair %d: loss %v, want %v", i, res.Losses[i], l)
		}
	}
	var diff, norm float64
	for i, g := range wantGrad {
		diff += math.Pow(float64(grad[i]-g), 2)
		norm += math.Pow(float64(g), 2)
	}
	if math.Sqrt(diff) > 1e-3*math.Sqrt(norm)+1e-6 {
		t.Errorf("the gradient differs by %v of %v", math.Sqrt(diff), math.Sqrt(norm))
	}

	sources := make([][]int32, len(pairs))
	for i, p := range pairs {
		sources[i] = p.Source
	}
	out, err := b.Generate(prompt, sources, maxNew)
	if err != nil {
		t.Fatal(err)
	}
	for i, ids := range out {
		target := slices.Clone(ids)
		if len(ids) < maxNew {
			target = append(target, 1)
		}
		logits, err := b.Logits(prompt, []Pair{{Source: sources[i], Target: target}})
		if err != nil {
			t.Fatal(err)
		}
		for j, id := range target {
			row := logits[0][j*b.VocabSize() : (j+1)*b.VocabSize()]
			if best := slices.Max(row); row[id] < best-1e-3 {
				t.Errorf("source %d, token %d: chose %d with logit %v, the best is %v", i, j, id, row[id], best)
			}
		}
	}
}
