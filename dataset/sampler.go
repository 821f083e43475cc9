package dataset

import (
	"fmt"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// Sampler determines which examples each step sees. The answer is a pure function of its four
// settings and the step's number, on every platform and in every version. Epoch e visits the
// examples in the order of a permutation, cut into batches; the last batch of an epoch may be
// short. ChaCha8, keyed with SHA-256 of the seed and e, draws the permutation (see package
// internal/prng). The data and the number of workers play no part.
//
// A Sampler keeps the permutation of the last epoch, so steps in order cost nothing. It is for one
// goroutine; two Samplers with the same settings agree.
type Sampler struct {
	examples, batch, micro int
	seed                   uint64

	epoch int64 // the epoch that perm belongs to
	perm  []int // the examples of that epoch; nil before the first step
}

// NewSampler returns the sampler of a number of examples in batches of batch examples, each cut
// into micro-batches of micro examples. All three must be positive.
func NewSampler(examples, batch, micro int, seed uint64) (*Sampler, error) {
	for _, n := range []struct {
		name  string
		value int
	}{{"number of examples", examples}, {"batch size", batch}, {"micro-batch size", micro}} {
		if n.value < 1 {
			return nil, fmt.Errorf("%s is %d, want at least 1", n.name, n.value)
		}
	}
	return &Sampler{examples: examples, batch: batch, micro: micro, seed: seed}, nil
}

// StepsPerEpoch is the number of batches that visit every example once.
func (s *Sampler) StepsPerEpoch() int64 {
	return (int64(s.examples)-1)/int64(s.batch) + 1
}

// Step returns the epoch of step t, counted from 0, and its micro-batches: the batch in consecutive
// groups of at most the micro-batch size, as indices of the examples. The slices stay valid but
// must not be changed. A negative t panics.
func (s *Sampler) Step(t int64) (epoch int64, micro [][]int) {
	if t < 0 {
		panic(fmt.Sprintf("dataset: step %d, want at least 0", t))
	}
	epoch = t / s.StepsPerEpoch()
	if s.perm == nil || s.epoch != epoch {
		s.epoch, s.perm = epoch, prng.New("dpt/dataset/sampler/v1", s.seed, uint64(epoch)).Perm(s.examples)
	}
	first := int(t%s.StepsPerEpoch()) * s.batch
	return epoch, groups(s.perm[first:min(first+s.batch, s.examples)], s.micro)
}
