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

// inLink is the stream from a neighbour that sends here.
type inLink struct {
	rank     Rank
	stream   grpc.ServerStream // serve sets it before it closes attached
	attached chan struct{}     // closed when the stream is here
	received chan struct{}     // closed when receive has returned
	wakeup   chan struct{}     // tells receive that the message it holds may be due

	claimed bool       // the neighbour's stream has come; guarded by Ring.mu
	left    *PeerError // set when the neighbour left in good order; guarded by Ring.mu
}

// outLink is the stream to a neighbour that this member sends to.
type outLink struct {
	rank    Rank
	conn    *grpc.ClientConn
	stream  grpc.ClientStream  // nil until the neighbour has accepted it; open sets it
	cancel  context.CancelFunc // ends the stream; set with it
	watched chan struct{}      // closed when the stream has ended
	mu      sync.Mutex         // serializes SendMsg and CloseSend

	ended *PeerError // set when the stream has ended; guarded by Ring.mu
}

// neighbours makes a link for every rank that the plans' hops send to or receive from. It connects
// nothing.
func neighbours(plans ...schedule) (ins []*inLink, outs []*outLink) {
	var from, to []Rank
	for _, plan := range plans {
		for _, h := range plan.hops {
			from, to = append(from, h.from), append(to, h.to)
		}
	}
	for _, rank := range ranks(from) {
		ins = append(ins, &inLink{
			rank:     rank,
			attached: make(chan struct{}),
			received: make(chan struct{}),
			wakeup:   make(chan struct{}, 1),
		})
	}
	for _, rank := range ranks(to) {
		outs = append(outs, &outLink{rank: rank, watched: make(chan struct{})})
	}
	return ins, outs
}

// ranks sorts a list and drops duplicates and noRank.
func ranks(list []Rank) []Rank {
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) > 0 && list[0] == noRank {
		return list[1:]
	}
	return list
}

// inFrom returns the link from rank, nil if it sends nothing here.
func (r *Ring) inFrom(rank Rank) *inLink {
	for _, i := range r.inLinks {
		if i.rank == rank {
			return i
		}
	}
	return nil
}

// outTo returns the link to rank, nil if this member sends it nothing.
func (r *Ring) outTo(rank Rank) *outLink {
	for _, o := range r.outLinks {
		if o.rank == rank {
			return o
		}
	}
	return nil
}

// wake has receive check again whether the message it holds is due. It never blocks: one pending
// wakeup is enough.
func (i *inLink) wake() {
	select {
	case i.wakeup <- struct{}{}:
	default:
	}
}

// claimLink reserves the link for the incoming stream of the sender of h. Its errors are gRPC
// statuses.
func (r *Ring) claimLink(h hello) (*inLink, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return nil, status.Error(codes.Aborted, r.reasonFor(r.err))
	case h.size != len(r.members):
		return nil, status.Errorf(codes.FailedPrecondition, "generation %d has %d members here, %d there",
			r.generation, len(r.members), h.size)
	case h.members != membershipDigest(r.members):
		return nil, status.Errorf(codes.FailedPrecondition,
			"generation %d has other members or another order here than there", r.generation)
	}
	i := r.inFrom(h.from)
	switch {
	case i == nil:
		return nil, status.Errorf(codes.FailedPrecondition, "stream from rank %d, rank %d wants none from it",
			h.from, r.rank)
	case i.claimed:
		return nil, status.Errorf(codes.AlreadyExists, "rank %d already has a stream to rank %d in generation %d",
			h.from, r.rank, r.generation)
	}
	i.claimed = true
	return i, nil
}

// serve keeps a claimed stream from a neighbour open while the ring uses it, and returns the status
// to end it with.
func (r *Ring) serve(i *inLink, stream grpc.ServerStream) error {
	if err := stream.SendHeader(metadata.Pairs(acceptKey, "1")); err != nil {
		close(i.received)
		r.fail(r.peerError(i.rank, Joining, plainError(err)))
		return err
	}
	i.stream = stream
	close(i.attached)
	go r.receive(i)
	select {
	case <-i.received: // the neighbour left, or the ring has failed
	case <-r.life.Done():
	}
	// Returning ends the stream, which wakes receive if it still reads.
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil && !r.graceful {
		return status.Error(codes.Aborted, r.reasonFor(r.err))
	}
	return nil
}

// watch waits for the end of the stream to a neighbour. That member sends no messages on it, so
// whatever arrives is the end.
func (r *Ring) watch(o *outLink) {
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
		peer.Err = plainError(err)
	}
	r.mu.Lock()
	o.ended = peer
	// A neighbour that has all it needs for the step in progress may go, in whatever way, without
	// spoiling the step here. The next step will fail.
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
// Members cannot deadlock by all waiting to send, however large the chunks: gRPC takes a whole
// message as soon as the earlier ones on the stream are nearly written. So a member that waits with
// hop k's message has a neighbour that has not yet received an earlier hop's. That neighbour will,
// once it gets there, and can itself only wait with a message of a hop before k, and so on down to
// the first hop.
func (r *Ring) send(o *outLink, buffer *[]byte) error {
	o.mu.Lock()
	err := o.stream.SendMsg(&outbound{mem.NewBuffer(buffer, &r.node.buffers)})
	o.mu.Unlock()
	if err == nil {
		return nil
	}
	if err != io.EOF {
		return r.peerError(o.rank, Sending, plainError(err))
	}
	<-o.watched // watch learns why the stream has ended
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.repeatLocked(o.ended)
}

// sendGrace bounds how long a ring that ends waits for a message that is being sent.
const sendGrace = 50 * time.Millisecond

// close ends the stream, with the abort message if it is not nil, waits for at most linger until
// the neighbour has taken what was sent, and closes the connection.
func (o *outLink) close(abort []byte, linger time.Duration) {
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
