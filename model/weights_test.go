package model

import (
	"slices"
	"testing"

	"github.com/dptune/dpt/model/t5"
	"github.com/dptune/dpt/model/tiny"
)

// TestWeights: with the model's own weights the losses are the frozen model's, with other weights
// they differ, and the frozen model stays the same.
func TestWeights(t *testing.T) {
	b, err := Open(tinyModel, Options{Engine: "portable", Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ckpt, err := tiny.OpenModel(tinyModel)
	if err != nil {
		t.Fatal(err)
	}
	defer ckpt.Close()
	own, err := t5.ReadAll(b.t5.Config(), ckpt)
	if err != nil || len(own) != b.Weights() {
		t.Fatalf("%d weights (%v), want %d", len(own), err, b.Weights())
	}
	pairs := []Pair{
		{Source: []int32{70, 80, 90, 1}, Target: []int32{60, 1}}, {Source: []int32{99, 1}, Target: []int32{5, 6, 7, 1}},
	}
	frozen, err := b.Score(nil, pairs)
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if d := got/want - 1; d < -1e-5 || d > 1e-5 {
			t.Errorf("%s: loss %v, want %v", what, got, want)
		}
	}
	res, grad, err := b.WeightsLossGrad(own, pairs, nil)
	if err != nil {
		t.Fatal(err)
	}
	used := slices.Repeat([]float32{7}, len(own))
	if _, same, err := b.WeightsLossGrad(own, pairs, used); err != nil || &same[0] != &used[0] ||
		!slices.Equal(same, grad) {
		t.Errorf("a gradient in used memory (the same: %v) differs from that in new (%v)", &same[0] == &used[0], err)
	}
	near("own weights", res.Loss, frozen.Loss)
	// A step against the gradient, in place: the vector is the same slice, its values are not.
	for i, g := range grad {
		own[i] -= 1e-4 * g
	}
	outputs, after, err := b.WeightsEvaluate(own, pairs, 3)
	if err != nil || len(outputs) != len(pairs) || after.Loss >= res.Loss {
		t.Errorf("after a step downhill: loss %v (%v), want less than %v", after.Loss, err, res.Loss)
	}
	again, err := b.Score(nil, pairs)
	if err != nil || !slices.Equal(again.Losses, frozen.Losses) {
		t.Errorf("the frozen model's losses are %v (%v), want %v", again.Losses, err, frozen.Losses)
	}
	if _, _, err := b.WeightsLossGrad(own[1:], pairs, nil); err == nil {
		t.Error("too few weights were taken")
	}
	if _, _, err := b.WeightsEvaluate(own, []Pair{{Source: []int32{-1}}}, 1); err == nil {
		t.Error("an id outside the vocabulary was taken")
	}
}
