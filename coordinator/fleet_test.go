package coordinator

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/blobsync"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/internal/jobtest"
	"github.com/dptune/dpt/coordinator/internal/replicatest"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
	"github.com/dptune/dpt/model/optim"
)

// t5LargeParams is the number of parameters of T5-Large's prompt, A and B, and t5LargeState the
// size of its trainer state in bytes: the parameters and both moments.
const (
	t5LargeParams = 11240
	t5LargeState  = 3 * 4 * t5LargeParams
)

// fleet is a controller and workers without a network between them: a test puts the workers'
// messages into the controller, and takes the controller's messages out of the sessions. The test's
// goroutine stands in for the controller's.
type fleet struct {
	t        testing.TB
	c        *controller
	sessions []*session // by rank
	applied  chan *applied
	stopped  chan struct{} // closed when nothing waits for the log any more
	once     sync.Once     // of stop
	ended    []error       // why sessions were closed

	// commits are the times from a step's proposal until it is applied, filled by the goroutine
	// that waits for the log. Read them after stop.
	commits []time.Duration

	// Workers report the state that they have started from, so that they need not compute.
	state  []byte
	digest ids.Digest // of state
	step   ids.Step   // the step that is reported next
}

// newFleet starts a job on a new replica with the given number of workers.
func newFleet(t testing.TB, workers int) *fleet {
	t.Helper()
	j := fleetJob(t, workers)
	return startFleet(t, j, fleetNode(t, j), workers)
}

// fleetJob is a job with a micro-batch of one example for every worker, T5-Large's trainer state,
// and steps without end.
func fleetJob(t testing.TB, workers int) *job.Job {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(workers)))
	lines := make([]string, 10*workers)
	for i := range lines {
		premise := strings.Repeat("words ", 1+rng.IntN(24)) // about 100 tokens with the template
		lines[i] = fmt.Sprintf(`{"premise":%q,"hypothesis":"words","label":"entailment","idx":%d}`, premise, i)
	}
	data := jobtest.RTE(t, lines...)
	j := jobtest.Load(t, func(s *job.Settings) {
		s.Data, s.Seed = data, 1
		s.BatchSize, s.MicroBatch = workers, 1
		s.Steps, s.EvalEvery = 1<<40, -1
	})
	j.Initial = optim.NewState(make([]float32, t5LargeParams))
	return j
}

// fleetNode is a replica that is alone, leads, and has the job in its log.
func fleetNode(t testing.TB, j *job.Job) *replica.Node {
	t.Helper()
	n := replicatest.OpenLeader(t, t.TempDir())
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	commitFleetJob(t, j, n)
	return n
}

func commitFleetJob(t testing.TB, j *job.Job, n *replica.Node) {
	t.Helper()
	started, err := jobStarted(j, job.InlineState)
	if err != nil {
		t.Fatal(err)
	}
	replicatest.Commit(t, n, started)
}

// startFleet makes a controller of the job on a replica that leads, and workers for a generation,
// which have been sent the plan of the next step.
func startFleet(t testing.TB, j *job.Job, n *replica.Node, workers int) *fleet {
	t.Helper()
	f := &fleet{
		t:       t,
		c:       fleetController(t, j, n, workers),
		applied: make(chan *applied, 16),
		stopped: make(chan struct{}),
	}
	go f.waitForLog()
	t.Cleanup(f.stop)
	n.View(func(m *fsm.Machine) { f.state, f.step = m.State(), m.Step()+1 })
	f.digest = ids.Sum(f.state)

	for i := range workers {
		f.connect(i, &coordpb.Ready{JobId: f.c.jobID, ModelDigest: j.ModelDigest[:], Numerics: "n", Engine: "e"})
	}
	f.react() // the generation is in the log
	for _, s := range f.sessions {
		if m := <-s.outbox; m.GetWelcome() == nil {
			t.Fatalf("first message %T, want a welcome", m.Body)
		}
		if m := <-s.outbox; m.GetStartGeneration() == nil {
			t.Fatalf("second message %T, want a generation", m.Body)
		}
	}
	return f
}

func fleetController(t testing.TB, j *job.Job, n *replica.Node, workers int) *controller {
	t.Helper()
	cfg := &Config{
		Nodes:            workers,
		MinNodes:         workers,
		CommitEvery:      1,
		CommitWindow:     1,
		HeartbeatTimeout: time.Hour,
		StepTimeout:      time.Hour,
		Version:          "v",
		Logger:           slog.New(slog.DiscardHandler),
		Progress:         Silent{},
	}
	store, err := blobs.Open(t.TempDir(), cfg.Logger)
	if err != nil {
		t.Fatal(err)
	}
	c := newController(cfg, j, n, blobsync.New(blobsync.Options{
		Node:      n,
		Blobs:     store,
		LoadedJob: func() *job.Job { return j },
		Logger:    cfg.Logger,
	}))
	c.readyWorkers = new(atomic.Int32)
	return c
}

