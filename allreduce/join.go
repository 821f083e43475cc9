package allreduce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/allreduce/dial"
)

// The delay between attempts to reach a neighbour doubles from retryFirst up to retryMax. Join logs
// a warning about a neighbour that it has not reached after unreachedWarning.
const (
	retryFirst       = 5 * time.Millisecond
	retryMax         = 250 * time.Millisecond
	unreachedWarning = 5 * time.Second
)

// Join enters the ring of a job's generation as the given rank. It returns when all neighbours have
// accepted this member's streams, for which they must have joined too, and their streams have
// arrived. ctx bounds the wait; until then Join tries again to reach a neighbour that does not
// listen yet.
//
// Every member passes the same list of members. Joining ends the job's earlier rings on this node.
// A generation can be joined once, whether that succeeds or not, and after it only later ones. A
// ring of one member needs no network.
func (n *Node) Join(
	ctx context.Context, job string, generation Generation, rank Rank, members []Member,
) (*Ring, error) {
	r, err := n.join(ctx, job, generation, rank, members)
	if err != nil {
		return nil, fmt.Errorf("join ring of job %q, generation %d, as rank %d of %d: %w",
			job, generation, rank, len(members), err)
	}
	return r, nil
}

func (n *Node) join(
	ctx context.Context, job string, generation Generation, rank Rank, members []Member,
) (*Ring, error) {
	if err := checkMembers(job, rank, members); err != nil {
		return nil, err
	}
	r := &Ring{
		node:         n,
		job:          job,
		tag:          jobTag(job),
		generation:   generation,
		rank:         rank,
		members:      slices.Clone(members),
		ringPlan:     ringSchedule(rank, len(members), 1),
		doublingPlan: doublingSchedule(rank, len(members)),
		finished:     make(chan struct{}),
		joinOver:     make(chan struct{}),
		done:         make(chan struct{}, 1),
	}
	r.inLinks, r.outLinks = neighbours(r.ringPlan, r.doublingPlan)
	r.life, r.end = context.WithCancelCause(context.Background())
	if err := n.register(r); err != nil {
		r.end(err)
		return nil, err
	}
	go r.run()
	defer close(r.joinOver)
	if len(members) == 1 {
		return r, nil
	}
	if err := r.connectNeighbours(ctx); err != nil {
		r.fail(err)
		return nil, r.firstError(err)
	}
	return r, nil
}

// checkMembers checks the arguments of Join.
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
			return fmt.Errorf("member %d has the id %q of member %d, want ids that differ and are not empty",
				i, m.ID, other)
		}
		seen[m.ID] = Rank(i)
	}
	return nil
}

// connectNeighbours connects to the neighbours that this member sends to, all at once, and waits
// for the streams of those that send here.
func (r *Ring) connectNeighbours(ctx context.Context) error {
	// The first failure stops the other attempts, and is the one to return.
	connecting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wait sync.WaitGroup
	var first error // set before stop is called
	var once sync.Once
	for _, o := range r.outLinks {
		wait.Go(func() {
			if err := r.connect(connecting, o); err != nil {
				once.Do(func() { first = err; stop(err) })
			}
		})
	}
	wait.Wait()
	// Streams that were accepted are watched even so: run waits for their end.
	for _, o := range r.outLinks {
		if o.stream != nil {
			go r.watch(o)
		}
	}
	if first != nil {
		return first
	}
	for _, i := range r.inLinks {
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

// connect opens the stream to a neighbour. It tries again while the neighbour cannot be reached.
func (r *Ring) connect(ctx context.Context, o *outLink) error {
	conn, err := dial.Client(r.members[o.rank].Addr, r.node.config.Dial, dialOptions(r.node.config)...)
	if err != nil {
		return r.peerError(o.rank, Joining, err)
	}
	o.conn = conn
	// The stream outlives the call, so it does not inherit ctx.
	outCtx := metadata.AppendToOutgoingContext(context.Background(), helloKey, string(hello{
		generation: r.generation,
		from:       r.rank,
		size:       len(r.members),
		members:    membershipDigest(r.members),
		job:        r.job,
	}.append(nil)))
	began, warned := time.Now(), false
	for delay := retryFirst; ; delay = min(2*delay, retryMax) {
		err := r.open(ctx, outCtx, o)
		if err == nil {
			return nil
		}
		peer := r.peerError(o.rank, Joining, plainError(err))
		switch status.Code(err) {
		case codes.Unavailable, codes.ResourceExhausted:
			if refused := r.refusal(o); refused != nil {
				peer.Err = refused
				return peer
			}
			level := slog.LevelDebug
			if !warned && time.Since(began) >= unreachedWarning {
				level, warned = slog.LevelWarn, true
			}
			r.node.log.Log(ctx, level, "all-reduce neighbour not reached, will try again",
				"job", r.job, "generation", r.generation, "in", delay, "reason", peer)
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

// refusal returns why the latest connection to a neighbour was refused for good, nil if it was not.
func (r *Ring) refusal(o *outLink) error {
	if r.node.config.Refusal == nil {
		return nil
	}
	return r.node.config.Refusal(r.members[o.rank].Addr)
}

// open makes one attempt to open the stream and to have it accepted.
func (r *Ring) open(ctx, outCtx context.Context, o *outLink) error {
	streamCtx, cancel := context.WithCancel(outCtx)
	stopWaiting := context.AfterFunc(ctx, cancel)
	stopLiving := context.AfterFunc(r.life, cancel)
	stream, err := o.conn.NewStream(streamCtx, &streamDesc, fullMethod)
	if err == nil {
		var md metadata.MD
		if md, err = stream.Header(); err == nil && len(md.Get(acceptKey)) == 0 {
			// The neighbour refuses: the status comes in place of a message.
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
