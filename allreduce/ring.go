package allreduce

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/status"
)

// Member is one member of a ring, as all others know it.
type Member struct {
	ID   string
	Addr string // host:port of its node
}

// Ring is one generation's membership seen from one rank, made by Node.Join. Once
// a method other than Close has returned an error the ring is dead, and so are
// the others' soon; the node joins a later generation.
//
// Its neighbours are the members that it exchanges chunks with, whichever schedule a vector takes. Its
// goroutines: for every neighbour that sends here, gRPC runs serve, which starts receive and is otherwise parked
// until the ring ends; for every neighbour sent to, watch waits for the end of the stream; run tears
// down. All end with the ring, and Node.Close waits for them.
type Ring struct {
	node       *Node
	job        string
	tag        uint64
	generation Generation
	rank       Rank
	members    []Member
	around     schedule // for large vectors
	rounds     schedule // for vectors larger than that: the last one made
	across     schedule // for small ones
	ins        []*in    // by rank
	outs       []*out   // by rank

	life     context.Context // ends with the ring
	end      context.CancelCauseFunc
	met      chan struct{} // closed when Join is over
	finished chan struct{} // closed when the ring holds no goroutine and no connection
	done     chan struct{} // to AllReduce: the step is complete

	mu       sync.Mutex
	err      error // why the ring ended
	graceful bool  // it ended in good order
	started  bool  // last is set
	last     Step  // the last step that was begun
	op       operation
}

// operation is the all-reduce in progress, of step Ring.last. Whoever is at work on it is alone: AllReduce
// at first, then the receive of each hop's neighbour in turn.
type operation struct {
	running  bool // AllReduce is in progress
	acc      *Accumulator
	plan     *schedule
	next     int  // hop of the plan that is worked on; those before it are done
	awaiting bool // hop next is sent, and its message awaited
	sending  *out // in SendMsg
}

// hop is the hop that is worked on; the last one once all are done.
func (o *operation) hop() hop { return o.plan.hops[min(o.next, len(o.plan.hops)-1)] }

// fail ends the ring. The first reason counts.
func (r *Ring) fail(err error) { r.finish(err, false) }

// shut ends the ring in good order, if no all-reduce is in progress.
func (r *Ring) shut(err error) { r.finish(err, true) }

func (r *Ring) finish(err error, graceful bool) {
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
		r.node.log.Debug("all-reduce ring ended", "job", r.job, "generation", r.generation, "rank", r.rank, "err", err)
	}
}

// Close leaves the ring. If no all-reduce is in progress it waits, for at most the node's
// Linger, until its neighbours have taken what they were sent, so that a process may exit after
// its last step. Else that all-reduce ends with ErrClosed. The error is always nil.
func (r *Ring) Close() error {
	r.shut(fmt.Errorf("generation %d: ring: %w", r.generation, ErrClosed))
	r.mu.Lock()
	graceful := r.graceful
	r.mu.Unlock()
	if graceful {
		<-r.finished
	}
	return nil
}

// run waits for the end of the ring, tells the neighbours and tears down.
func (r *Ring) run() {
	defer close(r.finished)
	defer r.node.retire(r)
	<-r.met
	<-r.life.Done()
	r.mu.Lock()
	var abort []byte
	if !r.graceful {
		abort = r.abort(r.err)
	}
	r.mu.Unlock()
	var closing sync.WaitGroup
	for _, o := range r.outs {
		closing.Go(func() { o.close(abort, r.node.config.Linger) })
	}
	closing.Wait()
	for _, i := range r.ins {
		r.mu.Lock()
		claimed := i.claimed
		r.mu.Unlock()
		if claimed {
			<-i.received
		}
	}
}

// abort is the message that ends the streams to the neighbours with a reason.
func (r *Ring) abort(err error) []byte {
	reason := r.reasonFor(err)
	b := appendHeader(make([]byte, 0, headerSize+len(reason)), header{
		kind: kindAbort, job: r.tag, generation: r.generation, from: r.rank, count: len(reason),
	})
	b = append(b, reason...)
	seal(b)
	return b
}

// reasonFor is what this member tells its neighbours when err ends its ring. An
// abort that came from another member is passed on as it is: the first cause is what matters.
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

// againLocked is an earlier error with a neighbour as it affects what is in progress now.
func (r *Ring) againLocked(earlier *PeerError) *PeerError {
	e := r.peerErrorLocked(earlier.Rank, earlier.Action, earlier.Err)
	e.Aborted = earlier.Aborted
	return e
}

// plain turns a gRPC status into an error that reads as a sentence.
func plain(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	return fmt.Errorf("%s (%v)", s.Message(), s.Code())
}
