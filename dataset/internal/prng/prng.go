// Package prng draws the random numbers that decide which examples are seen and when. The committed
// result of a training job depends on them, so their bits are part of the format of a job and must
// never change, whatever Go version or platform runs it:
//
//   - The generator is ChaCha8 as math/rand/v2 implements it, which follows the fixed C2SP
//     chacha8rand specification.
//   - Its 32-byte key is the SHA-256 of the domain's length (8 bytes, little endian), the domain,
//     and each word (8 bytes, little endian). Distinct domains give unrelated streams.
//   - A number below n is the high half of the 128-bit product of a 64-bit output and n, with the
//     outputs rejected that would favour some numbers (Lemire's method). It is written out here
//     since the standard library does not promise its own.
//   - A permutation is Fisher-Yates from the last place down.
package prng

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// Source is one stream of random numbers. It is for one goroutine.
type Source struct {
	chacha *rand.ChaCha8
}

// New returns the stream of a domain and its words. The words are numbers such as a seed and an
// epoch.
func New(domain string, words ...uint64) *Source {
	key := make([]byte, 0, 8+len(domain)+8*len(words))
	key = binary.LittleEndian.AppendUint64(key, uint64(len(domain)))
	key = append(key, domain...)
	for _, w := range words {
		key = binary.LittleEndian.AppendUint64(key, w)
	}
	return &Source{chacha: rand.NewChaCha8(sha256.Sum256(key))}
}

// IntN returns a uniform random number in [0, n). It panics unless n > 0.
func (s *Source) IntN(n int) int {
	if n <= 0 {
		panic("prng: IntN of a number that is not positive")
	}
	bound := uint64(n)
	hi, lo := bits.Mul64(s.chacha.Uint64(), bound)
	if lo < bound {
		for reject := -bound % bound; lo < reject; {
			hi, lo = bits.Mul64(s.chacha.Uint64(), bound)
		}
	}
	return int(hi)
}

// Perm returns a uniform random permutation of 0..n-1.
func (s *Source) Perm(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	for i := n - 1; i > 0; i-- {
		j := s.IntN(i + 1)
		p[i], p[j] = p[j], p[i]
	}
	return p
}
