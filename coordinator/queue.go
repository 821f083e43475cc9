package coordinator

import (
	"strings"
	"time"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/job"
)

// The controller's queue: jobs run one after another on the same workers, which keep what they have loaded.

// loaded is one of the queue's jobs, read from its files.
type loaded struct {
	queued fsm.Queued
	job    *job.Job
	err    error
}

// current says whether the log still runs the controller's job.
func (c *controller) current() (is bool) {
	c.node.view(func(m *fsm.Machine) { is = m.JobID() == c.jobID && !m.Over() })
	return is
}

// turn ends the controller's part in a job that is over, and looks for the next one.
func (c *controller) turn() {
	if c.failed != nil || c.deposed != nil {
		return
	}
	if c.job != nil {
		if c.current() {
			return
		}
		c.leave()
	}
	if c.loading || c.inFlight > 0 {
		return
	}
	q, _ := c.next()
	if q.ID == "" {
		return
	}
	c.loading = true
	c.loads.Go(func() {
		job, err := c.library.load(q)
		select {
		case c.events <- event{loaded: &loaded{queued: q, job: job, err: err}}:
		case <-c.ended:
		}
	})
}

// next is the job that the log runs, else the first that waits.
func (c *controller) next() (q fsm.Queued, running bool) {
	c.node.view(func(m *fsm.Machine) {
		switch {
		case m.Status() == fsm.Running:
			q, running = m.Request(), true
		case len(m.Queue()) > 0:
			q = m.Queue()[0]
		}
	})
	return q, running
}

// onLoaded starts the job that was loaded, or goes on with it, if it is still its turn.
func (c *controller) onLoaded(l *loaded) {
	c.loading = false
	q, running := c.next()
	if q.ID != l.queued.ID {
		return
	}
	if l.err != nil && running {
		// Another replica may have its files.
		c.fail("%w", l.err)
		return
	}
	if l.err != nil {
		reason := l.err.Error()
		c.logger.Error("job cannot start", "job", q.Name, "reason", reason)
		c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_JobCancelled{JobCancelled: &fsmpb.JobCancelled{JobId: q.ID, Reason: clip(reason)}}}})
		return
	}
	if running {
		c.begin(l.job)
		return
	}
	e, err := jobStarted(l.job, c.cfg.Storage.inline())
	if err != nil {
		c.fail("job %s: %w", q.Name, err)
		return
	}
	c.propose(&applied{entry: e, job: l.job})
}

// clip shortens a reason to what the log takes.
func clip(reason string) string {
	if len(reason) > fsm.MaxFailureLength {
		return strings.ToValidUTF8(reason[:fsm.MaxFailureLength], "")
	}
	return reason
}

// begin takes up a job that the log runs, and tells the workers.
func (c *controller) begin(job *job.Job) {
	c.job, c.lastStep = job, time.Now()
	c.resume()
	c.logger.Info("job started", "job", job.ID, "task", job.Spec.Task, "method", job.Spec.Method, "steps", job.Spec.Steps)
	for _, s := range c.sessions {
		c.welcome(s)
	}
}

// leave forgets a job that is over; its workers wait for the next.
func (c *controller) leave() {
	c.job, c.jobID, c.gen, c.eval = nil, "", nil, nil
	c.begun, c.forming, c.finishing, c.failing = false, false, false, false
	c.barren, c.lastWhy, c.dispute = 0, nil, nil
	clear(c.held)
	c.roster = nil
	for _, s := range c.sessions {
		s.ready, s.numerics, s.pace = false, "", pace{}
		c.welcome(s)
	}
}
