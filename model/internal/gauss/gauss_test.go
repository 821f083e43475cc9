package gauss

import (
	"math"
	"testing"
)

func TestLn(t *testing.T) {
	for x := 1e-300; x < 1e300; x *= 1.37 {
		if got, want := ln(x), math.Log(x); math.Abs(got-want) > 4e-16*max(math.Abs(want), 0.5) {
			t.Errorf("ln(%g) = %v, want %v", x, got, want)
		}
	}
	if got := ln(1); got != 0 {
		t.Errorf("ln(1) = %v", got)
	}
}

// TestBits pins the stream: changing it would change every training run.
func TestBits(t *testing.T) {
	s := New(7, "A")
	want := []uint64{0xbfc6517c4d767a72, 0xbfe8ee82594fab4c, 0x3ff39f827ad516f4, 0xbff882ad678c4754}
	for i, w := range want {
		if got := math.Float64bits(s.next()); got != w {
			t.Errorf("number %d has the bits %#016x, want %#016x", i, got, w)
		}
	}
}

// TestDistribution checks the first four moments and the share in the tails
// against a normal distribution's, within five standard errors.
func TestDistribution(t *testing.T) {
	const n = 200_000
	s := New(1, "moments")
	var m1, m2, m3, m4 float64
	tails := 0
	for range n {
		x := s.next()
		m1 += x
		m2 += x * x
		m3 += x * x * x
		m4 += x * x * x * x
		if math.Abs(x) > 3 {
			tails++
		}
	}
	for _, c := range []struct {
		name             string
		got, want, sigma float64
	}{
		{"mean", m1 / n, 0, 1},
		{"variance", m2 / n, 1, math.Sqrt(2)},
		{"third moment", m3 / n, 0, math.Sqrt(15)},
		{"fourth moment", m4 / n, 3, math.Sqrt(96)},
		{"beyond three", float64(tails) / n, 0.0026998, math.Sqrt(0.0027)},
	} {
		if d := math.Abs(c.got - c.want); d > 5*c.sigma/math.Sqrt(n) {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestStreamsDiffer(t *testing.T) {
	first := New(1, "A").next()
	for _, other := range []*Source{New(2, "A"), New(1, "B"), New(256, "A")} {
		if other.next() == first {
			t.Error("two streams start alike")
		}
	}
	a, b := make([]float32, 5), make([]float32, 5)
	New(1, "A").Fill(a, 1)
	New(1, "A").Fill(b, 0.5)
	for i := range a {
		if b[i] != a[i]/2 {
			t.Errorf("number %d is %v at half the deviation, want %v", i, b[i], a[i]/2)
		}
	}
}