// connect opens the session of worker i and makes it ready.
func (f *fleet) connect(i int, ready *coordpb.Ready) {
	s := &session{
		id:      fmt.Sprintf("worker-%05d", i),
		addr:    fmt.Sprintf("10.0.%d.%d:7072", i/250, i%250),
		host:    fmt.Sprintf("host-%d", i),
		version: "v",
		outbox:  make(chan *coordpb.CoordinatorMessage, outboxSize),
		end:     func(err error) { f.ended = append(f.ended, fmt.Errorf("the session of worker %d: %w", i, err)) },
	}
	s.heardAt.Store(time.Now().UnixNano())
	f.sessions = append(f.sessions, s)
	f.c.react(event{session: s, hello: &coordpb.Hello{WorkerId: s.id}})
	f.send(s, &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Ready{Ready: ready}})
}

// waitForLog waits for the controller's proposals in their order, as a term does.
func (f *fleet) waitForLog() {
	defer close(f.stopped)
	for a := range f.c.proposals {
		began := time.Now()
		a.err = a.proposal.Wait()
		a.proposal = replica.Proposal{}
		if a.entry.GetStepCommitted() != nil {
			f.commits = append(f.commits, time.Since(began))
		}
		f.applied <- a
	}
}

// stop ends the controller. It may be called twice.
func (f *fleet) stop() {
	f.once.Do(func() { close(f.c.proposals); <-f.stopped })
}

// send puts a message of a worker into the controller.
func (f *fleet) send(s *session, m *coordpb.WorkerMessage) { f.c.react(event{session: s, message: m}) }

// sendReport has a worker report that it has done what a plan asks for.
func (f *fleet) sendReport(s *session, p *coordpb.Plan) {
	f.send(s, &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Report{Report: f.report(p)}})
}

// report is a worker's report after a plan.
func (f *fleet) report(p *coordpb.Plan) *coordpb.Report {
	r := &coordpb.Report{
		Generation:  p.Generation,
		Step:        p.Step,
		StateDigest: f.digest[:],
		LossSum:     1,
		Tokens:      10,
		GradientNs:  1e8,
	}
	for _, mb := range p.Shard {
		for _, e := range mb.Examples {
			r.GradientCost += int64(100 + len(e.Source) + len(e.Target))
		}
	}
	if p.AttachState {
		r.State = f.state
	}
	return r
}

// react puts what the log applies next into the controller.
func (f *fleet) react() {
	f.t.Helper()
	f.c.react(event{applied: <-f.applied})
	f.check()
}

// check fails the test if the controller or a session has ended.
func (f *fleet) check() {
	f.t.Helper()
	if f.c.failed != nil || f.c.deposed != nil || len(f.ended) > 0 {
		f.t.Fatalf("the controller ends: %v, %v, or sessions: %v", f.c.failed, f.c.deposed, f.ended)
	}
}

// runStep has every worker take its plan and report it done, and waits for the commit. It returns
// the processor time that encoding the plans takes.
func (f *fleet) runStep() (encoding time.Duration) {
	f.t.Helper()
	var done []int
	var plans []proto.Message
	for _, s := range f.sessions {
		m := <-s.outbox
		p := m.GetPlan()
		if p == nil || ids.Step(p.Step) != f.step {
			f.t.Fatalf("message %v, want the plan of step %d", m, f.step)
		}
		plans = append(plans, m)
		for _, mb := range p.Shard {
			done = append(done, int(mb.Index))
		}
		s.heardAt.Store(time.Now().UnixNano())
		f.sendReport(s, p)
	}
	slices.Sort(done)
	if n := len(f.c.job.Plan(f.step).Micro); len(slices.Compact(done)) != n {
		f.t.Fatalf("step %d: %d different micro-batches were dealt, want %d", f.step, len(done), n)
	}
	f.react()
	f.step++

	began := processTime(f.t)
	for _, m := range plans {
		if _, err := proto.Marshal(m); err != nil {
			f.t.Fatal(err)
		}
	}
	return processTime(f.t) - began
}

// processTime is the processor time that this process has taken.
func processTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestFleetSteps keeps the fleet honest: every worker gets its share, each step is committed, and
// workers that leave are forgotten.
func TestFleetSteps(t *testing.T) {
	const workers, steps = 40, 3
	f := newFleet(t, workers)
	for range steps {
		f.runStep()
	}
	if got := f.c.committedStep(); got != steps {
		t.Errorf("%d steps are committed, want %d", got, steps)
	}
	for i, s := range f.sessions {
		if rank := f.c.gen.rank(s); rank != i || f.c.roster.ready[i] != s {
			t.Errorf("worker %d has rank %d and is not at its place among the ready", i, rank)
		}
	}
	gone := f.sessions[17]
	f.c.react(event{session: gone, left: errors.New("it is gone")})
	if f.c.gen != nil || slices.Contains(f.c.roster.ready, gone) || len(f.c.roster.ready) != workers-1 {
		t.Errorf("%d workers are ready after one has left, and the generation is %v", len(f.c.roster.ready), f.c.gen)
	}
}
