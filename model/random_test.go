package model

import (
	"math"
	"strings"
	"testing"
)

// TestOpenRandom: T5-Small's shape computes, and an untrained model's loss is roughly that of a
// guess.
func TestOpenRandom(t *testing.T) {
	if testing.Short() {
		t.Skip("makes up 60 million weights")
	}
	b, err := OpenRandom("t5-small", 1, Options{Device: CPU, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	res, grad, err := b.LossGrad(randomPrompt(3, b.Dim()), []Pair{{Source: []int32{5, 9, 1}, Target: []int32{7, 1}}})
	if err != nil {
		t.Fatal(err)
	}
	var norm float64
	for _, g := range grad {
		norm += float64(g) * float64(g)
	}
	if guess := math.Log(float64(b.VocabSize())); !(math.Abs(res.Loss/2-guess) < 3) || norm == 0 {
		t.Errorf("mean token loss %v and gradient norm %v, want a loss near %v", res.Loss/2, math.Sqrt(norm), guess)
	}
	if _, err := OpenRandom("t5-3b", 1, Options{}); err == nil || !strings.Contains(err.Error(), "t5-small") {
		t.Errorf("t5-3b: %v", err)
	}
}
