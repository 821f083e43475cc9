package allreduce

import (
	"fmt"
	"math"
	"math/bits"
)

const (
	// fractionBits is the number of bits behind the binary point: the unit is 2^-96.
	fractionBits = 96
	// rangeEnd is the end of the representable range: [-2^31, 2^31).
	rangeEnd = 1 << 31
)

// word is one signed 128-bit number in two's complement.
type word struct{ lo, hi uint64 }

// Accumulator is a vector of signed 128-bit fixed-point numbers with the unit
// 2^-96, that is of values in [-2^31, 2^31). Adding to it is integer addition
// and so independent of order; it never wraps: an addition that would leave the
// range is an error. An Accumulator is for one goroutine at a time.
type Accumulator struct {
	words []word
}

// NewAccumulator returns an accumulator of n zeros.
func NewAccumulator(n int) *Accumulator {
	return &Accumulator{words: make([]word, n)}
}

// length is the number of numbers.
func (a *Accumulator) length() int { return len(a.words) }

// Reset makes every number zero.
func (a *Accumulator) Reset() { clear(a.words) }

// Equal reports whether both hold the same integers.
func (a *Accumulator) Equal(b *Accumulator) bool {
	if len(a.words) != len(b.words) {
		return false
	}
	for i := range a.words {
		if a.words[i] != b.words[i] {
			return false
		}
	}
	return true
}

// Limit returns the limit to give to Add and AddFloat64 so that `contributions`
// additions to one number, over all ranks together, cannot leave the range:
// 2^30, or 2^31/contributions rounded down to a power of two if that is less.
//
// Proof. Let L be the limit and c the number of contributions, so c·L <= 2^31. A
// contribution v has |v| < L. L is a power of two of at least 2^-32 (an int
// holds c < 2^63), and the largest float32 or float64 below L is a multiple of the
// unit, so rounding to the unit cannot reach L either: |round(v)| < L. Every sum that is
// ever formed, in a rank's accumulator or on its way round the ring, is the sum
// of a subset of the contributions, hence less than c·L <= 2^31 in magnitude. No
// assumption is made about order, grouping or the number of ranks.
//
// Less than one contribution counts as one.
func Limit(contributions int) float64 {
	exponent := 31 - bits.Len(uint(max(contributions, 1)-1))
	return math.Ldexp(1, min(exponent, 30))
}

// Add adds values to the numbers offset, offset+1, ... Values of magnitude
// 2^-73 or more are added exactly, smaller ones are rounded to a multiple of
// 2^-96, halves to even.
//
// A value that is not finite or whose magnitude is not below limit is a
// *RangeError, a sum that would leave the range an *OverflowError; on any error
// the accumulator is unchanged. limit is above 0 and at most 2^31; take it from Limit.
func (a *Accumulator) Add(offset int, values []float32, limit float64) error {
	if err := checkLimit(limit); err != nil {
		return err
	}
	if offset < 0 || offset > len(a.words)-len(values) {
		return fmt.Errorf("add %d values at offset %d: the accumulator holds %d", len(values), offset, len(a.words))
	}
	for i, v := range values {
		if !(math.Abs(float64(v)) < limit) {
			return &RangeError{Index: offset + i, Value: float64(v), Limit: limit}
		}
	}
	dst := a.words[offset : offset+len(values)]
	var overflow uint64
	for i, v := range values {
		var o uint64
		dst[i], o = dst[i].plus(fromFloat32(v))
		overflow |= o
	}
	if overflow>>63 == 0 {
		return nil
	}
	// Subtraction modulo 2^128 undoes addition modulo 2^128, whether it wrapped or not.
	index := -1
	for i, v := range values {
		x := fromFloat32(v)
		dst[i] = dst[i].minus(x)
		if _, o := dst[i].plus(x); o>>63 != 0 && index < 0 {
			index = offset + i
		}
	}
	return &OverflowError{Index: index}
}

// AddFloat64 adds v to number i: exactly if |v| >= 2^-44, else rounded as in Add.
// Errors are as in Add.
func (a *Accumulator) AddFloat64(i int, v float64, limit float64) error {
	if err := checkLimit(limit); err != nil {
		return err
	}
	if !(math.Abs(v) < limit) {
		return &RangeError{Index: i, Value: v, Limit: limit}
	}
	return a.addWord(i, fromFloat64(v))
}

// AddInt adds the integer v to number i. A magnitude of 2^31 or more is a
// *RangeError, a sum that would leave the range an *OverflowError; both leave the
// accumulator unchanged.
func (a *Accumulator) AddInt(i int, v int64) error {
	if v <= -rangeEnd || v >= rangeEnd {
		return &RangeError{Index: i, Value: float64(v), Limit: rangeEnd}
	}
	return a.addWord(i, word{hi: uint64(v) << (fractionBits - 64)})
}

func (a *Accumulator) addWord(i int, x word) error {
	sum, overflow := a.words[i].plus(x)
	if overflow>>63 != 0 {
		return &OverflowError{Index: i}
	}
	a.words[i] = sum
	return nil
}

// Float64 returns number i, rounded once to the nearest float64, halves to even.
func (a *Accumulator) Float64(i int) float64 { return a.words[i].float64() }

// Int returns number i if it is an integer.
func (a *Accumulator) Int(i int) (int64, error) {
	w := a.words[i]
	if w.lo != 0 || uint32(w.hi) != 0 {
		return 0, fmt.Errorf("number %d of the accumulator is %v, want an integer", i, w.float64())
	}
	return int64(w.hi) >> (fractionBits - 64), nil
}

func checkLimit(limit float64) error {
	if limit > 0 && limit <= rangeEnd {
		return nil
	}
	return fmt.Errorf("limit of a contribution is %v, want above 0 and at most 2^31", limit)
}

// RangeError says that a contribution cannot be added: it is not finite, or too
// large for the sum to be safe.
type RangeError struct {
	Index int     // in the accumulator
	Value float64 // what was to be added
	Limit float64 // magnitudes below it are allowed
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("number %d: contribution %v, want a magnitude below %v", e.Index, e.Value, e.Limit)
}

// OverflowError says that a sum would leave the range [-2^31, 2^31), which
// happens only when more is added than the limit was made for.
type OverflowError struct {
	Index int // in the accumulator
}

func (e *OverflowError) Error() string {
	return fmt.Sprintf("number %d: the sum leaves the range ±2^31", e.Index)
}
