package pretrain

import (
	"math/bits"
	"math/rand/v2"
	"slices"
)

// random draws numbers by rules of this file from a generator whose stream is fixed, so that a
// run's data do not change with the Go version.
type random struct{ src *rand.PCG }

func newRandom(seed, stream uint64) *random { return &random{rand.NewPCG(seed, stream)} }

// below draws from [0, n). Its bias of n/2⁶⁴ is negligible.
func (r *random) below(n int) int {
	hi, _ := bits.Mul64(r.src.Uint64(), uint64(n))
	return int(hi)
}

// share draws from [0, 1).
func (r *random) share() float64 { return float64(r.src.Uint64()>>11) / (1 << 53) }

// partition cuts n into parts of at least 1, each way equally likely.
func (r *random) partition(n, parts int) []int {
	// parts-1 different places between n things, drawn by Floyd's method.
	cuts := make([]int, 0, parts+1)
	for j := n - parts; j < n-1; j++ {
		c := r.below(j+1) + 1
		if slices.Contains(cuts, c) {
			c = j + 1
		}
		cuts = append(cuts, c)
	}
	slices.Sort(cuts)
	last := 0
	for i, c := range cuts {
		cuts[i], last = c-last, c
	}
	return append(cuts, n-last)
}
