package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
)

const (
	// tickInterval is how often silence is looked for.
	tickInterval = 100 * time.Millisecond
	// regroupDelay lets the other reports of one failure arrive before a new ring is formed.
	regroupDelay = 200 * time.Millisecond
	// maxRegroupDelay bounds the wait between generations that end without a committed step.
	maxRegroupDelay = 5 * time.Second
	// maxBarren is how many generations in a row may end without progress before the job is given up.
	maxBarren = 20
	// rejoinGrace is how long a new leader waits for the workers that the one before had.
	rejoinGrace = 1500 * time.Millisecond
)

// controller is the leader's loop: it forms generations, sends plans, collects reports, commits. All its state
// belongs to the goroutine that runs loop; sessions, the raft waiter and the clock reach it through events.
type controller struct {
	cfg      *Config
	job      *job.Job // nil while none of the queue's runs
	node     *node
	states   *states
	library  *library      // of the queue's jobs
	workers  *atomic.Int32 // that are ready, for others to read
	logger   *slog.Logger
	progress Reporter

	events   chan event
	waits    chan *applied // proposals on their way, in order
	inFlight int           // proposals not yet applied

	sessions map[string]*session // by worker id
	roster   []*session          // those that are ready, by id
	gen      *generation         // nil while there is none
	eval     *evaluation         // under way; survives a generation
	dispute  *dispute            // nil while all agree

	held map[ids.Step]map[int]string // by step and micro-batch, the id of a worker that has computed it

	jobID     string
	begun     bool      // a generation has run, so MinNodes is enough
	expected  int       // workers of the last generation of the leader before; 0 once a generation has run here
	patience  time.Time // until when they are waited for
	forming   bool      // a GenerationStarted is proposed
	notBefore time.Time // no new generation before
	barren    int       // generations since the last committed step
	lastWhy   error     // why the last generation ended
	lastStep  time.Time // when the step before was complete
	ticked    time.Time // the last tick
	hiccup    time.Time // when this process itself was last found to have stood still
	finishing bool
	done      bool
	deposed   error // leadership is lost, or this replica cannot keep the log any more
	failing   bool  // a JobFailed is proposed
	loading   bool  // the queue's next job is read from its files
	loads     sync.WaitGroup
	ended     <-chan struct{} // closed when the loop takes no more events
	failed    error           // the job cannot go on here and now
}

// generation is a fixed ring at work.
type generation struct {
	number  ids.Generation
	ranks   []*session
	planned ids.Step // the last step whose plan was sent
	reports map[ids.Step]*stepReports
	pending []*fsmpb.StepCommitted // complete steps that wait for the one that commits them
	offer   *fsmpb.StepCommitted   // a complete step whose state waits for a majority of the replicas to take it
	free    []time.Time            // when each rank last became free
	regroup bool                   // a worker waits to join: drain, then form the next generation
}

// stepReports is one step under way: what each rank has to do, what it has done and its report.
type stepReports struct {
	sent    time.Time
	costs   []int          // by micro-batch
	shard   [][]int        // by rank
	dealt   [][]int        // by rank, what it computes, in its order: shard and audits
	cost    []int          // by rank, of what it does not have from before
	digests []map[int]bool // by rank, the micro-batches of whose contribution it is to report the digest
	done    []int          // by rank, how many of dealt it has computed
	waits   []bool         // by rank, whether it has computed all
	waiting time.Time      // when the last one began to wait

	got   []*coordpb.Report
	fails []string // by rank, why it cannot apply the step
	count int
}

// applied is a proposal and what became of it.
type applied struct {
	entry  *fsmpb.Entry
	future raft.ApplyFuture
	err    error
	form   []*session // of a GenerationStarted: the sessions by rank
	job    *job.Job   // of a JobStarted
}

func newController(cfg *Config, job *job.Job, n *node, k *states) *controller {
	c := &controller{
		cfg: cfg, job: job, node: n, states: k, logger: cfg.Logger, progress: cfg.Progress,
		events: make(chan event, 256), waits: make(chan *applied, cfg.CommitWindow+8),
		sessions: map[string]*session{}, held: map[ids.Step]map[int]string{}, ticked: time.Now(), patience: time.Now().Add(rejoinGrace),
	}
	if job != nil {
		c.resume()
	}
	return c
}

// resume takes over how far the log's job has come.
func (c *controller) resume() {
	c.node.view(func(m *fsm.Machine) {
		c.jobID = m.JobID()
		number, members := m.Generation()
		c.begun, c.expected = number > m.FirstGeneration(), len(members)
	})
}

