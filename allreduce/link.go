package allreduce

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// in is the stream from a neighbour that sends here.
type in struct {
	rank     Rank
	stream   grpc.ServerStream // set before attached is closed
	attached chan struct{}
	received chan struct{} // closed when receive has returned
	turn     chan struct{} // to receive: what it waits for may have come

	// Under Ring.mu.
	claimed bool       // the neighbour's stream is here
	left    *PeerError // the neighbour left in good order
}

// out is the stream to a neighbour that is sent to.
type out struct {
	rank    Rank
	conn    *grpc.ClientConn
	stream  grpc.ClientStream // nil until the neighbour has accepted it
	cancel  context.CancelFunc
	watched chan struct{} // closed when the stream has ended
	mu      sync.Mutex    // for SendMsg and CloseSend

	ended *PeerError // the stream has ended; under Ring.mu
}

// neighbours makes the links of all hops of the plans, without connecting anything.
func neighbours(plans ...schedule) (ins []*in, outs []*out) {
	var from, to []Rank
	for _, plan := range plans {
		for _, h := range plan.hops {
			from, to = append(from, h.from), append(to, h.to)
		}
	}
	for _, rank := range ranks(from) {
		ins = append(ins, &in{rank: rank, attached: make(chan struct{}), received: make(chan struct{}), turn: make(chan struct{}, 1)})
	}
	for _, rank := range ranks(to) {
		outs = append(outs, &out{rank: rank, watched: make(chan struct{})})
	}
	return ins, outs
}

// ranks sorts a list and leaves out what comes again, and nobody.
func ranks(list []Rank) []Rank {
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) > 0 && list[0] == nobody {
		return list[1:]
	}
	return list
}

func (r *Ring) in(rank Rank) *in {
	for _, i := range r.ins {
		if i.rank == rank {
			return i
		}
	}
	return nil
}

func (r *Ring) out(rank Rank) *out {
	for _, o := range r.outs {
		if o.rank == rank {
			return o
		}
	}
	return nil
}

// poke has receive look again at whether it is its turn. It never waits: a receive that has not
// looked since the last time will.
func (i *in) poke() {
	select {
	case i.turn <- struct{}{}:
	default:
	}
}

// claim reserves the link of the incoming stream of the sender of h. Its errors are gRPC statuses.
func (r *Ring) claim(h hello) (*in, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return nil, status.Error(codes.Aborted, r.reasonFor(r.err))
	case h.size != len(r.members):
		return nil, status.Errorf(codes.FailedPrecondition, "generation %d has %d members here, %d there", r.generation, len(r.members), h.size)
	case h.members != membershipDigest(r.members):
		return nil, status.Errorf(codes.FailedPrecondition, "generation %d has other members or another order here than there", r.generation)
	}
	i := r.in(h.from)
	switch {
	case i == nil:
		return nil, status.Errorf(codes.FailedPrecondition, "stream from rank %d, rank %d expects none from it", h.from, r.rank)
	case i.claimed:
		return nil, status.Errorf(codes.AlreadyExists, "rank %d already has a stream to rank %d in generation %d", h.from, r.rank, r.generation)
	}
	i.claimed = true
	return i, nil
}

// serve keeps a claimed stream from a neighbour open while the ring uses it, and
// returns the status to end it with.
func (r *Ring) serve(i *in, stream grpc.ServerStream) error {
	if err := stream.SendHeader(metadata.Pairs(acceptKey, "1")); err != nil {
		close(i.received)
		r.fail(r.peerError(i.rank, Joining, plain(err)))
		return err
	}
	i.stream = stream
	close(i.attached)
	go r.receive(i)
	select {
	case <-i.received: // the neighbour left, or the ring has failed
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

// watch waits for the end of the stream to a neighbour. That member sends no
// messages on it, so whatever arrives is the end.
func (r *Ring) watch(o *out) {
	defer close(o.watched)
	err := o.stream.RecvMsg(new(inbound))
	peer := r.peerError(o.rank, Sending, nil)
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
	o.ended = peer
	// A neighbour that has all it needs for the step in progress may go, in
	// whatever way, without spoiling the step here. The next step will fail.
	needed := r.op.running && r.op.plan.sendsTo(o.rank, r.op.next)
	if !r.op.running {
		needed = err != io.EOF
	}
	r.mu.Unlock()
	if needed {
		r.fail(peer)
	}
}

// send passes a message to a neighbour. It may wait for flow control.
//
// That cannot end in a circle of members that all wait to send, however large the
// chunks: gRPC takes a whole message as soon as the earlier ones on the stream are nearly written, so
// to wait with hop k's message means that the neighbour has not received an earlier hop's. It does
// so when it gets there, and could itself only wait with a message of a hop before k, and so on down to the first.
func (r *Ring) send(o *out, buffer *[]byte) error {
	o.mu.Lock()
	err := o.stream.SendMsg(&outbound{mem.NewBuffer(buffer, &r.node.buffers)})
	o.mu.Unlock()
	if err == nil {
		return nil
	}
	if err != io.EOF {
		return r.peerError(o.rank, Sending, plain(err))
	}
	<-o.watched // which learns why the stream has ended
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.againLocked(o.ended)
}

// sendGrace bounds how long a ring that ends waits for a message in the middle of
// being sent.
const sendGrace = 50 * time.Millisecond

// close ends the stream, with an abort if there is one, waits for at most linger until the neighbour has taken
// what was sent, and closes the connection.
func (o *out) close(abort []byte, linger time.Duration) {
	if o.stream != nil {
		grace := time.AfterFunc(sendGrace, o.cancel)
		o.mu.Lock()
		grace.Stop()
		lingering := time.AfterFunc(linger, o.cancel)
		if abort != nil {
			_ = o.stream.SendMsg(&outbound{mem.SliceBuffer(abort)}) // the stream may have ended already
		}
		_ = o.stream.CloseSend() // always nil
		o.mu.Unlock()
		<-o.watched
		lingering.Stop()
		o.cancel()
	}
	if o.conn != nil {
		_ = o.conn.Close() // fails only if closed before
	}
}
