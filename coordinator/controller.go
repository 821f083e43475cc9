package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dptune/dpt/coordinator/blobsync"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
)

// controller is the leader's loop: it forms generations, sends plans, collects reports, commits.
// All its state belongs to the goroutine that runs loop; sessions, the raft waiter and the clock
// reach it through events.
type controller struct {
	cfg          *Config
	node         *replica.Node
	blobs        *blobsync.Sync
	cache        *job.Cache    // of the queue's jobs
	readyWorkers *atomic.Int32 // for others to read
	logger       *slog.Logger
	progress     Reporter

	events    chan event
	proposals chan *applied // on their way to the log, in order
	inFlight  int           // proposals not yet applied

	roster *roster
	*run   // the job at hand; one without a job while none of the queue's runs

	loading bool // the queue's next job is read from its files
	loads   sync.WaitGroup
	ended   <-chan struct{} // closed when the loop takes no more events

	rejoinBy time.Time // until when the workers of the leader before are waited for

	ticked  time.Time // the last tick
	stalled time.Time // when this process itself was last found to have stood still

	done    bool  // the job has ended, and there is no queue
	deposed error // leadership is lost, or this replica cannot keep the log any more
	failed  error // the job cannot go on here and now
}

// run is what a leader knows of one job beside the log. Each job, and each leader, has its own.
type run struct {
	job     *job.Job // nil while none of the queue's runs
	jobID   string
	gen     *generation // nil while there is none
	eval    *evaluation // under way; survives a generation
	dispute *dispute    // nil while all agree
	// holders maps a step and a micro-batch to the id of a worker that has computed it.
	holders map[ids.Step]map[int]string

	begun     bool      // a generation has run, so MinNodes is enough
	expected  int       // workers of the last generation of the leader before; 0 once one has run here
	forming   bool      // a GenerationStarted is proposed
	notBefore time.Time // no new generation before
	barren    int       // generations since the last committed step
	lastStep  time.Time // when the step before was complete
	finishing bool      // a JobFinished is proposed
	failing   bool      // a JobFailed is proposed
}

// newRun takes over how far the log's job has come. Without a job it is a run of none.
func newRun(j *job.Job, n *replica.Node) *run {
	r := &run{job: j, holders: map[ids.Step]map[int]string{}, lastStep: time.Now()}
	if j != nil {
		s := n.Status()
		r.jobID = s.JobID
		r.begun, r.expected = s.Generation > s.FirstGeneration, s.Workers
	}
	return r
}

// applied is a proposal and what became of it.
type applied struct {
	entry    *fsmpb.Entry
	proposal replica.Proposal
	err      error      // valid once it is applied
	members  []*session // of a GenerationStarted: the sessions by rank
	job      *job.Job   // of a JobStarted
}

func newController(cfg *Config, j *job.Job, n *replica.Node, blobs *blobsync.Sync) *controller {
	return &controller{
		cfg:       cfg,
		node:      n,
		blobs:     blobs,
		logger:    cfg.Logger,
		progress:  cfg.Progress,
		events:    make(chan event, 256),
		proposals: make(chan *applied, cfg.CommitWindow+8),
		roster:    newRoster(),
		run:       newRun(j, n),
		rejoinBy:  time.Now().Add(rejoinGrace),
		ticked:    time.Now(),
	}
}

// loop runs the job to its end. It returns nil when the job is finished or has failed for good,
// ctx's error when it was stopped, a replica.ErrDeposed when another replica is to go on, and
// otherwise why the job cannot go on.
func (c *controller) loop(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	waiter := make(chan struct{})
	go func() {
		defer close(waiter)
		for a := range c.proposals {
			a.err = a.proposal.Wait()
			a.proposal = replica.Proposal{}
			select {
			case c.events <- event{applied: a}:
			case <-ctx.Done():
			}
		}
	}()
	defer func() { stop(nil); close(c.proposals); <-waiter; c.loads.Wait() }()
	c.ended = ctx.Done()
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	c.lastStep = time.Now()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e := <-c.events:
			c.react(e)
		case <-ticker.C:
			c.react(event{tick: true})
		}
		if c.failed != nil || c.deposed != nil || c.done {
			return errors.Join(c.failed, c.deposed)
		}
	}
}

// react takes in an event and does whatever it allows.
func (c *controller) react(e event) {
	c.handle(e)
	if c.readyWorkers != nil {
		c.readyWorkers.Store(int32(len(c.roster.ready)))
	}
	if c.cfg.Serve {
		c.advanceQueue()
	}
	if c.job != nil && c.failed == nil && c.deposed == nil && !c.done && !c.failing {
		c.advance()
	}
}

// onTick looks for what has not happened.
func (c *controller) onTick() {
	now := time.Now()
	if now.Sub(c.ticked) > stragglerGrace {
		c.stalled = now // messages of that time may still be waiting
	}
	c.ticked = now
	c.dropSilent()
	c.relieveStragglers(now)
	c.rejoin()
}

// advance does whatever the state now allows. It is called after every event.
func (c *controller) advance() {
	c.settleOffer()
	s := c.node.Status()
	evalDue := c.job.EvalDue(s.Step) && !s.Evaluated
	if (s.Step == s.TotalSteps || s.Exhausted) && !evalDue {
		if !c.finishing && c.inFlight == 0 {
			c.finishing = true
			c.propose(&applied{entry: jobFinished(s.Step < s.TotalSteps)})
		}
		return
	}

	// A worker that waits to join does so between two steps that the log holds.
	if c.gen != nil && c.gen.regroup && c.gen.planned == s.Step && c.inFlight == 0 {
		c.logger.Info("generation ended", "generation", c.gen.number, "reason", "a worker joins, or is back")
		c.gen = nil
		if c.eval != nil {
			c.eval.abandon()
		}
	}
	if c.gen == nil {
		c.formGeneration()
		return
	}

	if evalDue {
		if c.gen.planned == s.Step && !c.gen.regroup {
			c.evaluate(s.Step)
		}
		return
	}
	c.plan(s.Step, s.TotalSteps)
}

// committedStep is the last step that the log holds.
func (c *controller) committedStep() ids.Step { return c.node.Status().Step }

// propose sends an entry to the log; onApplied learns what became of it, in the order of the calls.
func (c *controller) propose(a *applied) {
	c.inFlight++
	c.cfg.mark(BeforePropose)
	a.proposal = c.node.Propose(a.entry)
	c.cfg.mark(AfterPropose)
	c.proposals <- a
}

// onApplied goes on from an entry that the log now holds, or has rejected.
func (c *controller) onApplied(a *applied) {
	if errors.Is(a.err, fsm.ErrRejected) {
		if !c.cfg.Serve || c.runsLoggedJob() {
			c.fail("%w", a.err)
		} // else the job was cancelled before the entry came to the log
		return
	}
	if a.err != nil {
		// Another replica leads, or this one's disk has failed: the job goes on elsewhere or later,
		// and the workers with it.
		c.deposed = a.err
		return
	}
	c.cfg.mark(AfterCommit)
	if c.cfg.Serve && c.job != nil && !c.runsLoggedJob() {
		return
	}
	switch b := a.entry.Body.(type) {
	case *fsmpb.Entry_JobStarted:
		c.startRun(a.job)
	case *fsmpb.Entry_GenerationStarted:
		c.onGeneration(b.GenerationStarted, a.members)
	case *fsmpb.Entry_StepCommitted:
		c.barren = 0
		for t := range c.holders {
			if t <= ids.Step(b.StepCommitted.Step) {
				delete(c.holders, t)
			}
		}
	case *fsmpb.Entry_EvaluationCommitted:
		c.eval = nil
		c.lastStep = time.Now()
	case *fsmpb.Entry_JobFinished, *fsmpb.Entry_JobFailed:
		c.done = !c.cfg.Serve
	}
}

// fail ends this leader's work for a reason that another start may not meet. Where jobs come by the
// queue, it fails the job: the other jobs must not suffer for this one.
func (c *controller) fail(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if c.cfg.Serve && c.job != nil {
		c.failJob(0, err.Error())
		return
	}
	if c.failed == nil {
		c.failed = err
	}
}

// failJob ends the job for good: its data fails on every machine. The log takes the reason, so that
// nobody has to find it out again.
func (c *controller) failJob(at ids.Step, reason string) {
	if c.failing {
		return
	}
	c.failing, c.gen = true, nil
	s := c.node.Status()
	at = min(max(at, s.Step), s.TotalSteps)
	reason = clipReason(reason)
	c.logger.Error("the job cannot go on", "step", at, "reason", reason)
	c.propose(&applied{entry: jobFailed(at, reason)})
}
