package allreduce

import (
	"fmt"
	"math/bits"
	"slices"
)

// Generation numbers a membership of the ring. It only grows within a job.
type Generation uint64

// Step numbers an all-reduce. It only grows within a generation.
type Step uint64

// Rank is a member's place in the ring, from 0. In the ring schedule, rank r sends to rank r+1
// modulo the ring's size.
type Rank int

// Phase is one of the two halves of an all-reduce.
type Phase uint8

const (
	// Reduce is the reduce-scatter: partial sums travel, and each hop adds its own numbers.
	Reduce Phase = 1
	// Gather is the all-gather: finished sums travel.
	Gather Phase = 2
)

func (p Phase) String() string {
	switch p {
	case Reduce:
		return "reduce"
	case Gather:
		return "gather"
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// noRank stands for a rank in a hop that only sends or only receives.
const noRank Rank = -1

// hop is what one rank does in one hop: it sends the chunk of index send to rank to, and then
// receives the chunk of index receive from rank from. It adds that chunk in the reduce phase, and
// replaces its own by it in the gather phase. Either half may be missing, but not both.
type hop struct {
	phase         Phase
	index         int  // within the phase, from 0
	to, from      Rank // noRank if nothing is sent or received
	send, receive int  // indices of chunks
}

// schedule is one rank's part in an all-reduce of a vector that is cut into chunks. Its hops are
// done one after the other. The transport relies on this property: what a rank sends to another in
// a hop, the other receives in its hop of the same phase and index, and in no other.
type schedule struct {
	chunks int
	hops   []hop
}

// sendsTo reports whether a hop after the given one sends to rank.
func (s *schedule) sendsTo(rank Rank, after int) bool {
	return slices.ContainsFunc(s.hops[min(after+1, len(s.hops)):], func(h hop) bool { return h.to == rank })
}

// receivesFrom reports whether the given hop or a later one receives from rank.
func (s *schedule) receivesFrom(rank Rank, hops int) bool {
	return slices.ContainsFunc(s.hops[hops:], func(h hop) bool { return h.from == rank })
}

// ringSchedule is the ring all-reduce: size-1 hops of each phase, none in a ring of one, each
// between neighbours. A member sends and receives less than two vectors, which is the least
// possible, but in many hops: it suits large vectors. A vector whose chunks would not fit a message
// goes round in several rounds, one part of the vector after another.
func ringSchedule(rank Rank, size, rounds int) schedule {
	chunk := func(i int) int { return ((int(rank)+i)%size + size) % size }
	to, from := Rank(chunk(1)), Rank(chunk(-1))
	s := schedule{chunks: size * rounds}
	for round := range rounds {
		first, index := size*round, (size-1)*round
		for i := range size - 1 {
			s.hops = append(s.hops, hop{Reduce, index + i, to, from, first + chunk(-i), first + chunk(-i-1)})
		}
		// Chunk rank+1 of the round is now summed over all ranks.
		for i := range size - 1 {
			s.hops = append(s.hops, hop{Gather, index + i, to, from, first + chunk(1-i), first + chunk(-i)})
		}
	}
	return s
}

// doublingSchedule is recursive doubling: in each hop, two ranks that differ in one bit exchange
// all that they have summed so far. That takes log2(size) hops of the whole vector: it suits small
// vectors, where a hop costs more than its bytes.
//
// If size is not a power of two, the ranks from the next lower power on are folded: each first
// sends its vector to the rank that is lower by that power, and receives the sum from it at the
// end.
func doublingSchedule(rank Rank, size int) schedule {
	s := schedule{chunks: 1}
	if size == 1 {
		return s
	}
	doublings := bits.Len(uint(size)) - 1
	low := Rank(1) << doublings
	first := 0 // index of the first doubling
	folded := int(low) < size
	if folded {
		first = 1
	}
	switch partner := rank + low; {
	case rank >= low:
		s.hops = append(s.hops,
			hop{phase: Reduce, to: rank - low, from: noRank},
			hop{phase: Gather, to: noRank, from: rank - low})
		return s
	case int(partner) < size:
		s.hops = append(s.hops, hop{phase: Reduce, to: noRank, from: partner})
	}
	for i := range doublings {
		partner := rank ^ 1<<i
		s.hops = append(s.hops, hop{phase: Reduce, index: first + i, to: partner, from: partner})
	}
	if partner := rank + low; int(partner) < size {
		s.hops = append(s.hops, hop{phase: Gather, to: partner, from: noRank})
	}
	return s
}

// span returns the half-open range of the numbers of a chunk when a vector of length numbers is cut
// into size chunks. Chunks differ in length by at most one, and some are empty if there are more
// members than numbers.
func span(length, size, chunk int) (lo, hi int) {
	quotient, rest := length/size, length%size
	lo = chunk*quotient + min(chunk, rest)
	hi = lo + quotient
	if chunk < rest {
		hi++
	}
	return lo, hi
}
