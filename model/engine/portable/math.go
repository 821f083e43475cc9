package portable

import (
	"math"
	"unsafe"
)

// maximum returns the maximum of x, which is not empty. It ignores a NaN anywhere but in front; the
// exponentials that follow keep it.
func maximum[F Float](x []F) F {
	m := x[0]
	for _, v := range x[1:] {
		if v > m {
			m = v
		}
	}
	return m
}

// expSub sets x to exp(x - c) and returns the sum.
func expSub[F Float](x []F, c F) float64 {
	var sum float64
	if unsafe.Sizeof(c) == 4 {
		x32, c32 := as[float32](x), float32(c)
		for i, v := range x32 {
			v = exp32(v - c32)
			x32[i] = v
			sum += float64(v)
		}
		return sum
	}
	for i, v := range x {
		e := math.Exp(float64(v - c))
		x[i] = F(e)
		sum += e
	}
	return sum
}

// sumExpSub returns the sum of exp(x - c).
func sumExpSub[F Float](x []F, c F) float64 {
	var sum float64
	if unsafe.Sizeof(c) == 4 {
		c32 := float32(c)
		for _, v := range as[float32](x) {
			sum += float64(exp32(v - c32))
		}
		return sum
	}
	for _, v := range x {
		sum += math.Exp(float64(v - c))
	}
	return sum
}

const (
	log2e = 1.44269504088896340736
	// ln2Hi has few enough bits that n·ln2Hi is exact for the n below.
	ln2Hi = 0.693359375
	ln2Lo = -2.12194440054690583e-4
)

// exp32 is eˣ within two units in the last place. Results below the normal range are 0; NaN stays
// NaN.
func exp32(x float32) float32 {
	if x < -87.33 {
		return 0
	}
	if !(x < 88.02) {
		if x > 88.72284 {
			return float32(math.Inf(1))
		}
		return float32(math.Exp(float64(x))) // the last octave, and NaN
	}
	// x = n·ln 2 + r with |r| ≤ ln 2 / 2. Adding 2²³·1.5 rounds to an integer in the low
	// bits.
	const round = 1.5 * (1 << 23)
	n := (x*log2e + round) - round
	r := (x - n*ln2Hi) - n*ln2Lo
	p := float32(1.0 / 5040)
	p = p*r + 1.0/720
	p = p*r + 1.0/120
	p = p*r + 1.0/24
	p = p*r + 1.0/6
	p = p*r + 0.5
	p = p*(r*r) + r + 1
	return p * math.Float32frombits(uint32(int32(n)+127)<<23)
}

const (
	geluScale = 0.7978845608028653559 // sqrt(2/π)
	geluCubic = 0.044715
)

// tanh is computed from exp. Its error near 0 is absolute; gelu adds 1 to the result, so that the
// error does not show.
func tanh[F Float](x F) F {
	if unsafe.Sizeof(x) == 4 {
		v := float32(x)
		if v > 10 {
			return 1
		}
		if v < -10 {
			return -1
		}
		return F(1 - 2/(exp32(2*v)+1))
	}
	return F(math.Tanh(float64(x)))
}

// gelu is the tanh form of GELU.
func gelu[F Float](x F) F {
	t := tanh(geluScale * (x + geluCubic*x*x*x))
	return 0.5 * x * (1 + t)
}

// geluGrad returns gelu(x) and its derivative.
func geluGrad[F Float](x F) (y, dy F) {
	t := tanh(geluScale * (x + geluCubic*x*x*x))
	du := geluScale * (1 + 3*geluCubic*x*x)
	return 0.5 * x * (1 + t), 0.5*(1+t) + 0.5*x*(1-t*t)*du
}

// sigmoid is 1 / (1 + e⁻ˣ).
func sigmoid[F Float](x F) F {
	if unsafe.Sizeof(x) == 4 {
		return F(1 / (1 + exp32(-float32(x))))
	}
	return F(1 / (1 + math.Exp(-float64(x))))
}
