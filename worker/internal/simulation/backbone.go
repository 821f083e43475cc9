package simulation

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/dptune/dpt/model"
)

// backbone stands in for T5: each pair pulls the prompt towards a point of its own. Losses and gradients are pure
// functions of prompt and pair; time passes while they are computed.
type backbone struct {
	dim    int
	digest [32]byte
	pace   func() time.Duration                   // of one pair
	took   func(pairs []model.Pair) time.Duration // of all of a call, in place of pace; nil leaves pace
}

func (b *backbone) Dim() int           { return b.dim }
func (b *backbone) Name() string       { return "simulated" }
func (b *backbone) EngineName() string { return "simulated" }
func (b *backbone) Numerics() string   { return "simulated" }
func (b *backbone) Digest() [32]byte   { return b.digest }
func (b *backbone) Close() error       { return nil }

// point is where pair pulls number i of the prompt, in [-1, 1).
func point(p model.Pair) func(i int) float64 {
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

// LossGrad is half the squared distance of the prompt to each pair's point, and its gradient.
func (b *backbone) LossGrad(prompt []float32, pairs []model.Pair) (model.Result, []float32, error) {
	if b.took != nil {
		time.Sleep(b.took(pairs))
	} else {
		for range pairs {
			time.Sleep(b.pace())
		}
	}
	res := model.Result{Losses: make([]float64, len(pairs)), Counts: make([]int, len(pairs))}
	grad := make([]float32, len(prompt))
	for k, p := range pairs {
		at := point(p)
		for i, v := range prompt {
			d := float64(v) - at(i)
			res.Losses[k] += d * d / 2
			grad[i] += float32(d)
		}
		res.Counts[k] = len(p.Target)
		res.Loss += res.Losses[k]
		res.Tokens += res.Counts[k]
	}
	return res, grad, nil
}

// Evaluate answers a pair with its target if the prompt's first number lies on the same side of 0 as the pair's point.
func (b *backbone) Evaluate(prompt []float32, pairs []model.Pair, maxNew int) ([][]int32, model.Result, error) {
	res, _, err := b.LossGrad(prompt, pairs)
	out := make([][]int32, len(pairs))
	for k, p := range pairs {
		if (prompt[0] < 0) == (point(p)(0) < 0) && len(p.Target) > 0 {
			out[k] = p.Target[:min(len(p.Target)-1, maxNew)]
		}
	}
	return out, res, err
}
