package allreduce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Attempts to reach a neighbour are retryFirst apart, then twice that, up to retryMax.
const (
	retryFirst = 5 * time.Millisecond
	retryMax   = 250 * time.Millisecond
)

// Join enters the ring of a job's generation as the given rank. It returns when all its
// neighbours have accepted this one's streams, for which they must have joined too, and
// theirs have arrived; ctx bounds the wait, and a neighbour that
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
		around:     around(rank, len(members), 1),
		across:     across(rank, len(members)),
		finished:   make(chan struct{}),
		met:        make(chan struct{}),
		done:       make(chan struct{}, 1),
	}
	r.ins, r.outs = neighbours(r.around, r.across)
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

// meet connects to the neighbours that are sent to, all at once, and waits for those that send here.
func (r *Ring) meet(ctx context.Context) error {
	connecting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wait sync.WaitGroup
	var first error // set before stop is called
	var once sync.Once
	for _, o := range r.outs {
		wait.Go(func() {
			if err := r.connect(connecting, o); err != nil {
				once.Do(func() { first = err; stop(err) })
			}
		})
	}
	wait.Wait()
	for _, o := range r.outs {
		if o.stream != nil {
			go r.watch(o)
		}
	}
	if first != nil {
		return first
	}
	for _, i := range r.ins {
		select {
		case <-i.attached:
		case <-r.life.Done():
			return context.Cause(r.life)
		case <-ctx.Done():
			return r.peerError(i.rank, Joining, fmt.Errorf("its stream has not come: %w", context.Cause(ctx)))
		}
	}
	return nil
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

// connect opens the stream to a neighbour, trying again while that cannot be reached.
func (r *Ring) connect(ctx context.Context, o *out) error {
	conn, err := grpc.NewClient("passthrough:///"+r.members[o.rank].Addr, dialOptions(r.node.config)...)
	if err != nil {
		return r.peerError(o.rank, Joining, err)
	}
	o.conn = conn
	// The stream outlives the call, and so takes nothing from ctx.
	outCtx := metadata.AppendToOutgoingContext(context.Background(), helloKey, string(hello{
		generation: r.generation,
		from:       r.rank,
		size:       len(r.members),
		members:    membershipDigest(r.members),
		job:        r.job,
	}.append(nil)))
	for delay := retryFirst; ; delay = min(2*delay, retryMax) {
		err := r.open(ctx, outCtx, o)
		if err == nil {
			return nil
		}
		peer := r.peerError(o.rank, Joining, plain(err))
		switch status.Code(err) {
		case codes.Unavailable, codes.ResourceExhausted:
			if refused := r.refusal(o); refused != nil {
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

// refusal is why the latest connection to a neighbour was refused for good, nil if it was not.
func (r *Ring) refusal(o *out) error {
	if r.node.config.Refusal == nil {
		return nil
	}
	return r.node.config.Refusal(r.members[o.rank].Addr)
}

// open makes one attempt to open the stream and to have it accepted.
func (r *Ring) open(ctx, outCtx context.Context, o *out) error {
	streamCtx, cancel := context.WithCancel(outCtx)
	stopWaiting := context.AfterFunc(ctx, cancel)
	stopLiving := context.AfterFunc(r.life, cancel)
	stream, err := o.conn.NewStream(streamCtx, &streamDesc, fullMethod)
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
		o.stream, o.cancel = stream, cancel
		return nil
	}
	cancel()
	if err == nil {
		err = status.Error(codes.Canceled, "the wait ended")
	}
	return err
}
