//go:build onednn && cgo

package model

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestBF16AtT5Base: at T5-Base's shape a bfloat16 step's loss is within 1% of the float32 step's,
// and its gradient points the same way.
func TestBF16AtT5Base(t *testing.T) {
	if testing.Short() {
		t.Skip("T5-Base takes gigabytes and half a minute")
	}
	r := rand.New(rand.NewPCG(1, 2))
	ids := func(n int) []int32 {
		x := make([]int32, n)
		for i := range x {
			x[i] = int32(r.IntN(32000))
		}
		return x
	}
	pairs := []Pair{{Source: ids(120), Target: ids(4)}, {Source: ids(37), Target: ids(2)}}
	var prompt []float32
	var losses []float64
	var grads [][]float32
	for _, dtype := range DTypes() {
		b, err := OpenRandom("t5-base", 1, Options{Engine: "onednn", DType: dtype})
		if err != nil {
			t.Fatal(err)
		}
		if prompt == nil {
			prompt = make([]float32, 100*b.Dim())
			for i := range prompt { // about as large as an embedding
				prompt[i] = float32(r.NormFloat64())
			}
		}
		res, grad, err := b.LossGrad(prompt, pairs)
		if err != nil {
			t.Fatal(err)
		}
		losses, grads = append(losses, res.Loss), append(grads, grad)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	var dot, n0, n1 float64
	for i, g := range grads[0] {
		dot += float64(g) * float64(grads[1][i])
		n0 += float64(g) * float64(g)
		n1 += float64(grads[1][i]) * float64(grads[1][i])
	}
	cosine := dot / math.Sqrt(n0*n1)
	t.Logf("loss %v in float32, %v in bfloat16; gradient of norm %.4g and %.4g, cosine %.5f",
		losses[0], losses[1], math.Sqrt(n0), math.Sqrt(n1), cosine)
	if d := math.Abs(losses[1]-losses[0]) / losses[0]; !(d <= 0.01) {
		t.Errorf("loss %v in bfloat16, want %v within 1%%", losses[1], losses[0])
	}
	if !(cosine >= 0.999) {
		t.Errorf("cosine %v between the gradients, want 0.999 or more", cosine)
	}
}
