package allreduce

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/allreduce/dial"
)

// Member is one member of a ring, as all others know it.
type Member struct {
	ID   string
	Addr string // host:port of its node
}

// Ring is one generation's membership seen from one rank, made by Node.Join. Once a method other
// than Close has returned an error the ring is dead, and the other members' rings soon are too; the
// node joins a later generation.
//
// Its neighbours are the members that it exchanges chunks with, whichever schedule a vector takes.
// These goroutines belong to it:
//
//   - for every neighbour that sends here, gRPC runs serve, which starts receive and then waits for
//     the end of the ring;
//   - for every neighbour that it sends to, watch waits for the end of the stream;
//   - run waits for the end of the ring and tears it down.
//
// All of them end with the ring, and Node.Close waits for them.
type Ring struct {
	// Set by Node.Join and constant from then on.
	node         *Node
	job          string
	tag          uint64 // jobTag of job
	generation   Generation
	rank         Rank
	members      []Member
	ringPlan     schedule   // for large vectors
	doublingPlan schedule   // for small vectors
	inLinks      []*inLink  // sorted by rank
	outLinks     []*outLink // sorted by rank

	// roundsPlan is for vectors whose chunks do not fit a message: the plan for the last such
	// length. planFor writes it, under mu.
	roundsPlan schedule

	life     context.Context         // ends with the ring
	end      context.CancelCauseFunc // ends life; endWith calls it, under mu
	joinOver chan struct{}           // closed when Join returns
	finished chan struct{}           // closed when the ring holds no goroutine and no connection
	done     chan struct{}           // tells AllReduce that the step is complete

	mu       sync.Mutex // guards what follows
	err      error      // why the ring ended; nil while it lives
	graceful bool       // the ring ended in good order
	started  bool       // a step was begun, so last is set
	last     Step       // the last step that was begun
	op       operation
}

// operation is the all-reduce in progress, of step Ring.last. Ring.mu guards it. One goroutine at a
// time works on it: the one that calls AllReduce at first, then the receive of each hop's
// neighbour.
type operation struct {
	running  bool // AllReduce is in progress
	acc      *Accumulator
	plan     *schedule
	next     int      // index of the current hop in the plan; those before it are done
	awaiting bool     // the current hop's message is sent, and the neighbour's is awaited
	sending  *outLink // the link whose SendMsg is running, if any
}

// hop returns the current hop, or the last one once all are done.
func (o *operation) hop() hop { return o.plan.hops[min(o.next, len(o.plan.hops)-1)] }

// fail ends the ring because of err. The first reason counts.
func (r *Ring) fail(err error) { r.endWith(err, false) }

// leave ends the ring in good order if no all-reduce is in progress, else because of err.
func (r *Ring) leave(err error) { r.endWith(err, true) }

// endWith ends the ring, unless it has ended before.
func (r *Ring) endWith(err error, graceful bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	r.err = err
	r.graceful = graceful && !r.op.running
	r.op.acc = nil // the caller has it back from here on
	r.end(err)
	if !r.graceful {
		r.node.log.Debug("all-reduce ring ended",
			"job", r.job, "generation", r.generation, "rank", r.rank, "reason", err)
	}
}

// Close leaves the ring. If no all-reduce is in progress it waits, for about a second at most,
// until the neighbours have taken what they were sent, so that a process may exit after its last
// step. Otherwise that all-reduce ends with ErrClosed. The error is always nil.
func (r *Ring) Close() error {
	r.leave(fmt.Errorf("generation %d: ring: %w", r.generation, ErrClosed))
	r.mu.Lock()
	graceful := r.graceful
	r.mu.Unlock()
	if graceful {
		<-r.finished
	}
	return nil
}

// run waits for the end of the ring, tells the neighbours and releases all that the ring holds.
func (r *Ring) run() {
	defer close(r.finished)
	defer r.node.unregister(r)
	<-r.joinOver
	<-r.life.Done()
	r.mu.Lock()
	var abort []byte
	if !r.graceful {
		abort = r.abortMessage(r.err)
	}
	r.mu.Unlock()
	var closing sync.WaitGroup
	for _, o := range r.outLinks {
		closing.Go(func() { o.close(abort, r.node.config.linger) })
	}
	closing.Wait()
	for _, i := range r.inLinks {
		r.mu.Lock()
		claimed := i.claimed
		r.mu.Unlock()
		if claimed {
			<-i.received
		}
	}
}

// abortMessage encodes the message that ends the streams to the neighbours with a reason.
func (r *Ring) abortMessage(err error) []byte {
	reason := r.reasonFor(err)
	b := appendHeader(make([]byte, 0, headerSize+len(reason)), header{
		kind:       kindAbort,
		job:        r.tag,
		generation: r.generation,
		from:       r.rank,
		count:      len(reason),
	})
	b = append(b, reason...)
	seal(b)
	return b
}

// reasonFor returns what this member tells its neighbours when err ends its ring. It passes on an
// abort that came from another member as it is: the first cause is what matters.
func (r *Ring) reasonFor(err error) string {
	if peer, ok := errors.AsType[*PeerError](err); ok && peer.Aborted {
		return clipReason(peer.Err.Error())
	}
	return clipReason(fmt.Sprintf("rank %d (%s): %v", r.rank, r.members[r.rank].ID, err))
}

// peerError describes err as something between this member and rank at this point.
func (r *Ring) peerError(rank Rank, action Action, err error) *PeerError {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peerErrorLocked(rank, action, err)
}

func (r *Ring) peerErrorLocked(rank Rank, action Action, err error) *PeerError {
	e := &PeerError{
		Generation: r.generation,
		Rank:       rank,
		ID:         r.members[rank].ID,
		Addr:       r.members[rank].Addr,
		Action:     action,
		Step:       r.last,
		Err:        err,
	}
	if r.op.running {
		at := r.op.hop()
		e.Phase, e.Hop = at.phase, at.index
	}
	return e
}

// repeatLocked returns an earlier error with a neighbour as it affects what is in progress now.
func (r *Ring) repeatLocked(earlier *PeerError) *PeerError {
	e := r.peerErrorLocked(earlier.Rank, earlier.Action, earlier.Err)
	e.Aborted = earlier.Aborted
	return e
}

// plainError turns a gRPC status into an error that reads as a sentence.
func plainError(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	return fmt.Errorf("%s (%v)", dial.Reason(err), s.Code())
}