// loop runs the job to its end. It returns nil when the job is finished or has failed for good, ctx's error when it was stopped, an
// errDeposed when another replica is to go on, and otherwise why the job cannot go on.
func (c *controller) loop(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	waiter := make(chan struct{})
	go func() {
		defer close(waiter)
		for a := range c.waits {
			a.err = committed(a.future)
			a.future = nil
			select {
			case c.events <- event{applied: a}:
			case <-ctx.Done():
			}
		}
	}()
	defer func() { stop(nil); close(c.waits); <-waiter; c.loads.Wait() }()
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
	if c.workers != nil {
		c.workers.Store(int32(len(c.ready())))
	}
	if c.cfg.Serve {
		c.turn()
	}
	if c.job != nil && c.failed == nil && c.deposed == nil && !c.done && !c.failing {
		c.advance()
	}
}

func (c *controller) handle(e event) {
	switch {
	case e.applied != nil:
		c.inFlight--
		c.onApplied(e.applied)
	case e.hello != nil:
		c.onHello(e.session)
	case e.session != nil && c.sessions[e.session.id] != e.session:
		// A session that was refused or replaced has nothing more to say.
	case e.message != nil:
		c.onMessage(e.session, e.message)
	case e.session != nil:
		c.onLeft(e.session, e.left)
	case e.loaded != nil:
		c.onLoaded(e.loaded)
	case e.tick:
		c.onTick()
	}
}

func (c *controller) onTick() {
	now := time.Now()
	if now.Sub(c.ticked) > lateFloor {
		c.hiccup = now // messages of that time may still be waiting
	}
	c.ticked = now
	c.expireSilent()
	c.relieve(now)
	c.rejoin()
}

// fail ends this leader's work for a reason that another start may not meet.
func (c *controller) fail(format string, args ...any) {
	if c.cfg.Serve && c.job != nil {
		// The other jobs of the queue are not to suffer for this one.
		c.failJob(0, fmt.Sprintf(format, args...))
		return
	}
	if c.failed == nil {
		c.failed = fmt.Errorf(format, args...)
	}
}

// failJob ends the job for good: its data fails on every machine. It goes into the log, so that nobody has to find out again.
func (c *controller) failJob(at ids.Step, reason string) {
	if c.failing {
		return
	}
	c.failing, c.gen = true, nil
	var step, total ids.Step
	c.node.view(func(m *fsm.Machine) { step, total = m.Step(), m.TotalSteps() })
	at = min(max(at, step), total)
	reason = clip(reason)
	c.logger.Error("the job cannot go on", "step", at, "reason", reason)
	c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_JobFailed{JobFailed: &fsmpb.JobFailed{Step: int64(at), Error: reason}}}})
}

// ---- generations ----

// endGeneration abandons the steps in flight. Committed steps stay; the next generation resumes after them.
func (c *controller) endGeneration(why error) {
	c.logger.Warn("generation ended", "generation", c.gen.number, "reason", why)
	c.gen = nil
	c.lastWhy = why
	c.barren++
	delay := regroupDelay << min(c.barren-1, 10)
	c.notBefore = time.Now().Add(min(delay, maxRegroupDelay))
	if c.eval != nil {
		c.eval.abandon()
	}
	if c.barren > maxBarren {
		c.fail("%d generations ended in a row without a committed step; the last because %w", c.barren, why)
	}
}

func (c *controller) committed() (step ids.Step) {
	c.node.view(func(m *fsm.Machine) { step = m.Step() })
	return step
}

// regroupAtOnce has the next generation formed without waiting for more reports of a failure, because there was none.
func (c *controller) regroupAtOnce() {
	if c.barren <= 3 {
		c.notBefore = time.Now()
	}
}

// maybeForm proposes a new generation of all ready workers when there are enough. Nothing may be on its way to
// the log: a step that was proposed belongs to the old generation and is committed or rejected first.
func (c *controller) maybeForm() {
	need := c.cfg.Nodes
	if c.begun {
		need = c.cfg.MinNodes
	}
	members := c.able()
	now := time.Now()
	if c.forming || c.inFlight > 0 || len(members) < need || now.Before(c.notBefore) || !c.stateHere() {
		return
	}
	if len(members) < c.expected && now.Before(c.patience) {
		return
	}
	var number ids.Generation
	var step ids.Step
	c.node.view(func(m *fsm.Machine) { number, _ = m.Generation(); step = m.Step() })
	e := &fsmpb.GenerationStarted{Generation: uint64(number) + 1, ResumeStep: int64(step), Numerics: members[0].numerics}
	for _, s := range members {
		e.Members = append(e.Members, &fsmpb.Member{Id: s.id, Addr: s.addr})
	}
	c.forming = true
	c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_GenerationStarted{GenerationStarted: e}}, form: members})
}

