package allreduce

import (
	"math/rand/v2"
	"testing"
)

// TestPackedNumbersAreExact packs numbers that span every range of bits, at every place in a block.
func TestPackedNumbersAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	for top := range 129 {
		for bottom := 0; bottom <= top; bottom++ {
			a := NewAccumulator(1 + rng.IntN(2*blockSize+2))
			for i := range a.words {
				w := word{lo: rng.Uint64(), hi: rng.Uint64()}
				if top < 128 {
					w = w.shiftedUp(uint(127 - top)).shiftedRight(uint(127 - top))
				}
				a.words[i] = w.shiftedRight(uint(min(bottom, 127))).shiftedUp(uint(bottom))
				if rng.IntN(4) == 0 {
					a.words[i] = word{}
				}
			}
			data := a.appendSpan([]byte("x"), 0, a.length())[1:]
			if err := checkPacked(data, a.length()); err != nil || len(data) > maxPacked(a.length()) {
				t.Fatalf("bits %d to %d, %d numbers: %d bytes, want at most %d; %v",
					bottom, top, a.length(), len(data), maxPacked(a.length()), err)
			}
			b := NewAccumulator(a.length())
			for i := range b.words {
				b.words[i] = word{lo: 5, hi: 5}
			}
			b.setSpan(0, b.length(), data)
			if !b.Equal(a) {
				t.Fatalf("bits %d to %d: got %x, want %x", bottom, top, b.words, a.words)
			}
		}
	}
}

func TestPackedLength(t *testing.T) {
	ones := func(w word) []word {
		words := make([]word, blockSize)
		for i := range words {
			words[i] = w
		}
		return words
	}
	for _, tt := range []struct {
		name  string
		words []word
		want  int
	}{
		{"none", nil, 0},
		{"zeros", ones(word{}), 2},
		{"units", ones(word{lo: 1}), 2 + 32},
		{"minus one unit", ones(word{}.minus(word{lo: 1})), 2 + 32},
		{"ones", ones(word{hi: 1 << 32}), 2 + 32},
		{"127 units", ones(word{lo: 127}), 2 + 32},
		{"128 units are a power of two", ones(word{lo: 128}), 2 + 32},
		{"129 units need a bit for the sign", ones(word{lo: 129}), 2 + 2*32},
		{"the least number", ones(word{hi: 1 << 63}), 2 + 32},
		{"a block and one more", append(ones(word{lo: 1}), word{lo: 1 << 40}), 2 + 32 + 2 + 1},
		{"a float32 of 24 bits and its negative",
			[]word{fromFloat32(0x1.fffffep-3), fromFloat32(-0x1.fffffep-3)}, 2 + 2*4},
		{"everything", []word{{lo: 1}, {hi: 1 << 62}}, 2 + 2*16},
	} {
		if got := len(numbers(tt.words...)); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.want)
		}
	}
}

func TestAddSpanNamesTheOverflow(t *testing.T) {
	a := NewAccumulator(100)
	for i := range a.words {
		a.words[i] = word{hi: uint64(i) << 56}
	}
	b := NewAccumulator(100)
	b.words[67].hi, b.words[68].hi = 1<<62, 1<<62 // 67·2^56 + 2^62 is 2^63 or more
	err := b.addSpan(0, 100, numbers(a.words...))
	if overflow, ok := err.(*OverflowError); !ok || overflow.Index != 67 {
		t.Errorf("got %v, want an overflow at 67", err)
	}
}

func BenchmarkPack(b *testing.B) {
	acc := benchGradient(1)
	var data []byte
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			data = acc.appendSpan(data[:0], 0, acc.length())
		}
		b.ReportMetric(float64(len(data))/float64(acc.length()), "B/number")
	})
	sum := NewAccumulator(acc.length())
	b.Run("add", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if i%1000 == 0 {
				sum.Reset()
			}
			if err := sum.addSpan(0, sum.length(), data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
