package simulation

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// seededRand returns the source of random numbers for a purpose, under a seed. The names tell the
// purpose: purposes do not take numbers from each other.
func seededRand(seed uint64, names ...string) *rand.Rand {
	h := sha256.New()
	h.Write(binary.LittleEndian.AppendUint64(nil, seed))
	for _, n := range names {
		h.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(n))))
		h.Write([]byte(n))
	}
	return rand.New(rand.NewChaCha8([32]byte(h.Sum(nil))))
}

// between draws a time in [lo, hi).
func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

// pick draws one of a list.
func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }
