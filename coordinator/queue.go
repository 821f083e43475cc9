package coordinator

import (
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
)

// The leader's part in the queue: jobs run one after another on the same workers, which keep what
// they have loaded.

// loadedJob is one of the queue's jobs, read from its files.
type loadedJob struct {
	queued fsm.Queued
	job    *job.Job
	err    error
}

// runsLoggedJob reports whether the log still runs the job at hand.
func (c *controller) runsLoggedJob() bool {
	s := c.node.Status()
	return s.JobID == c.jobID && !s.Over
}

// advanceQueue ends the run of a job that is over, and loads the next one.
func (c *controller) advanceQueue() {
	if c.failed != nil || c.deposed != nil {
		return
	}
	if c.job != nil {
		if c.runsLoggedJob() {
			return
		}
		c.endRun()
	}
	if c.loading || c.inFlight > 0 {
		return
	}
	q, _ := c.nextJob()
	if q.ID == "" {
		return
	}
	c.loading = true
	c.loads.Go(func() {
		j, err := c.cache.Load(q.ID, q.Name, q.Request)
		select {
		case c.events <- event{loaded: &loadedJob{queued: q, job: j, err: err}}:
		case <-c.ended:
		}
	})
}

// nextJob is the job that the log runs, else the first that waits.
func (c *controller) nextJob() (q fsm.Queued, running bool) {
	c.node.View(func(m *fsm.Machine) {
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
func (c *controller) onLoaded(l *loadedJob) {
	c.loading = false
	q, running := c.nextJob()
	switch {
	case q.ID != l.queued.ID:
	case l.err != nil && running:
		c.fail("%w", l.err) // another replica may have its files
	case l.err != nil:
		reason := l.err.Error()
		c.logger.Error("job cannot start", "job", q.Name, "reason", reason)
		c.propose(&applied{entry: jobCancelled(q.ID, reason)})
	case running:
		c.startRun(l.job)
	default:
		e, err := jobStarted(l.job, c.cfg.Storage.inline())
		if err != nil {
			c.fail("job %s: %w", q.Name, err)
			return
		}
		c.propose(&applied{entry: e, job: l.job})
	}
}

// startRun takes up a job that the log runs, and tells the workers.
func (c *controller) startRun(j *job.Job) {
	c.run = newRun(j, c.node)
	c.logger.Info("job started",
		"job", j.ID, "task", j.Spec.Task, "method", j.Spec.Method, "steps", j.Spec.Steps)
	c.welcomeAll()
}

// endRun forgets a job that is over; its workers wait for the next.
func (c *controller) endRun() {
	c.run = newRun(nil, c.node)
	c.roster.unready()
	c.welcomeAll()
}

func (c *controller) welcomeAll() {
	for _, s := range c.roster.sessions {
		c.welcome(s)
	}
}
