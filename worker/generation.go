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

// queueSize bounds how many messages the coordinator may be ahead of a generation: a few plans and
// evaluation chunks.
const queueSize = 64

// errUnreportable is in the chain of errors that end a generation without a Failure to the
// coordinator: it cannot be reached, or the session itself tells why.
var errUnreportable = errors.New("the coordinator does not hear this worker")

// generation is this worker's part in one ring. One goroutine runs it; it ends at the first error
// or when stopped.
type generation struct {
	// Set by newGeneration and constant from then on.
	session   *session
	trainer   *trainer
	number    allreduce.Generation
	rank      allreduce.Rank
	members   []allreduce.Member
	resume    int64    // the committed step that the generation starts after
	stateBlob ids.Blob // the trainer state after resume, if it does not come in the message

	state  []byte                           // the same, if it comes in the message; run drops it
	queue  chan *coordpb.CoordinatorMessage // plans and evaluations, from the session's reader
	cancel context.CancelFunc               // stops the generation; set by start
	done   chan struct{}                    // closed when the generation has ended

	// abandonedWork is what was computed of the step in flight when the generation ended. The
	// generation sets it before it closes done, because the trainer goes on to the next generation.
	abandonedWork gradientWork
}

// newGeneration returns the generation that a message describes, not yet started.
func newGeneration(s *session, t *trainer, m *coordpb.StartGeneration) *generation {
	g := &generation{
		session: s,
		trainer: t,
		number:  allreduce.Generation(m.Generation),
		rank:    allreduce.Rank(m.Rank),
		resume:  m.ResumeStep,
		state:   m.State,
		queue:   make(chan *coordpb.CoordinatorMessage, queueSize),
		done:    make(chan struct{}),
	}
	if m.StateSize > 0 {
		g.stateBlob = ids.Blob{Digest: ids.Digest(m.StateDigest), Size: m.StateSize}
	}
	for _, p := range m.Members {
		g.members = append(g.members, allreduce.Member{ID: p.Id, Addr: p.RingAddr})
	}
	return g
}

// start runs the generation until ctx ends, it is stopped, or something fails. It begins when the
// one before, which is cancelled, has ended: that may take as long as a micro-batch, or callTime.
func (g *generation) start(ctx context.Context, before *generation) {
	ctx, g.cancel = context.WithCancel(ctx)
	go func() {
		defer close(g.done)
		defer g.session.unfinished.Add(-1)
		defer g.cancel()
		if before != nil {
			<-before.done
		}
		if ctx.Err() != nil {
			return
		}
		g.run(ctx)
		g.abandonedWork = g.trainer.work
	}()
}

// run restores the state, joins the ring and works. The ring forms while the first gradient is
// computed, and while a large state is on its way, so that neighbours which have the state already
// do not time out.
func (g *generation) run(stopped context.Context) {
	if g.stateBlob.Size == 0 {
		if err := g.trainer.restore(g.state, g.resume); err != nil {
			g.reportFailure(fmt.Errorf("generation %d: %w", g.number, err))
			return
		}
		g.state = nil
	}
	redone := g.trainer.contributions.cachedSteps()

	// Join the ring in the background. Its failure ends the work too.
	ctx, fail := context.WithCancelCause(stopped)
	var ring *allreduce.Ring
	joined := make(chan struct{}) // closed when Join has returned; ring is constant from then on
	go func() {
		defer close(joined)
		joinCtx, cancel := context.WithTimeout(ctx, g.trainer.stepTimeout)
		defer cancel()
		r, err := g.session.ring.Join(joinCtx, g.trainer.jobID, g.number, g.rank, g.members)
		if err != nil {
			fail(err)
			return
		}
		ring = r
		g.session.mark(afterJoin)
		g.session.Logger.Debug("generation joined", "generation", uint64(g.number), "rank", int(g.rank),
			"workers", len(g.members), "after_step", g.resume, "redone", redone)
	}()
	defer func() {
		fail(nil)
		if <-joined; ring != nil {
			ring.Close()
		}
	}()
	awaitRing := func(ctx context.Context) (*allreduce.Ring, error) {
		select {
		case <-joined:
			if ring != nil {
				return ring, nil
			}
		case <-ctx.Done():
		}
		return nil, context.Cause(ctx)
	}

	err := g.fetchState(ctx)
	if err == nil {
		err = g.serve(ctx, stepIO{ring: awaitRing, progress: g.sendProgress, blobs: g.session.blobs})
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // why the ring could not be formed, rather than that the work was cancelled
	}
	if stopped.Err() == nil {
		g.reportFailure(err) // before the ring is left: the neighbours' complaints come after the reason
	}
}

// fetchState fetches the trainer state if the coordinator keeps it as a blob.
func (g *generation) fetchState(ctx context.Context) error {
	if g.stateBlob.Size == 0 {
		return nil
	}
	began := time.Now()
	fetched, err := g.trainer.fetchState(ctx, g.session.blobs, g.stateBlob, g.resume)
	if err != nil {
		return fmt.Errorf("generation %d: %w", g.number, err)
	}
	g.session.Logger.Debug("trainer state is here", "generation", uint64(g.number), "after_step", g.resume,
		"bytes", g.stateBlob.Size, "fetched", fetched, "seconds", time.Since(began).Seconds())
	return nil
}

// serve does the queued work and reports it, one piece after another.
func (g *generation) serve(ctx context.Context, io stepIO) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-g.queue:
			reply, err := g.trainer.handle(ctx, io, m)
			if err != nil {
				return err
			}
			if err := g.send(reply); err != nil {
				return err
			}
			g.session.mark(afterReport)
		}
	}
}

// send sends a message to the coordinator.
func (g *generation) send(m *coordpb.WorkerMessage) error {
	if err := g.session.send(m); err != nil {
		return fmt.Errorf("%w: %w", errUnreportable, err)
	}
	return nil
}

// sendProgress tells the coordinator how many micro-batches of a step are computed here.
func (g *generation) sendProgress(step int64, done int) error {
	return g.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Progress{Progress: &coordpb.Progress{
		Generation: uint64(g.number),
		Step:       step,
		Done:       int32(done),
	}}})
}

// reportFailure tells the coordinator why this generation cannot go on here, and ends the session
// if the reason is this machine or the way to the coordinator.
func (g *generation) reportFailure(err error) {
	if errors.Is(err, errUnreportable) {
		return
	}
	if errors.Is(err, errTransfer) {
		g.session.Logger.Warn("generation failed here", "generation", uint64(g.number), "reason", err)
		g.session.abort(err)
		return
	}
	f := &coordpb.Failure{Generation: uint64(g.number), Step: g.trainer.state.Step + 1, Error: err.Error()}
	var peer *allreduce.PeerError
	var data *dataError
	switch {
	case errors.As(err, &peer):
		f.PeerId = peer.ID
	case errors.As(err, &data):
		f.Fatal, f.MicroBatch = true, data.microBatch
	default:
		// Not a neighbour and not the data: this machine cannot compute. The others can.
		defer g.session.abort(&localError{err})
	}
	g.session.Logger.Warn("generation failed here", "generation", uint64(g.number), "step", f.Step, "reason", err)
	_ = g.session.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Failure{Failure: f}})
}
