package allreduce

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// wordSize is the number of bytes of one number on the wire: its 128-bit two's
// complement, little endian.
const wordSize = 16

// AppendBinary appends the wire form to b: 16 bytes a number, 128-bit two's
// complement in units of 2^-96, little endian. The error is always nil.
func (a *Accumulator) AppendBinary(b []byte) ([]byte, error) {
	return a.appendSpan(b, 0, len(a.words)), nil
}

// MarshalBinary returns the wire form; see AppendBinary.
func (a *Accumulator) MarshalBinary() ([]byte, error) {
	return a.AppendBinary(make([]byte, 0, wordSize*len(a.words)))
}

// UnmarshalBinary replaces the accumulator, length included, by what AppendBinary
// wrote.
func (a *Accumulator) UnmarshalBinary(data []byte) error {
	if len(data)%wordSize != 0 {
		return fmt.Errorf("decode accumulator: %d bytes, want a multiple of %d", len(data), wordSize)
	}
	a.words = make([]word, len(data)/wordSize)
	a.setSpan(0, data)
	return nil
}

// appendSpan appends the wire form of the numbers lo to hi-1.
func (a *Accumulator) appendSpan(b []byte, lo, hi int) []byte {
	n, size := len(b), wordSize*(hi-lo)
	b = slices.Grow(b, size)[:n+size]
	out := b[n:]
	for _, w := range a.words[lo:hi] {
		_ = out[wordSize-1]
		binary.LittleEndian.PutUint64(out, w.lo)
		binary.LittleEndian.PutUint64(out[8:], w.hi)
		out = out[wordSize:]
	}
	return b
}

// setSpan replaces the numbers from lo on by those of data.
func (a *Accumulator) setSpan(lo int, data []byte) {
	for i := range a.words[lo : lo+len(data)/wordSize] {
		a.words[lo+i] = wordAt(data, i)
	}
}

// addSpan adds the numbers of data to those from lo on. On an *OverflowError the
// span's contents are unspecified.
func (a *Accumulator) addSpan(lo int, data []byte) error {
	dst := a.words[lo : lo+len(data)/wordSize]
	for i := range dst {
		sum, overflow := dst[i].plus(wordAt(data, i))
		if overflow>>63 != 0 {
			return &OverflowError{Index: lo + i}
		}
		dst[i] = sum
	}
	return nil
}

func wordAt(data []byte, i int) word {
	d := data[wordSize*i : wordSize*i+wordSize]
	return word{lo: binary.LittleEndian.Uint64(d), hi: binary.LittleEndian.Uint64(d[8:])}
}
