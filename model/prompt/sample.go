package prompt

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
)

// Sample draws n of the numbers 0 to population-1, without replacement unless n
// exceeds population. The result depends only on the arguments and is the same
// on every platform. population must be positive.
func Sample(population, n int, seed uint64) []int {
	rng := rand.NewChaCha8(sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("dpt sample 1"), seed)))
	below := func(n uint64) int {
		// The largest multiple of n that fits: draws at and above it would favor small numbers.
		most := -(-n % n) // 2^64 rounded down to a multiple of n; 0 is 2^64 itself
		for {
			if v := rng.Uint64(); most == 0 || v < most {
				return int(v % n)
			}
		}
	}
	out := make([]int, n)
	if n > population {
		for i := range out {
			out[i] = below(uint64(population))
		}
		return out
	}
	all := make([]int, population)
	for i := range all {
		all[i] = i
	}
	for i := range out {
		j := i + below(uint64(population-i))
		all[i], all[j] = all[j], all[i]
		out[i] = all[i]
	}
	return out
}
