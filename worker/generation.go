package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/dptune/dpt/allreduce"
	"github.com/dptune/dpt/coordinator/coordpb"
)

// queueSize bounds the messages a coordinator may be ahead: a few plans and evaluation chunks.
const queueSize = 64

// generation is this worker's part in one ring. One goroutine runs it; it ends at the first error or when stopped.
type generation struct {
	s       *session
	t       *trainer
	number  allreduce.Generation
	rank    allreduce.Rank
	members []allreduce.Member
	work    chan *coordpb.CoordinatorMessage
	cancel  context.CancelFunc
	done    chan struct{}
}

func newGeneration(s *session, t *trainer, m *coordpb.StartGeneration) (*generation, error) {
	g := &generation{s: s, t: t, number: allreduce.Generation(m.Generation), rank: allreduce.Rank(m.Rank),
		work: make(chan *coordpb.CoordinatorMessage, queueSize), done: make(chan struct{})}
	for _, p := range m.Members {
		g.members = append(g.members, allreduce.Member{ID: p.Id, Addr: p.RingAddr})
	}
	if err := t.restore(m.State, m.ResumeStep); err != nil {
		return nil, fmt.Errorf("generation %d: %w", m.Generation, err)
	}
	return g, nil
}

// start runs the generation until ctx ends, it is stopped, or something fails.
func (g *generation) start(ctx context.Context) {
	ctx, g.cancel = context.WithCancel(ctx)
	go func() {
		defer close(g.done)
		defer g.cancel()
		if err := g.loop(ctx); err != nil && ctx.Err() == nil {
			g.report(err)
		}
	}()
}

// stop abandons the work and waits for the goroutine to end.
func (g *generation) stop() {
	g.cancel()
	<-g.done
}

func (g *generation) loop(ctx context.Context) error {
	joinCtx, cancel := context.WithTimeout(ctx, g.t.stepTimeout)
	ring, err := g.s.ring.Join(joinCtx, g.t.job, g.number, g.rank, g.members)
	cancel()
	if err != nil {
		return err
	}
	defer ring.Close()
	g.s.mark(AfterJoin)
	g.s.Logger.Debug("generation joined", "generation", uint64(g.number), "rank", int(g.rank), "workers", len(g.members), "after_step", g.t.state.Step)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-g.work:
			reply, err := g.t.do(ctx, ring, m)
			if err != nil {
				return err
			}
			if err := g.s.send(reply); err != nil {
				return err
			}
			g.s.mark(AfterReport)
		}
	}
}

// report tells the coordinator why this generation cannot go on here.
func (g *generation) report(err error) {
	f := &coordpb.Failure{Generation: uint64(g.number), Step: g.t.state.Step + 1, Error: err.Error()}
	var peer *allreduce.PeerError
	var data *DataError
	switch {
	case errors.As(err, &peer):
		f.PeerId = peer.ID
	case errors.As(err, &data):
		f.Fatal = true
	default:
		// Not a neighbour and not the data: this machine cannot compute. The others can.
		defer g.s.broken(&localError{err})
	}
	g.s.Logger.Warn("generation failed here", "generation", uint64(g.number), "step", f.Step, "reason", err)
	_ = g.s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Failure{Failure: f}})
}
