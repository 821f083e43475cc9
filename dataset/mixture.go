package dataset

import (
	"fmt"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// Shares gives the number of examples that each of several tasks has in an epoch of their mixture.
// sizes[i] is the number of examples of task i; the result has the same length.
type Shares func(sizes []int) []int

// Proportional is T5's examples-proportional mixing (Raffel et al. 2020, section 3.5.2) with an
// artificial limit: a task's share is the number of its examples, but at most limit.
func Proportional(limit int) Shares {
	return func(sizes []int) []int {
		out := make([]int, len(sizes))
		for i, n := range sizes {
			out[i] = min(n, limit)
		}
		return out
	}
}

// Equal gives every task the same share. An epoch has about as many examples as all tasks together.
func Equal(sizes []int) []int {
	total := 0
	for _, n := range sizes {
		total += n
	}
	out := make([]int, len(sizes))
	for i := range out {
		out[i] = (total + len(sizes) - 1) / len(sizes)
	}
	return out
}

// Mixture determines which examples of several tasks each step sees. It is a Sampler over the
// concatenated examples of all tasks. Every epoch has exactly each task's share of examples, in one
// random order. A task's examples come in turn: all of them, in a fresh random order, before any
// comes again, across the bounds of epochs. Like a Sampler's, the answer is a pure function of the
// settings and the step's number, and a Mixture is for one goroutine.
type Mixture struct {
	sizes, shares []int
	slots         int // examples of an epoch: the sum of shares
	batch, micro  int
	seed          uint64

	epoch int64 // the epoch that order belongs to
	order []int // the examples of that epoch; nil before the first step
}

// NewMixture returns the mixture of tasks that have sizes examples, in batches of batch examples,
// each cut into micro-batches of micro. There must be a task, and every size, share and batch must
// be at least 1.
func NewMixture(sizes []int, shares Shares, batch, micro int, seed uint64) (*Mixture, error) {
	m := &Mixture{sizes: sizes, shares: shares(sizes), batch: batch, micro: micro, seed: seed}
	for i, n := range sizes {
		if n < 1 || m.shares[i] < 1 {
			return nil, fmt.Errorf("task %d of the mixture has %d examples and a share of %d, want at least 1 of both",
				i+1, n, m.shares[i])
		}
		m.slots += m.shares[i]
	}
	if len(sizes) < 1 || batch < 1 || micro < 1 {
		return nil, fmt.Errorf("mixture of %d tasks in batches of %d and micro-batches of %d, want at least 1 of each",
			len(sizes), batch, micro)
	}
	return m, nil
}

// StepsPerEpoch is the number of batches of an epoch.
func (m *Mixture) StepsPerEpoch() int64 { return (int64(m.slots)-1)/int64(m.batch) + 1 }

// Step returns the epoch of step t, counted from 0, and its micro-batches, as Sampler.Step does.
// Indices count the concatenated examples of all tasks.
func (m *Mixture) Step(t int64) (epoch int64, micro [][]int) {
	if t < 0 {
		panic(fmt.Sprintf("dataset: step %d, want at least 0", t))
	}
	epoch = t / m.StepsPerEpoch()
	if m.order == nil || m.epoch != epoch {
		m.epoch, m.order = epoch, m.orderOf(epoch)
	}
	first := int(t%m.StepsPerEpoch()) * m.batch
	return epoch, groups(m.order[first:min(first+m.batch, m.slots)], m.micro)
}

// orderOf lists the examples of an epoch.
func (m *Mixture) orderOf(epoch int64) []int {
	examples := make([]int, 0, m.slots)
	base := 0
	for i, n := range m.sizes {
		var perm []int
		round := int64(-1)
		for k := range m.shares[i] {
			at := epoch*int64(m.shares[i]) + int64(k) // in the endless sequence of the task's examples
			if r := at / int64(n); r != round {
				round, perm = r, prng.New("dpt/dataset/mixture/task/v1", m.seed, uint64(i), uint64(r)).Perm(n)
			}
			examples = append(examples, base+perm[at%int64(n)])
		}
		base += n
	}
	order := make([]int, m.slots)
	for to, from := range prng.New("dpt/dataset/mixture/v1", m.seed, uint64(epoch)).Perm(m.slots) {
		order[to] = examples[from]
	}
	return order
}

// groups cuts a batch into consecutive groups of at most micro examples.
func groups(batch []int, micro int) (out [][]int) {
	for len(batch) > 0 {
		n := min(micro, len(batch))
		out = append(out, batch[:n:n])
		batch = batch[n:]
	}
	return out
}
