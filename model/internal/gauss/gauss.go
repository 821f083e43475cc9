// Package gauss draws normally distributed numbers that are the same to the
// last bit on every platform and with every Go version.
//
// The random bits are ChaCha8's, whose stream math/rand/v2 guarantees. Marsaglia's
// polar method in float64 makes normal numbers of them, with a logarithm of this
// package: the one in package math is assembly on some architectures, and on
// others the compiler fuses its products and sums.
package gauss

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// Source is a stream of independent normal numbers.
type Source struct {
	rng   *rand.ChaCha8
	spare float64
	have  bool
}

// New returns the stream that belongs to a seed and a name. Different names
// give independent streams.
func New(seed uint64, name string) *Source {
	key := binary.LittleEndian.AppendUint64([]byte("dpt gauss 1"), seed)
	return &Source{rng: rand.NewChaCha8(sha256.Sum256(append(key, name...)))}
}

// Fill sets each number of out to a draw from N(0, std²).
func (s *Source) Fill(out []float32, std float64) {
	for i := range out {
		out[i] = float32(float64(std * s.next()))
	}
}

// next returns a draw from N(0, 1).
func (s *Source) next() float64 {
	if s.have {
		s.have = false
		return s.spare
	}
	for {
		u, v := s.uniform(), s.uniform()
		r := float64(u*u) + float64(v*v)
		if r >= 1 || r == 0 {
			continue
		}
		f := math.Sqrt(float64(-2*ln(r)) / r)
		s.spare, s.have = float64(v*f), true
		return float64(u * f)
	}
}

// uniform returns a multiple of 2^-52 in [-1, 1).
func (s *Source) uniform() float64 {
	return float64(float64(s.rng.Uint64()>>11)*(1.0/(1<<52))) - 1
}

// ln returns the natural logarithm of a positive x, to a few units in the last
// place: with x = 2^e·f and f near 1, ln f = 2·artanh((f-1)/(f+1)).
func ln(x float64) float64 {
	f, e := math.Frexp(x)
	if f < math.Sqrt2/2 {
		f, e = 2*f, e-1
	}
	s := (f - 1) / (f + 1) // |s| < 0.172
	q := float64(s * s)
	sum := 0.0
	for n := 23; n >= 3; n -= 2 { // q^11/23 < 1e-18
		sum = float64(q * (sum + 1/float64(n)))
	}
	return float64(float64(e)*math.Ln2) + float64(float64(2*s)*(1+sum))
}

// FillUniform sets each number of out to a draw from the uniform distribution
// over [-half, half).
func (s *Source) FillUniform(out []float32, half float64) {
	for i := range out {
		out[i] = float32(float64(half * s.uniform()))
	}
}
