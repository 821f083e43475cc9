package worker

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"testing"
)

// A contribution's digest is that of its whole encoding, although that is hashed piece by piece.
func TestContributionDigest(t *testing.T) {
	const piece = digestBufferSize / 4 // numbers in a buffer
	for _, n := range []int{0, 1, piece - 6, piece - 5, piece - 4, 2*piece + 3} {
		c := &contribution{loss: 1.5, tokens: 3}
		whole := binary.LittleEndian.AppendUint32(nil, 7)
		whole = binary.LittleEndian.AppendUint64(whole, 3)
		whole = binary.LittleEndian.AppendUint64(whole, math.Float64bits(1.5))
		for i := range n {
			c.grad = append(c.grad, float32(i)+0.25)
			whole = binary.LittleEndian.AppendUint32(whole, math.Float32bits(c.grad[i]))
		}
		if c.digest(7) != sha256.Sum256(whole) {
			t.Errorf("%d numbers have another digest in pieces", n)
		}
	}
}
