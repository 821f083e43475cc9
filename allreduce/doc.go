// Package allreduce sums vectors over a ring of processes, exactly.
//
// It knows nothing about training. A process holds one [Node], which serves its side of the ring
// and dials its neighbours. Each membership of the ring is a generation: [Node.Join] turns a list
// of members into a [Ring], and [Ring.AllReduce] leaves in every member's [Accumulator] the sum of
// all members' accumulators.
//
//	node, err := allreduce.NewNode(allreduce.Config{Listener: lis})
//	ring, err := node.Join(ctx, job, generation, rank, members)
//	acc.Reset()
//	err = acc.Add(0, gradient, allreduce.Limit(microBatches))
//	err = ring.AllReduce(ctx, step, acc)
//
// # Same bits for every split
//
// Numbers are 128-bit integers in units of 2^-96. A float32 of magnitude 2^-73 or more is such an
// integer exactly, a smaller one is rounded to the nearest. From there on only integers are added,
// and integer addition is associative: how contributions are split over ranks, and in which order
// the ring adds them, cannot change a bit of the result. [Limit] explains why no sum wraps.
//
// # Transport
//
// Who sends which chunk when is a pure function (schedule.go). Small vectors, prompts among them,
// are summed by recursive doubling: log2(n) hops of the whole vector, because a hop costs more than
// its bytes. Large vectors go round the ring: reduce-scatter and all-gather, 2(n-1) hops of a
// chunk. Sums are exact, so the choice cannot change the result.
//
// A member keeps one gRPC stream to each member that it sends to. Messages flow only in that
// direction, in a format of their own (message.go) that carries job, generation, step, phase, hop
// and a checksum. The wire form (wire.go) leaves out the bytes of a number that carry no
// information: gradients take a third. The goroutine that reads a stream also adds and sends on, so
// a hop needs no hand-off between goroutines.
//
// # Failure
//
// A failure ends the ring, never the node. A ring that has returned an error is dead, its members
// abort and wake their neighbours, and the node joins a later generation. Errors that concern a
// neighbour are a [*PeerError].
package allreduce
