package allreduce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Attempts to reach the next member are retryFirst apart, then twice that, up to retryMax.
const (
	retryFirst = 5 * time.Millisecond
	retryMax   = 250 * time.Millisecond
)

// Join enters the ring of a job's generation as the given rank. It returns when the
// next member has accepted this one's stream, for which it must have joined too, and the
// previous member's stream has arrived; ctx bounds the wait, and a next member that
// does not listen yet is tried again until then.
//
// Every member passes the same list of members. Joining ends the job's earlier rings
// on this node. A generation can be joined once, whether that succeeds or not, and after
// it only later ones. A ring of one member needs no network.
func (n *Node) Join(ctx context.Context, job string, generation Generation, rank Rank, members []Member) (*Ring, error) {
	r, err := n.join(ctx, job, generation, rank, members)
	if err != nil {
		return nil, fmt.Errorf("join ring of job %q, generation %d, as rank %d of %d: %w", job, generation, rank, len(members), err)
	}
	return r, nil
}

func (n *Node) join(ctx context.Context, job string, generation Generation, rank Rank, members []Member) (*Ring, error) {
	if err := checkMembers(job, rank, members); err != nil {
		return nil, err
	}
	r := &Ring{
		node:       n,
		job:        job,
		tag:        jobTag(job),
		generation: generation,
		rank:       rank,
		members:    slices.Clone(members),
		plan:       schedule(rank, len(members)),
		finished:   make(chan struct{}),
		met:        make(chan struct{}),
		attached:   make(chan struct{}),
		received:   make(chan struct{}),
		watched:    make(chan struct{}),
		posted:     make(chan struct{}, 1),
		done:       make(chan struct{}, 1),
	}
	r.life, r.end = context.WithCancelCause(context.Background())
	if err := n.enroll(r); err != nil {
		r.end(err)
		return nil, err
	}
	go r.run()
	defer close(r.met)
	if len(members) == 1 {
		return r, nil
	}
	if err := r.meet(ctx); err != nil {
		r.fail(err)
		return nil, r.firstError(err)
	}
	return r, nil
}

func checkMembers(job string, rank Rank, members []Member) error {
	if job == "" || len(job) > maxJob {
		return fmt.Errorf("job id of %d bytes, want 1 to %d", len(job), maxJob)
	}
	if len(members) > maxMembers {
		return fmt.Errorf("%d members, want at most %d", len(members), maxMembers)
	}
	if rank < 0 || int(rank) >= len(members) {
		return fmt.Errorf("rank %d, want one of the %d members", rank, len(members))
	}
	seen := make(map[string]Rank, len(members))
	for i, m := range members {
		if other, ok := seen[m.ID]; ok || m.ID == "" {
			return fmt.Errorf("member %d has the id %q of member %d, want ids that differ and are not empty", i, m.ID, other)
		}
		seen[m.ID] = Rank(i)
	}
	return nil
}

// meet connects to the next member and waits for the previous one.
func (r *Ring) meet(ctx context.Context) error {
	conn, err := grpc.NewClient("passthrough:///"+r.members[r.next()].Addr, dialOptions(r.node.config)...)
	if err != nil {
		return r.peerError(r.next(), Joining, err)
	}
	r.conn = conn
	if err := r.connect(ctx); err != nil {
		return err
	}
	go r.watch()
	select {
	case <-r.attached:
		return nil
	case <-r.life.Done():
		return context.Cause(r.life)
	case <-ctx.Done():
		return r.peerError(r.previous(), Joining, fmt.Errorf("its stream has not come: %w", context.Cause(ctx)))
	}
}

// firstError returns why the ring ended, or err if it has not.
func (r *Ring) firstError(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	return err
}

// connect opens the stream to the next member, trying again while that cannot be reached.
func (r *Ring) connect(ctx context.Context) error {
	// The stream outlives the call, and so takes nothing from ctx.
	outCtx := metadata.AppendToOutgoingContext(context.Background(), helloKey, string(hello{
		generation: r.generation,
		from:       r.rank,
		size:       len(r.members),
		members:    membershipDigest(r.members),
		job:        r.job,
	}.append(nil)))
	for delay := retryFirst; ; delay = min(2*delay, retryMax) {
		err := r.open(ctx, outCtx)
		if err == nil {
			return nil
		}
		peer := r.peerError(r.next(), Joining, plain(err))
		switch status.Code(err) {
		case codes.Unavailable, codes.ResourceExhausted:
			if refused := r.refusal(); refused != nil {
				peer.Err = refused
				return peer
			}
			r.node.log.Debug("all-reduce neighbour not reached, will try again", "job", r.job, "generation", r.generation, "in", delay, "err", peer)
		case codes.Aborted:
			peer.Aborted = true
			peer.Err = errors.New(status.Convert(err).Message())
			return peer
		default:
			if ctx.Err() == nil {
				return peer
			}
			peer.Err = errors.New("it has not accepted the stream")
		}
		select {
		case <-time.After(delay):
		case <-r.life.Done():
			return peer
		case <-ctx.Done():
			peer.Err = fmt.Errorf("%w: %w", peer.Err, context.Cause(ctx))
			return peer
		}
	}
}

// refusal is why the latest connection to the next member was refused for good, nil if it was not.
func (r *Ring) refusal() error {
	if r.node.config.Refusal == nil {
		return nil
	}
	return r.node.config.Refusal(r.members[r.next()].Addr)
}

// open makes one attempt to open the stream and to have it accepted.
func (r *Ring) open(ctx, outCtx context.Context) error {
	streamCtx, cancel := context.WithCancel(outCtx)
	stopWaiting := context.AfterFunc(ctx, cancel)
	stopLiving := context.AfterFunc(r.life, cancel)
	stream, err := r.conn.NewStream(streamCtx, &streamDesc, fullMethod)
	if err == nil {
		var md metadata.MD
		if md, err = stream.Header(); err == nil && len(md.Get(acceptKey)) == 0 {
			// Refused: the status comes in place of a message.
			if err = stream.RecvMsg(new(inbound)); err == nil {
				err = status.Error(codes.Internal, "it answered with a message, want none")
			}
		}
	}
	waiting, living := stopWaiting(), stopLiving()
	if err == nil && waiting && living {
		r.out, r.outCancel = stream, cancel
		return nil
	}
	cancel()
	if err == nil {
		err = status.Error(codes.Canceled, "the wait ended")
	}
	return err
}
