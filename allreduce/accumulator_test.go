package allreduce

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// bigOf returns w as a big integer, in units of 2^-96.
func bigOf(w word) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(int64(w.hi)), 64)
	return n.Add(n, new(big.Int).SetUint64(w.lo))
}

// bigUnits returns v in units of 2^-96, rounded to nearest even, by exact rationals.
func bigUnits(v float64) *big.Int {
	r := new(big.Rat).SetFloat64(v)
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), fractionBits)))
	q, rest := new(big.Int).QuoRem(new(big.Int).Abs(r.Num()), r.Denom(), new(big.Int))
	if c := rest.Lsh(rest, 1).Cmp(r.Denom()); c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(1))
	}
	if r.Sign() < 0 {
		q.Neg(q)
	}
	return q
}

// bigFloat64 returns units·2^-96, rounded to the nearest float64.
func bigFloat64(units *big.Int) float64 {
	f := new(big.Float).SetPrec(200).SetInt(units)
	v, _ := f.SetMantExp(f, -fractionBits).Float64()
	return v
}

// randomFloat32 has any exponent below 2^30 and any sign, zeros and subnormals included.
func randomFloat32(rng *rand.Rand) float32 {
	for {
		v := math.Float32frombits(rng.Uint32())
		if math.Abs(float64(v)) < 1<<20 {
			return v
		}
	}
}

var interesting = []float64{
	0, math.Copysign(0, -1), 1, -1, 0.1, -0.1, 1<<30 - 64, -(1<<30 - 64), math.Pi,
	0x1p-72, -0x1p-72, 0x1.fffffep-73, 0x1.fffffep-74,
	0x1p-95, 0x1p-96, 0x1p-97, -0x1p-97, 0x1.8p-96, 0x1.8p-97, -0x1.8p-96,
	0x1.000002p-97, 0x1p-98, 0x1.fffffep-98, 0x1p-126, 0x1p-149, -0x1p-149,
	0x1.fffffep29, 0x1p-32, 0x1.000002p-32, 0x1.fffffep-33,
}

// mergeFrom adds the numbers of b, which must have the same length, to those of a. On an
// *OverflowError a is unchanged.
func (a *Accumulator) mergeFrom(b *Accumulator) error {
	if len(a.words) != len(b.words) {
		return fmt.Errorf("merge accumulators: %d numbers into %d", len(b.words), len(a.words))
	}
	for i, x := range b.words {
		if _, o := a.words[i].plus(x); o>>63 != 0 {
			return &OverflowError{Index: i}
		}
	}
	for i, x := range b.words {
		a.words[i], _ = a.words[i].plus(x)
	}
	return nil
}

func TestAddRoundsOnceToTheUnit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	values := make([]float32, 0, 5000)
	for _, v := range interesting {
		values = append(values, float32(v))
	}
	for len(values) < cap(values) {
		values = append(values, randomFloat32(rng))
	}
	a := NewAccumulator(len(values))
	if err := a.Add(0, values, Limit(1)); err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if got, want := bigOf(a.words[i]), bigUnits(float64(v)); got.Cmp(want) != 0 {
			t.Errorf("float32 %v: got %v units, want %v", v, got, want)
		}
		if math.Abs(float64(v)) >= 0x1p-73 && a.Float64(i) != float64(v) {
			t.Errorf("float32 %v: comes back as %v", v, a.Float64(i))
		}
	}
	for _, v := range append(interesting, 0x1.fffffffffffffp29, 0x1.fffffffffffffp-45, 0x1.fffffffffffffp-44, 1.0/3) {
		a.Reset()
		if err := a.AddFloat64(0, v, Limit(1)); err != nil {
			t.Fatal(err)
		}
		if got, want := bigOf(a.words[0]), bigUnits(v); got.Cmp(want) != 0 {
			t.Errorf("float64 %v: got %v units, want %v", v, got, want)
		}
	}
}

func TestSumsAreExactInAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const numbers, contributions = 33, 64
	var all [contributions][]float32
	want := make([]*big.Int, numbers)
	for i := range want {
		want[i] = new(big.Int)
	}
	for c := range all {
		for i := range numbers {
			v := randomFloat32(rng)
			all[c] = append(all[c], v)
			want[i].Add(want[i], bigUnits(float64(v)))
		}
	}
	for range 10 {
		// A random split over a few accumulators, merged in a random order.
		parts := make([]*Accumulator, 1+rng.IntN(5))
		for i := range parts {
			parts[i] = NewAccumulator(numbers)
		}
		for _, c := range rng.Perm(contributions) {
			cut := rng.IntN(numbers + 1)
			p := parts[rng.IntN(len(parts))]
			if err := errors.Join(
				p.Add(cut, all[c][cut:], Limit(contributions)),
				p.Add(0, all[c][:cut], Limit(contributions)),
			); err != nil {
				t.Fatal(err)
			}
		}
		sum := NewAccumulator(numbers)
		for _, i := range rng.Perm(len(parts)) {
			if err := sum.mergeFrom(parts[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i := range want {
			if got := bigOf(sum.words[i]); got.Cmp(want[i]) != 0 {
				t.Fatalf("number %d: got %v units, want %v", i, got, want[i])
			}
			if got := sum.Float64(i); got != bigFloat64(want[i]) {
				t.Fatalf("number %d: got %v, want %v", i, got, bigFloat64(want[i]))
			}
		}
	}
}

func TestLimitKeepsSumsInRange(t *testing.T) {
	for _, c := range []int{-1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 1000, 1024, 1025, 1 << 20, 1<<31 + 1, math.MaxInt} {
		limit := Limit(c)
		n := float64(max(c, 1))
		if limit > 1<<30 || limit*n > 1<<31 {
			t.Errorf("Limit(%d) = %v: the sum may reach %v", c, limit, limit*n)
		}
		if limit < 1<<30 && limit*2*n <= 1<<31 {
			t.Errorf("Limit(%d) = %v, but twice that is safe", c, limit)
		}
		if fraction, _ := math.Frexp(limit); fraction != 0.5 {
			t.Errorf("Limit(%d) = %v, want a power of two", c, limit)
		}
		// The largest contributions stay below the limit when rounded to the unit.
		units := new(big.Int).Lsh(big.NewInt(1), uint(math.Ilogb(limit)+fractionBits))
		if v := math.Nextafter(limit, 0); bigUnits(v).Cmp(units) >= 0 {
			t.Errorf("Limit(%d): %v rounds up to the limit", c, v)
		}
	}
	// As many of the largest as announced, positive and negative.
	for _, c := range []int{1, 2, 3, 5, 8} {
		largest := math.Nextafter32(float32(Limit(c)), 0)
		a := NewAccumulator(2)
		for i := range c {
			if err := a.Add(0, []float32{largest, -largest}, Limit(c)); err != nil {
				t.Fatalf("contribution %d of %d: %v", i, c, err)
			}
		}
		if got, want := a.Float64(0), float64(c)*float64(largest); got != want || a.Float64(1) != -want {
			t.Errorf("%d times %v: got %v and %v", c, largest, got, a.Float64(1))
		}
	}
}

func TestRefusedContributionChangesNothing(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	tests := []struct {
		name   string
		offset int
		values []float32
		limit  float64
		index  int // of the RangeError, or -1 for another error
	}{
		{"NaN", 1, []float32{1, nan, 2}, 8, 2},
		{"infinite", 0, []float32{1, 2, inf}, 8, 2},
		{"minus infinite", 0, []float32{-inf}, 8, 0},
		{"at the limit", 2, []float32{1, 8}, 8, 3},
		{"minus the limit", 0, []float32{-8}, 8, 0},
		{"beyond the end", 3, []float32{1, 2}, 8, -1},
		{"before the start", -1, []float32{1, 2}, 8, -1},
		{"limit zero", 0, []float32{0}, 0, -1},
		{"limit NaN", 0, []float32{0}, math.NaN(), -1},
		{"limit above the range", 0, []float32{0}, 1<<31 + 1, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, before := NewAccumulator(4), NewAccumulator(4)
			for _, x := range []*Accumulator{a, before} {
				if err := x.Add(0, []float32{1, -2, 3, -4}, 8); err != nil {
					t.Fatal(err)
				}
			}
			err := a.Add(tt.offset, tt.values, tt.limit)
			r, isRange := errors.AsType[*RangeError](err)
			if err == nil || isRange != (tt.index >= 0) || isRange && (r.Index != tt.index || r.Limit != tt.limit) {
				t.Errorf("got error %v, want one for index %d", err, tt.index)
			}
			if !a.Equal(before) {
				t.Error("the accumulator has changed")
			}
			if isRange {
				if err := a.AddFloat64(r.Index, r.Value, tt.limit); err == nil || !a.Equal(before) {
					t.Errorf("AddFloat64 of %v: error %v, want one and no change", r.Value, err)
				}
			}
		})
	}
}

func TestOverflowChangesNothing(t *testing.T) {
	const almost = 1<<31 - 256 // a float32
	a, before := NewAccumulator(4), NewAccumulator(4)
	for _, x := range []*Accumulator{a, before} {
		if err := x.Add(0, []float32{5, almost, -almost, almost}, 1<<31); err != nil {
			t.Fatal(err)
		}
	}
	check := func(err error, index int) {
		t.Helper()
		if o, ok := errors.AsType[*OverflowError](err); !ok || o.Index != index {
			t.Errorf("got error %v, want an overflow of number %d", err, index)
		}
		if !a.Equal(before) {
			t.Error("the accumulator has changed")
		}
	}
	check(a.Add(0, []float32{1, -1, -512, 512}, 1<<30), 2)
	check(a.AddFloat64(1, 512, 1<<30), 1)
	check(a.AddInt(3, 256), 3)
	check(a.mergeFrom(before), 1)
	if err := a.AddInt(3, 255); err != nil {
		t.Errorf("the largest integer does not fit: %v", err)
	}
}

func TestInt(t *testing.T) {
	a := NewAccumulator(1)
	var want int64
	for _, v := range []int64{0, 1, -1, 1<<31 - 1, -(1<<31 - 1), 12345, -1 << 30, -1 << 30} {
		if err := a.AddInt(0, v); err != nil {
			t.Fatal(err)
		}
		want += v
		if got, err := a.Int(0); err != nil || got != want || a.Float64(0) != float64(want) {
			t.Errorf("after adding %d: got %d, %v, %v, want %d", v, got, a.Float64(0), err, want)
		}
	}
	for _, v := range []int64{1 << 31, -1 << 31, math.MinInt64, math.MaxInt64} {
		if _, ok := errors.AsType[*RangeError](a.AddInt(0, v)); !ok {
			t.Errorf("AddInt of %d is no *RangeError", v)
		}
	}
	for _, v := range []float64{0.5, 0x1p-96, -0x1p-96, 0x1p-32, 1.25} {
		a.Reset()
		if err := a.AddFloat64(0, v, 2); err != nil {
			t.Fatal(err)
		}
		if got, err := a.Int(0); err == nil {
			t.Errorf("%v reads as the integer %d", v, got)
		}
	}
}

func TestSmallestNumber(t *testing.T) {
	a := &Accumulator{words: []word{{hi: 1 << 63}}}
	if got := a.Float64(0); got != -1<<31 {
		t.Errorf("got %v, want -2^31", got)
	}
	if got, err := a.Int(0); err != nil || got != -1<<31 {
		t.Errorf("got %d, %v, want -2^31", got, err)
	}
}

func TestAccumulatorsOfDifferentLengths(t *testing.T) {
	a, b := NewAccumulator(3), NewAccumulator(2)
	if a.Equal(b) || a.mergeFrom(b) == nil {
		t.Error("accumulators of different lengths are equal, or merge")
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	a, values := NewAccumulator(1000), make([]float32, 1000)
	for i := range values {
		values[i] = float32(i) - 500.25
	}
	if n := testing.AllocsPerRun(10, func() {
		if err := a.Add(0, values, Limit(64)); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Add allocates %v times", n)
	}
}

func FuzzAccumulatorFloat(f *testing.F) {
	for _, v := range interesting {
		f.Add(v, 1.0)
	}
	f.Add(0x1.fffffffffffffp30, -0x1.fffffffffffffp30)
	f.Fuzz(func(t *testing.T, x, y float64) {
		a := NewAccumulator(1)
		sum := new(big.Int)
		for _, v := range []float64{x, y, float64(float32(x)), float64(float32(y))} {
			err := a.AddFloat64(0, v, 1<<29)
			if inside := math.Abs(v) < 1<<29; inside != (err == nil) {
				t.Fatalf("adding %v: error %v", v, err)
			}
			if err == nil {
				sum.Add(sum, bigUnits(v))
			}
			if v32 := float32(v); float64(v32) == v && err == nil {
				b, c := NewAccumulator(1), NewAccumulator(1)
				err := errors.Join(b.Add(0, []float32{v32}, 1<<29), c.AddFloat64(0, v, 1<<29))
				if err != nil || !b.Equal(c) {
					t.Fatalf("%v: float32 gives %v, float64 %v, error %v", v, b.words, c.words, err)
				}
			}
		}
		if got := bigOf(a.words[0]); got.Cmp(sum) != 0 {
			t.Fatalf("%v + %v twice: got %v units, want %v", x, y, got, sum)
		}
		if got := a.Float64(0); got != bigFloat64(sum) {
			t.Fatalf("%v units: got %v, want %v", sum, got, bigFloat64(sum))
		}
	})
}

func FuzzWordFloat64(f *testing.F) {
	f.Add(uint64(0), uint64(1<<63))
	f.Add(uint64(1), uint64(1<<52))
	f.Add(uint64(1<<63), uint64(0x001fffffffffffff))
	f.Fuzz(func(t *testing.T, lo, hi uint64) {
		w := word{lo, hi}
		if got, want := w.float64(), bigFloat64(bigOf(w)); got != want {
			t.Fatalf("%+v: got %v, want %v", w, got, want)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	const n = 11240
	rng := rand.New(rand.NewPCG(5, 6))
	a, values := NewAccumulator(n), make([]float32, n)
	for i := range values {
		values[i] = float32(rng.NormFloat64() * 1e-3)
	}
	b.SetBytes(4 * n)
	for b.Loop() {
		a.Reset()
		if err := a.Add(0, values, Limit(64)); err != nil {
			b.Fatal(err)
		}
	}
}