// onGeneration starts the ring that the log now names.
func (c *controller) onGeneration(e *fsmpb.GenerationStarted, members []*session) {
	c.forming = false
	for _, s := range members {
		if c.sessions[s.id] != s {
			return // gone meanwhile: form another
		}
	}
	var state []byte
	var blob ids.Blob
	c.node.view(func(m *fsm.Machine) { state, blob = m.State(), m.Blob() })
	c.gen = &generation{number: ids.Generation(e.Generation), ranks: members, planned: ids.Step(e.ResumeStep), reports: map[ids.Step]*stepReports{},
		free: make([]time.Time, len(members))}
	c.begun, c.expected = true, 0
	list := make([]*coordpb.Member, len(members))
	for r, s := range members {
		list[r] = &coordpb.Member{Id: s.id, RingAddr: s.addr}
	}
	for r, s := range members {
		s.gen, s.rank = c.gen, r
		s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_StartGeneration{StartGeneration: &coordpb.StartGeneration{
			Generation: e.Generation, Rank: int32(r), Members: list, ResumeStep: e.ResumeStep, State: state, StateSize: blob.Size, StateDigest: nameOf(blob),
		}}})
		c.cfg.markHalf(HalfGeneration, r, len(members))
	}
	c.lastStep = time.Now()
	c.logger.Info("generation started", "generation", e.Generation, "workers", len(members), "after_step", e.ResumeStep)
	c.progress.Generation(c.gen.number, len(members), ids.Step(e.ResumeStep))
}

// rank is the session's in this generation, -1 if it is not part of it.
func (g *generation) rank(s *session) int {
	if s.gen != g {
		return -1
	}
	return s.rank
}

// ---- the log ----

// propose sends an entry to the log; onApplied hears of it, in the order of the calls.
func (c *controller) propose(a *applied) {
	c.inFlight++
	c.cfg.mark(BeforePropose)
	a.future = c.node.propose(a.entry)
	c.cfg.mark(AfterPropose)
	c.waits <- a
}

func (c *controller) onApplied(a *applied) {
	if errors.Is(a.err, fsm.ErrRejected) {
		if !c.cfg.Serve || c.current() {
			c.fail("%w", a.err)
		} // else the job was cancelled before the entry came to the log
		return
	}
	if a.err != nil {
		// Another replica leads, or this one's disk has failed: the job goes on elsewhere or later, and the workers with it.
		c.deposed = a.err
		return
	}
	c.cfg.mark(AfterCommit)
	if c.cfg.Serve && c.job != nil && !c.current() {
		return
	}
	switch b := a.entry.Body.(type) {
	case *fsmpb.Entry_JobStarted:
		c.begin(a.job)
	case *fsmpb.Entry_GenerationStarted:
		c.onGeneration(b.GenerationStarted, a.form)
	case *fsmpb.Entry_StepCommitted:
		c.barren = 0
		maps.DeleteFunc(c.held, func(t ids.Step, _ map[int]string) bool { return t <= ids.Step(b.StepCommitted.Step) })
	case *fsmpb.Entry_EvaluationCommitted:
		c.onEvaluated()
	case *fsmpb.Entry_JobFinished, *fsmpb.Entry_JobFailed:
		c.done = !c.cfg.Serve
	}
}

// advance does whatever the state now allows. It is called after every event.
func (c *controller) advance() {
	c.settleOffer()
	var step, total ids.Step
	var evaluated, exhausted bool
	c.node.view(func(m *fsm.Machine) {
		step, total, evaluated, exhausted = m.Step(), m.TotalSteps(), m.Evaluated(m.Step()), m.Exhausted()
	})
	evalDue := c.job.EvalDue(step) && !evaluated
	if (step == total || exhausted) && !evalDue {
		if !c.finishing && c.inFlight == 0 {
			c.finishing = true
			c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_JobFinished{JobFinished: &fsmpb.JobFinished{StoppedEarly: step < total}}}})
		}
		return
	}
	if c.gen != nil && c.gen.regroup && c.gen.planned == step && c.inFlight == 0 {
		c.logger.Info("generation ended", "generation", c.gen.number, "reason", "a worker joins, or is back")
		c.gen = nil
		if c.eval != nil {
			c.eval.abandon()
		}
	}
	if c.gen == nil {
		c.maybeForm()
		return
	}
	if evalDue {
		if c.gen.planned == step && !c.gen.regroup {
			c.evaluate(step)
		}
		return
	}
	c.plan(step, total)
}
