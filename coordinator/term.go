package coordinator

import (
	"context"
	"errors"
	"time"
)

// term is one time of this replica's leading.
type term struct {
	*task
	stop context.CancelCauseFunc
}

// startTerm makes this replica lead from now until the term is stopped.
func (p *process) startTerm(ctx context.Context) *term {
	ctx, stop := context.WithCancelCause(ctx)
	return &term{stop: stop, task: start(func() error { defer stop(nil); return p.runTerm(ctx) })}
}

// runTerm runs the job as its leader. It returns as controller.loop does.
func (p *process) runTerm(ctx context.Context) error {
	n := p.node
	if err := n.Barrier(); err != nil {
		return err
	}
	if !n.Alone() {
		p.cfg.Logger.Info("this replica leads", "replica", n.ID(), "workers_at", p.cfg.workerAddr())
	}
	if err := n.Propose(coordinatorJoined(n.ID(), p.cfg.workerAddr())).Wait(); err != nil {
		return err
	}
	if !p.cfg.Serve {
		if over, err := p.ensureJob(ctx); over || err != nil {
			return err
		}
	}
	p.blobs.BeginTerm()
	c := newController(p.cfg, p.job, n, p.blobs)
	c.cache, c.readyWorkers = p.cache, &p.service.readyWorkers
	closed := make(chan struct{})
	p.service.lead(&server{
		events:  c.events,
		version: p.cfg.Version,
		beat:    p.cfg.heartbeatInterval(),
		logger:  p.cfg.Logger,
		closed:  closed,
	})
	err := c.loop(ctx)
	p.service.lead(nil)
	c.dismissWorkers(err)
	close(closed)
	return err
}

// ensureJob makes sure that the log holds the job that this replica was started with, and reports
// whether it is over.
func (p *process) ensureJob(ctx context.Context) (over bool, err error) {
	s := p.node.Status()
	if s.Over {
		return true, nil
	}
	if !s.Started {
		e, err := jobStarted(p.job, p.cfg.Storage.inline())
		if err != nil {
			return false, err
		}
		if err := p.node.Propose(e).Wait(); err != nil {
			return false, err
		}
	}
	select {
	case <-p.recorder.Ready(): // it checks that the log's job is ours
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// endTerm ends this replica's leading before it stops, and lets another replica lead at once. t may
// be nil.
func (p *process) endTerm(t *term, stopped bool, err error) {
	if t == nil {
		return
	}
	broken := errors.Is(err, errBroken)
	if broken {
		// raft may have lost the goroutine that the controller waits for; stopping it wakes both.
		p.node.Shutdown()
	}
	t.stop(err)
	var patience <-chan time.Time
	if broken {
		patience = time.After(brokenGrace)
	}
	select {
	case <-t.done:
	case <-patience:
	}
	if !broken && (stopped || err != nil) {
		p.node.HandOver(p.cfg.Logger)
	}
}
