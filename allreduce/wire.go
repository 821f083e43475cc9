package allreduce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"unsafe"
)

// The wire form of a span of numbers is exact and short: sums of float32 that are of one order of
// magnitude have the same sign bits on top and the same zero bits below, so of a number's 16 bytes
// only about 5 carry information. Numbers travel in blocks of blockSize (the last one may be
// shorter). A block is
//
//	0  shift: 0 to 127; every number of the block is a multiple of 2^shift units
//	1  width: 0 to 16
//	2  the numbers, divided by 2^shift: two's complement of width bytes each, little endian
//
// where the highest bit of a number, shift and width together, lies within 128 bits, or beyond them
// by less than the byte that it is in. A block of zeros has width 0.
const (
	wordSize    = 16 // bytes of a number in memory; the most that it takes on the wire
	blockSize   = 32
	blockHeader = 2
	// slack is how far beyond the end of a number the encoder and decoder may reach.
	slack = wordSize
)

var errCut = errors.New("the last block is cut off")

// maxPacked returns the most bytes that the wire form of n numbers takes.
func maxPacked(n int) int { return wordSize*n + blockHeader*((n+blockSize-1)/blockSize) }

// checkPacked checks that data is the wire form of n numbers, to its last byte.
func checkPacked(data []byte, n int) error {
	total := len(data)
	for n > 0 {
		if len(data) < blockHeader {
			return errCut
		}
		shift, width := int(data[0]), int(data[1])
		if width > wordSize || shift > 127 || shift+8*width > 128+7 {
			return fmt.Errorf("a block of numbers of %d bytes shifted by %d bits, want at most 128 bits", width, shift)
		}
		size := blockHeader + width*min(n, blockSize)
		if len(data) < size {
			return errCut
		}
		data = data[size:]
		n -= min(n, blockSize)
	}
	if len(data) != 0 {
		return fmt.Errorf("the numbers end %d bytes before the %d of the payload", len(data), total)
	}
	return nil
}

// appendSpan appends the wire form of the numbers lo to hi-1.
func (a *Accumulator) appendSpan(b []byte, lo, hi int) []byte {
	b = slices.Grow(b, maxPacked(hi-lo)+slack)
	n := len(b)
	for ; lo < hi; lo += blockSize {
		n = packBlock(b[:cap(b)], n, a.words[lo:min(lo+blockSize, hi)])
	}
	return b[:n]
}

// packBlock writes the wire form of the words into b at n and returns where it ends. It may
// overwrite the slack behind that.
func packBlock(b []byte, n int, words []word) int {
	// Find the highest bit that differs from the sign in any word, and the lowest bit that is set.
	var low, high word // the bits that are set, and those that differ from the sign
	for i := range words {
		w := &words[i]
		low.lo |= w.lo
		high.hi |= w.hi ^ uint64(int64(w.hi)>>63)
	}
	length := 65 + bits.Len64(high.hi) // with the sign
	if high.hi == 0 {
		for i := range words {
			high.lo |= words[i].lo ^ uint64(int64(words[i].hi)>>63)
		}
		length = 1 + bits.Len64(high.lo)
	}
	shift := bits.TrailingZeros64(low.lo)
	if low.lo == 0 {
		for i := range words {
			low.hi |= words[i].hi
		}
		if low.hi == 0 {
			b[n], b[n+1] = 0, 0
			return n + blockHeader
		}
		shift = 64 + bits.TrailingZeros64(low.hi)
	}
	// Write the numbers whole words at a time: each overwrites the surplus bytes of the one before.
	width := max(1, (length-shift+7)/8)
	b[n], b[n+1] = byte(shift), byte(width)
	n += blockHeader
	end := n + width*len(words)
	out := unsafe.Pointer(unsafe.SliceData(b[n : end+slack]))
	s := uint(shift) & 63
	switch {
	case width > 8:
		for i := range words {
			v := words[i].shiftedRight(uint(shift))
			store(out, v.lo)
			store(unsafe.Add(out, 8), v.hi)
			out = unsafe.Add(out, width)
		}
	case shift < 64:
		for i := range words {
			w := &words[i]
			store(out, w.lo>>(s&63)|w.hi<<1<<((63-s)&63))
			out = unsafe.Add(out, width)
		}
	default:
		for i := range words {
			store(out, uint64(int64(words[i].hi)>>(s&63)))
			out = unsafe.Add(out, width)
		}
	}
	return end
}

