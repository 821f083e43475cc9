package simulation

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/dptune/dpt/model"
)

// backbone is a simulated backbone in place of T5: each pair pulls the prompt towards a target of
// its own. Losses and gradients are pure functions of prompt and pair; time passes while it
// computes them.
type backbone struct {
	dim      int
	digest   [32]byte
	pairTime func() time.Duration                   // how long one pair takes
	callTime func(pairs []model.Pair) time.Duration // how long a whole call takes; nil: the sum of pairTime
}

func (b *backbone) Dim() int           { return b.dim }
func (b *backbone) Name() string       { return "simulated" }
func (b *backbone) EngineName() string { return "simulated" }
func (b *backbone) Numerics() string   { return "simulated" }
func (b *backbone) Digest() [32]byte   { return b.digest }
func (b *backbone) Close() error       { return nil }

// target returns a pair's target: number i of it is what number i of the prompt is pulled to, in
// [-1, 1).
func target(p model.Pair) func(i int) float64 {
	h := fnv.New64a()
	for _, ids := range [][]int32{p.Source, p.Target} {
		for _, id := range ids {
			h.Write(binary.LittleEndian.AppendUint32(nil, uint32(id)))
		}
	}
	key := h.Sum64()
	return func(i int) float64 {
		x := (key + uint64(i)) * 0x9e3779b97f4a7c15
		x ^= x >> 29
		x *= 0xbf58476d1ce4e5b9
		return float64(x>>11)/(1<<52) - 1
	}
}

// LossGrads returns the losses and the gradient of each micro-batch.
func (b *backbone) LossGrads(prompt []float32, microBatches [][]model.Pair) ([]model.Result, [][]float32, error) {
	results, grads := make([]model.Result, len(microBatches)), make([][]float32, len(microBatches))
	for i, pairs := range microBatches {
		results[i], grads[i] = b.lossGrad(prompt, pairs)
	}
	return results, grads, nil
}

// lossGrad returns half the squared distance of the prompt to each pair's target, and its gradient.
func (b *backbone) lossGrad(prompt []float32, pairs []model.Pair) (model.Result, []float32) {
	if b.callTime != nil {
		time.Sleep(b.callTime(pairs))
	} else {
		for range pairs {
			time.Sleep(b.pairTime())
		}
	}
	res := model.Result{Losses: make([]float64, len(pairs)), Counts: make([]int, len(pairs))}
	grad := make([]float32, len(prompt))
	for k, p := range pairs {
		at := target(p)
		for i, v := range prompt {
			d := float64(v) - at(i)
			res.Losses[k] += d * d / 2
			grad[i] += float32(d)
		}
		res.Counts[k] = len(p.Target)
		res.Loss += res.Losses[k]
		res.Tokens += res.Counts[k]
	}
	return res, grad
}

// Evaluate outputs a pair's Target if the prompt's first number has the same sign as the first
// number that the pair pulls it to, and nothing otherwise.
func (b *backbone) Evaluate(
	prompt []float32, pairs []model.Pair, maxNew int,
) ([][]int32, model.Result, error) {
	res, _ := b.lossGrad(prompt, pairs)
	out := make([][]int32, len(pairs))
	for k, p := range pairs {
		if (prompt[0] < 0) == (target(p)(0) < 0) && len(p.Target) > 0 {
			out[k] = p.Target[:min(len(p.Target)-1, maxNew)]
		}
	}
	return out, res, nil
}
