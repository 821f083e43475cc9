package dataset

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// KShot returns s with only k of its training examples, in the order of the file, drawn without
// replacement. Every choice is equally likely. The choice depends on k, the seed and the number of
// training examples alone, and a smaller k gives a subset of what a larger one gives. Eval stays as
// it is. k must be 1 to len(s.Train).
func (s *Split) KShot(k int, seed uint64) (*Split, error) {
	if k < 1 || k > len(s.Train) {
		return nil, fmt.Errorf("cannot draw %d training examples of %s %s, want 1 to %d",
			k, s.Task.Name(), s.Name, len(s.Train))
	}
	chosen := prng.New("dpt/dataset/kshot/v1", seed).Perm(len(s.Train))[:k]
	slices.Sort(chosen)
	few := *s
	few.Train = make([]Example, k)
	for i, j := range chosen {
		few.Train[i] = s.Train[j]
	}
	h := newDigest("dpt/dataset/kshot/v1", string(s.Digest[:]))
	var n [16]byte
	binary.LittleEndian.PutUint64(n[:8], uint64(k))
	binary.LittleEndian.PutUint64(n[8:], seed)
	h.Write(n[:])
	few.Digest = [32]byte(h.Sum(nil))
	return &few, nil
}