// block is a block of the wire form that checkPacked has accepted.
type block struct {
	shift, width int
	in           unsafe.Pointer // its numbers, and slack behind them
	padded       [wordSize*blockSize + slack]byte
}

// next reads the header of the block of n numbers that data begins with, and returns what follows
// the block.
func (b *block) next(data []byte, n int) []byte {
	b.shift, b.width = int(data[0]), int(data[1])
	numbers := data[blockHeader:]
	rest := numbers[b.width*n:]
	if len(rest) < slack {
		copy(b.padded[:], numbers)
		numbers = b.padded[:]
	}
	b.in = unsafe.Pointer(unsafe.SliceData(numbers))
	return rest
}

// narrow reports whether the block's numbers have at most 8 bytes and begin in the lower word.
func (b *block) narrow() bool { return b.width > 0 && b.width <= 8 && b.shift < 64 }

// word returns number i of the block.
func (b *block) word(i int) word {
	at, unused := unsafe.Add(b.in, i*b.width), uint(-8*b.width)&63
	switch {
	case b.width == 0:
		return word{}
	case b.width <= 8:
		v := int64(load(at)<<unused) >> unused
		return word{lo: uint64(v), hi: uint64(v >> 63)}.shiftedUp(uint(b.shift))
	}
	hi := int64(load(unsafe.Add(at, 8))<<unused) >> unused
	return word{lo: load(at), hi: uint64(hi)}.shiftedUp(uint(b.shift))
}

// store and load access 8 bytes without a bounds check: their callers have checked the whole block.
func store(at unsafe.Pointer, v uint64) { binary.LittleEndian.PutUint64((*[8]byte)(at)[:], v) }
func load(at unsafe.Pointer) uint64     { return binary.LittleEndian.Uint64((*[8]byte)(at)[:]) }

// setSpan replaces the numbers lo to hi-1 by those of data, which checkPacked has accepted.
func (a *Accumulator) setSpan(lo, hi int, data []byte) {
	var b block
	for ; lo < hi; lo += blockSize {
		dst := a.words[lo:min(lo+blockSize, hi)]
		data = b.next(data, len(dst))
		for i := range dst {
			dst[i] = b.word(i)
		}
	}
}

// addSpan adds the numbers of data, which checkPacked has accepted, to the numbers lo to hi-1. On
// an *OverflowError the span's contents are unspecified.
func (a *Accumulator) addSpan(lo, hi int, data []byte) error {
	var b block
	for ; lo < hi; lo += blockSize {
		dst := a.words[lo:min(lo+blockSize, hi)]
		data = b.next(data, len(dst))
		if !b.narrow() {
			for i := range dst {
				sum, overflow := dst[i].plus(b.word(i))
				if overflow>>63 != 0 {
					return &OverflowError{Index: lo + i}
				}
				dst[i] = sum
			}
			continue
		}
		// The common case, without branches: overflows are noted, and looked for only if there is
		// one.
		at, unused, shift := b.in, uint(-8*b.width)&63, uint(b.shift)&63
		var wrapped uint64
		for i := range dst {
			v := int64(load(at)<<(unused&63)) >> (unused & 63)
			sum, overflow := dst[i].plus(word{
				lo: uint64(v) << (shift & 63),
				hi: uint64(v >> 1 >> ((63 - shift) & 63)),
			})
			dst[i] = sum
			wrapped |= overflow
			at = unsafe.Add(at, b.width)
		}
		if wrapped>>63 != 0 {
			for i := range dst {
				before := dst[i].minus(b.word(i))
				if _, overflow := before.plus(b.word(i)); overflow>>63 != 0 {
					return &OverflowError{Index: lo + i}
				}
			}
		}
	}
	return nil
}
