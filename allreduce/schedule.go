package allreduce

import "fmt"

// Generation numbers a membership of the ring. It only grows within a job.
type Generation uint64

// Step numbers an all-reduce. It only grows within a generation.
type Step uint64

// Rank is a member's place in the ring, from 0; rank r sends to rank r+1 modulo the size.
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

// hop is what one rank does in one hop: it sends chunk send to the next rank
// and receives chunk receive from the previous one, adding it in the reduce phase
// and taking it over in the gather phase.
type hop struct {
	phase         Phase
	index         int // within the phase, from 0
	send, receive int // chunks
}

// schedule returns what rank does in a ring of the given size: size-1 hops of
// each phase, none in a ring of one. It has these properties, which the transport relies on:
//
//   - what a rank sends in a hop, the next rank receives in its hop of the same number;
//   - the first hop sends the rank's own numbers, and every later one sends the
//     chunk that was received in the hop before.
func schedule(rank Rank, size int) []hop {
	chunk := func(i int) int { return ((int(rank)+i)%size + size) % size }
	hops := make([]hop, 0, 2*(size-1))
	for i := range size - 1 {
		hops = append(hops, hop{Reduce, i, chunk(-i), chunk(-i - 1)})
	}
	// Chunk rank+1 has now met every rank.
	for i := range size - 1 {
		hops = append(hops, hop{Gather, i, chunk(1 - i), chunk(-i)})
	}
	return hops
}

// span returns the half-open range of the numbers of a chunk when a vector of
// length numbers is cut into size chunks. Chunks differ in length by at most one, and
// are empty where there are more members than numbers.
func span(length, size, chunk int) (lo, hi int) {
	quotient, rest := length/size, length%size
	lo = chunk*quotient + min(chunk, rest)
	hi = lo + quotient
	if chunk < rest {
		hi++
	}
	return lo, hi
}
