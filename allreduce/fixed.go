package allreduce

import (
	"math"
	"math/bits"
)

// A shift count in this file may be 64 or more, or be the wrapped difference of
// two unsigned counts, which is huge: Go defines such shifts to give zero, so that
// in a sum of shifted halves exactly the right terms vanish.

// plus returns w+x modulo 2^128. The top bit of overflow is set if the signed
// sum does not fit.
func (w word) plus(x word) (sum word, overflow uint64) {
	var carry uint64
	sum.lo, carry = bits.Add64(w.lo, x.lo, 0)
	sum.hi, _ = bits.Add64(w.hi, x.hi, carry)
	return sum, (w.hi ^ sum.hi) & (x.hi ^ sum.hi)
}

// minus returns w-x modulo 2^128.
func (w word) minus(x word) (difference word) {
	var borrow uint64
	difference.lo, borrow = bits.Sub64(w.lo, x.lo, 0)
	difference.hi, _ = bits.Sub64(w.hi, x.hi, borrow)
	return difference
}

// shiftedLeft returns m·2^s modulo 2^128.
func shiftedLeft(m uint64, s uint) word {
	return word{lo: m << s, hi: m>>(64-s) | m<<(s-64)}
}

// shiftedUp returns w·2^s modulo 2^128.
func (w word) shiftedUp(s uint) word {
	return word{lo: w.lo << s, hi: w.hi<<s | w.lo>>(64-s) | w.lo<<(s-64)}
}

// shiftedRight returns w/2^s, rounded down, for s < 128.
func (w word) shiftedRight(s uint) word {
	if s >= 64 {
		return word{lo: uint64(int64(w.hi) >> (s - 64)), hi: uint64(int64(w.hi) >> 63)}
	}
	return word{lo: w.lo>>s | w.hi<<(64-s), hi: uint64(int64(w.hi) >> s)}
}

// fromFloat32 returns v in units of 2^-96, rounded to nearest even. |v| < 2^31.
func fromFloat32(v float32) word {
	const bias, mantissa = 127, 23
	b := math.Float32bits(v)
	exponent := int(b>>mantissa) & 0xff
	if exponent == 0 {
		return word{} // zero or below 2^-126: rounds to zero
	}
	m := uint64(b&(1<<mantissa-1) | 1<<mantissa)
	return signedShift(m, exponent-bias-mantissa+fractionBits, uint64(int64(int32(b)>>31)))
}

// fromFloat64 returns v in units of 2^-96, rounded to nearest even. |v| < 2^31.
func fromFloat64(v float64) word {
	const bias, mantissa = 1023, 52
	b := math.Float64bits(v)
	exponent := int(b>>mantissa) & 0x7ff
	if exponent == 0 {
		return word{}
	}
	m := b&(1<<mantissa-1) | 1<<mantissa
	return signedShift(m, exponent-bias-mantissa+fractionBits, uint64(int64(b)>>63))
}

// signedShift returns m·2^shift, rounded to nearest even, negated if sign is all
// ones (else it is 0). m < 2^53, and the result fits.
func signedShift(m uint64, shift int, sign uint64) word {
	var w word
	if shift >= 0 {
		w = shiftedLeft(m, uint(shift))
	} else {
		w.lo = word{lo: m}.roundedShift(uint(-shift))
	}
	var carry uint64
	w.lo, carry = bits.Add64(w.lo^sign, sign&1, 0)
	w.hi = (w.hi ^ sign) + carry
	return w
}

// roundedShift returns w/2^s rounded to nearest even, for an unsigned w whose
// quotient fits into 64 bits.
func (w word) roundedShift(s uint) uint64 {
	if s == 0 {
		return w.lo
	}
	q := w.lo>>s | w.hi<<(64-s) | w.hi>>(s-64)
	rest := w.minus(shiftedLeft(q, s))
	half := shiftedLeft(1, s-1)
	above := rest.hi > half.hi || rest.hi == half.hi && rest.lo > half.lo
	// A shift of more than 128 makes half vanish, but then w, which has at most
	// 128 bits, is below it.
	if s <= 128 && (above || rest == half && q&1 == 1) {
		q++
	}
	return q
}

// float64 returns the number that w stands for, rounded to nearest even.
func (w word) float64() float64 {
	negative := int64(w.hi) < 0
	if negative {
		w = word{}.minus(w) // the smallest number stays 2^127, which is its magnitude
	}
	length := bits.Len64(w.lo)
	if w.hi != 0 {
		length = 64 + bits.Len64(w.hi)
	}
	drop := max(length-53, 0)
	// The rounded quotient is at most 2^53 and the result at least 2^-96: both
	// the conversion and the scaling are exact.
	v := math.Ldexp(float64(w.roundedShift(uint(drop))), drop-fractionBits)
	if negative {
		return -v
	}
	return v
}
