package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dptune/dpt/allreduce"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// queueSize bounds the messages a coordinator may be ahead: a few plans and evaluation chunks.
const queueSize = 64

// errUnheard says that the coordinator cannot be told. The session's reader learns why.
var errUnheard = errors.New("the coordinator does not hear this worker")

// generation is this worker's part in one ring. One goroutine runs it; it ends at the first error or when stopped.
type generation struct {
	s       *session
	t       *trainer
	number  allreduce.Generation
	rank    allreduce.Rank
	members []allreduce.Member
	resume  int64  // the committed step it starts after
	state   []byte // after that; nil once taken over, or where it is a blob
	blob    ids.Blob
	work    chan *coordpb.CoordinatorMessage
	cancel  context.CancelFunc
	done    chan struct{}
	// left is what was computed of the step in flight when the generation ended; valid after done. The trainer goes on to the next generation.
	left work
}

func newGeneration(s *session, t *trainer, m *coordpb.StartGeneration) *generation {
	g := &generation{s: s, t: t, number: allreduce.Generation(m.Generation), rank: allreduce.Rank(m.Rank), resume: m.ResumeStep, state: m.State,
		work: make(chan *coordpb.CoordinatorMessage, queueSize), done: make(chan struct{})}
	if m.StateSize > 0 {
		g.blob = ids.Blob{Digest: ids.Digest(m.StateDigest), Size: m.StateSize}
	}
	for _, p := range m.Members {
		g.members = append(g.members, allreduce.Member{ID: p.Id, Addr: p.RingAddr})
	}
	return g
}

// start runs the generation until ctx ends, it is stopped, or something fails. It begins when the one before, which is
// cancelled, has ended: that may take as long as a micro-batch.
func (g *generation) start(ctx context.Context, before *generation) {
	ctx, g.cancel = context.WithCancel(ctx)
	go func() {
		defer close(g.done)
		defer g.s.abandoned.Add(-1)
		defer g.cancel()
		if before != nil {
			<-before.done
		}
		if ctx.Err() != nil {
			return
		}
		g.run(ctx)
		g.left = g.t.work
	}()
}

// run takes over the state and works. The ring forms while the first gradient is computed, or while a large state is on its way: neighbours
// that have it wait for nobody to answer.
func (g *generation) run(stopped context.Context) {
	if g.blob.Size == 0 {
		if err := g.t.restore(g.state, g.resume); err != nil {
			g.report(fmt.Errorf("generation %d: %w", g.number, err))
			return
		}
		g.state = nil
	}
	redone := g.t.kept.steps()
	ctx, fail := context.WithCancelCause(stopped)
	var ring *allreduce.Ring
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		joinCtx, cancel := context.WithTimeout(ctx, g.t.stepTimeout)
		defer cancel()
		r, err := g.s.ring.Join(joinCtx, g.t.job, g.number, g.rank, g.members)
		if err != nil {
			fail(err)
			return
		}
		ring = r
		g.s.mark(AfterJoin)
		g.s.Logger.Debug("generation joined", "generation", uint64(g.number), "rank", int(g.rank), "workers", len(g.members), "after_step", g.resume, "redone", redone)
	}()
	defer func() {
		fail(nil)
		if <-joined; ring != nil {
			ring.Close()
		}
	}()
	with := company{
		ring: func(ctx context.Context) (*allreduce.Ring, error) {
			select {
			case <-joined:
				if ring != nil {
					return ring, nil
				}
			case <-ctx.Done():
			}
			return nil, context.Cause(ctx)
		},
		progress: func(step int64, done int) error {
			return g.tell(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Progress{Progress: &coordpb.Progress{Generation: uint64(g.number), Step: step, Done: int32(done)}}})
		},
		blobs: g.s.blobs,
	}
	err := g.takeBlob(ctx)
	if err == nil {
		err = g.loop(ctx, with)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // why the ring could not be formed, rather than that the work was cancelled
	}
	if stopped.Err() == nil {
		g.report(err) // before the ring is left: the neighbours' complaints come after the reason
	}
}

// takeBlob has the state come that the coordinator keeps as a blob.
func (g *generation) takeBlob(ctx context.Context) error {
	if g.blob.Size == 0 {
		return nil
	}
	began := time.Now()
	fetched, err := g.t.fetch(ctx, g.s.blobs, g.blob, g.resume)
	if err != nil {
		return fmt.Errorf("generation %d: %w", g.number, err)
	}
	g.s.Logger.Debug("trainer state is here", "generation", uint64(g.number), "after_step", g.resume, "bytes", g.blob.Size, "fetched", fetched, "seconds", time.Since(began).Seconds())
	return nil
}

func (g *generation) loop(ctx context.Context, with company) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-g.work:
			reply, err := g.t.do(ctx, with, m)
			if err != nil {
				return err
			}
			if err := g.tell(reply); err != nil {
				return err
			}
			g.s.mark(AfterReport)
		}
	}
}

func (g *generation) tell(m *coordpb.WorkerMessage) error {
	if err := g.s.send(m); err != nil {
		return fmt.Errorf("%w: %w", errUnheard, err)
	}
	return nil
}

// report tells the coordinator why this generation cannot go on here.
func (g *generation) report(err error) {
	if errors.Is(err, errUnheard) {
		return
	}
	if errors.Is(err, errTransfer) {
		g.s.Logger.Warn("generation failed here", "generation", uint64(g.number), "reason", err)
		g.s.broken(err)
		return
	}
	f := &coordpb.Failure{Generation: uint64(g.number), Step: g.t.state.Step + 1, Error: err.Error()}
	var peer *allreduce.PeerError
	var data *DataError
	switch {
	case errors.As(err, &peer):
		f.PeerId = peer.ID
	case errors.As(err, &data):
		f.Fatal, f.MicroBatch = true, data.micro
	default:
		// Not a neighbour and not the data: this machine cannot compute. The others can.
		defer g.s.broken(&localError{err})
	}
	g.s.Logger.Warn("generation failed here", "generation", uint64(g.number), "step", f.Step, "reason", err)
	_ = g.s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Failure{Failure: f}})
}
