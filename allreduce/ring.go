package allreduce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
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
// Its goroutines: gRPC runs serve, which starts receive and is otherwise parked until the ring
// ends; watch waits for the end of the stream to the next member; run tears
// down. All end with the ring, and Node.Close waits for them.
type Ring struct {
	node       *Node
	job        string
	tag        uint64
	generation Generation
	rank       Rank
	members    []Member
	plan       []hop

	life     context.Context // ends with the ring
	end      context.CancelCauseFunc
	met      chan struct{} // closed when Join is over
	finished chan struct{} // closed when the ring holds no goroutine and no connection

	// The stream from the previous member, set before attached is closed.
	in       grpc.ServerStream
	attached chan struct{}
	received chan struct{} // closed when receive has returned

	// The stream to the next member, set by Join. sendMu is for SendMsg and CloseSend.
	conn      *grpc.ClientConn
	out       grpc.ClientStream
	outCancel context.CancelFunc
	watched   chan struct{} // closed when out has ended
	sendMu    sync.Mutex

	posted chan struct{} // AllReduce to receive: there is a step to work on
	done   chan struct{} // receive to AllReduce: the step is complete

	mu       sync.Mutex
	err      error // why the ring ended
	graceful bool  // it ended in good order
	claimed  bool  // the previous member's stream is here
	started  bool  // last is set
	last     Step  // the last step that was begun
	op       operation
	sending  bool       // in SendMsg
	fromErr  *PeerError // the previous member left in good order
	toErr    *PeerError // the stream to the next member has ended
}

// operation is the all-reduce in progress, of step Ring.last.
type operation struct {
	running bool // AllReduce is in progress
	posted  bool // the first chunk is sent; receive does the rest
	acc     *Accumulator
	next    int // hop of the plan whose message is awaited; hops up to it are sent
}

func (r *Ring) next() Rank { return Rank((int(r.rank) + 1) % len(r.members)) }

func (r *Ring) previous() Rank {
	return Rank((int(r.rank) + len(r.members) - 1) % len(r.members))
}

// claim reserves the ring's one incoming stream for the sender of h. Its errors are gRPC statuses.
func (r *Ring) claim(h hello) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return status.Error(codes.Aborted, r.reasonFor(r.err))
	case h.size != len(r.members):
		return status.Errorf(codes.FailedPrecondition, "generation %d has %d members here, %d there", r.generation, len(r.members), h.size)
	case h.members != membershipDigest(r.members):
		return status.Errorf(codes.FailedPrecondition, "generation %d has other members or another order here than there", r.generation)
	case len(r.members) < 2 || h.from != r.previous():
		return status.Errorf(codes.FailedPrecondition, "stream from rank %d, rank %d expects rank %d", h.from, r.rank, r.previous())
	case r.claimed:
		return status.Errorf(codes.AlreadyExists, "rank %d already has a stream to rank %d in generation %d", h.from, r.rank, r.generation)
	}
	r.claimed = true
	return nil
}

// serve keeps the claimed stream from the previous member open while the ring
// uses it, and returns the status to end it with.
func (r *Ring) serve(stream grpc.ServerStream) error {
	if err := stream.SendHeader(metadata.Pairs(acceptKey, "1")); err != nil {
		close(r.received)
		r.fail(r.peerError(r.previous(), Joining, plain(err)))
		return err
	}
	r.in = stream
	close(r.attached)
	go r.receive()
	select {
	case <-r.received: // the previous member left, or the ring has failed
	case <-r.life.Done():
	}
	// Returning wakes receive, if it still reads.
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil && !r.graceful {
		return status.Error(codes.Aborted, r.reasonFor(r.err))
	}
	return nil
}

// watch waits for the end of the stream to the next member. That member sends no
// messages, so whatever arrives is the end.
func (r *Ring) watch() {
	defer close(r.watched)
	err := r.out.RecvMsg(new(inbound))
	peer := r.peerError(r.next(), Sending, nil)
	switch {
	case err == nil:
		peer.Err = errors.New("it answered with a message, want none")
	case err == io.EOF:
		peer.Err = ErrLeft
	case status.Code(err) == codes.Aborted:
		peer.Err, peer.Aborted = errors.New(status.Convert(err).Message()), true
	default:
		peer.Err = plain(err)
	}
	r.mu.Lock()
	r.toErr = peer
	// A next member that has all it needs for the step in progress may go, in
	// whatever way, without spoiling the step here. The next step will fail.
	needed := r.op.running && r.op.next+1 < len(r.plan)
	if !r.op.running {
		needed = err != io.EOF
	}
	r.mu.Unlock()
	if needed {
		r.fail(peer)
	}
}

// send passes a message to the next member. It may wait for flow control.
//
// That cannot end in a circle of members that all wait to send, however large the
// chunks: gRPC takes a whole message as soon as its earlier ones on the stream are nearly written, so
// to wait with message k means that the next member has not received message k-1; it could itself only
// wait with a message before k, and so on round the ring to this member's own k.
func (r *Ring) send(buffer *[]byte) error {
	r.setSending(true)
	defer r.setSending(false)
	r.sendMu.Lock()
	err := r.out.SendMsg(&outbound{mem.NewBuffer(buffer, &r.node.buffers)})
	r.sendMu.Unlock()
	if err == nil {
		return nil
	}
	if err != io.EOF {
		return r.peerError(r.next(), Sending, plain(err))
	}
	<-r.watched // which learns why the stream has ended
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.againLocked(r.toErr)
}

func (r *Ring) setSending(sending bool) {
	r.mu.Lock()
	r.sending = sending
	r.mu.Unlock()
}

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
// Linger, until the next member has taken what it was sent, so that a process may exit after
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

// sendGrace bounds how long a ring that ends waits for a message in the middle of
// being sent.
const sendGrace = 50 * time.Millisecond

// run waits for the end of the ring, tells the neighbours and tears down.
func (r *Ring) run() {
	defer close(r.finished)
	defer r.node.retire(r)
	<-r.met
	<-r.life.Done()
	r.mu.Lock()
	err, graceful, claimed := r.err, r.graceful, r.claimed
	r.mu.Unlock()
	if r.out != nil {
		grace := time.AfterFunc(sendGrace, r.outCancel)
		r.sendMu.Lock()
		grace.Stop()
		linger := time.AfterFunc(r.node.config.Linger, r.outCancel)
		if !graceful {
			_ = r.out.SendMsg(&outbound{mem.SliceBuffer(r.abort(err))}) // the stream may have ended already
		}
		_ = r.out.CloseSend() // always nil
		r.sendMu.Unlock()
		<-r.watched
		linger.Stop()
		r.outCancel()
	}
	if r.conn != nil {
		_ = r.conn.Close() // fails only if closed before
	}
	if claimed {
		<-r.received
	}
}

// abort is the message that ends the stream to the next member with a reason.
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
		at := r.plan[r.op.next]
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
