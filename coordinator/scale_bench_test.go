package coordinator

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
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
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model/optim"
)

// BenchmarkWorkers is what a step costs the leader with so many workers, a micro-batch of one
// example of about 100 tokens for each, and T5-Large's trainer state: planning, dealing, a plan for
// each, their reports, comparing digests, and the commit to a log on disk. Everything is the
// controller's own code but the network: the sessions' messages are taken from and put where their
// streams would.
//
// cpu-ms is the processors' time a step, the log's part and the garbage collector's among it;
// wire-ms that of encoding the plans, which the sessions' goroutines do beside it; heap-MB is what
// is in use after the last step, with everything that the workers' sessions hold here but gRPC's
// buffers.
func BenchmarkWorkers(b *testing.B) {
	for _, workers := range []int{125, 250, 500, 1000, 2000} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) { benchWorkers(b, workers) })
	}
}

func benchWorkers(b *testing.B, workers int) {
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := newFleet(b, workers)
	f.step() // plans are made ahead, so the first step is not like the others
	var wire time.Duration
	began := processTime(b)
	for b.Loop() {
		wire += f.step()
	}
	cpu := processTime(b) - began - wire
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(cpu.Seconds()*1e3/float64(b.N), "cpu-ms")
	b.ReportMetric(wire.Seconds()*1e3/float64(b.N), "wire-ms")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "heap-MB")
	runtime.KeepAlive(f)
}

func processTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fleet is a controller with workers that have no network between them and it.
type fleet struct {
	t        testing.TB
	c        *controller
	sessions []*session
	applied  chan *applied
	done     chan struct{}
	once     sync.Once
	ended    []error         // sessions that were closed
	commits  []time.Duration // from a step's proposal until it is applied; read it after disband
	state    []byte
	digest   ids.Digest // of state: workers make it, and their time does not count
	at       ids.Step   // the step that is reported next
}

func newFleet(t testing.TB, workers int) *fleet {
	t.Helper()
	job := fleetJob(t, workers)
	return muster(t, job, fleetNode(t, job), workers)
}

// fleetNode is a replica that is alone, leads, and has the job in its log.
func fleetNode(t testing.TB, job *job.Job) *replica.Node {
	t.Helper()
	n, err := replica.Open(t.TempDir(), replica.Storage{}, nil, 3*11240*4, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	for !<-n.Leadership() {
	}
	startFleetJob(t, job, n)
	return n
}

func startFleetJob(t testing.TB, j *job.Job, n *replica.Node) {
	t.Helper()
	started, err := jobStarted(j, job.InlineState)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Propose(started).Wait(); err != nil {
		t.Fatal(err)
	}
}

// muster is a new controller on a node, with a generation of as many new workers that have the plan
// of the next step.
func muster(t testing.TB, j *job.Job, n *replica.Node, workers int) *fleet {
	t.Helper()
	cfg := &Config{Nodes: workers, MinNodes: workers, CommitEvery: 1, CommitWindow: 1, HeartbeatTimeout: time.Hour, StepTimeout: time.Hour, Version: "v", Logger: slog.New(slog.DiscardHandler), Progress: Silent{}}
	store, err := blobs.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	k := blobsync.New(blobsync.Options{
		Node:      n,
		Blobs:     store,
		LoadedJob: func() *job.Job { return j },
		Logger:    cfg.Logger,
	})
	f := &fleet{t: t, c: newController(cfg, j, n, k), applied: make(chan *applied, 16), done: make(chan struct{})}
	f.c.readyWorkers = new(atomic.Int32)
	go func() {
		defer close(f.done)
		for a := range f.c.proposals {
			began := time.Now()
			a.err = a.proposal.Wait()
			a.proposal = replica.Proposal{}
			if a.entry.GetStepCommitted() != nil {
				f.commits = append(f.commits, time.Since(began))
			}
			f.applied <- a
		}
	}()
	t.Cleanup(f.disband)
	n.View(func(m *fsm.Machine) { f.state, f.at = m.State(), m.Step()+1 })
	f.digest = ids.Sum(f.state)
	digest := j.ModelDigest[:]
	for i := range workers {
		s := &session{id: fmt.Sprintf("worker-%05d", i), addr: fmt.Sprintf("10.0.%d.%d:7072", i/250, i%250), host: fmt.Sprintf("host-%d", i), version: "v",
			outbox: make(chan *coordpb.CoordinatorMessage, outboxSize), end: func(err error) { f.ended = append(f.ended, fmt.Errorf("the session of worker %d: %w", i, err)) }}
		s.heardAt.Store(time.Now().UnixNano())
		f.sessions = append(f.sessions, s)
		f.c.react(event{session: s, hello: &coordpb.Hello{WorkerId: s.id}})
		f.c.react(event{session: s, message: &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Ready{Ready: &coordpb.Ready{JobId: f.c.jobID, ModelDigest: digest, Numerics: "n", Engine: "e"}}}})
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

// disband ends the controller.
func (f *fleet) disband() {
	f.once.Do(func() { close(f.c.proposals); <-f.done })
}

// react takes in what the log has applied next.
func (f *fleet) react() {
	f.t.Helper()
	f.c.react(event{applied: <-f.applied})
	if f.c.failed != nil || f.c.deposed != nil || len(f.ended) > 0 {
		f.t.Fatalf("the controller ends: %v, %v, or sessions: %v", f.c.failed, f.c.deposed, f.ended)
	}
}

// step has every worker take its plan and report it done, and waits for the commit. It returns the
// time that went into encoding plans.
func (f *fleet) step() (wire time.Duration) {
	f.t.Helper()
	var done []int
	var plans []proto.Message
	for _, s := range f.sessions {
		m := <-s.outbox
		p := m.GetPlan()
		if p == nil || ids.Step(p.Step) != f.at {
			f.t.Fatalf("message %v, want the plan of step %d", m, f.at)
		}
		plans = append(plans, m)
		for _, mb := range p.Shard {
			done = append(done, int(mb.Index))
		}
		s.heardAt.Store(time.Now().UnixNano())
		f.c.react(event{session: s, message: &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Report{Report: f.report(p)}}})
	}
	slices.Sort(done)
	if n := len(f.c.job.Plan(f.at).Micro); len(slices.Compact(done)) != n {
		f.t.Fatalf("step %d: %d different micro-batches were dealt, want %d", f.at, len(done), n)
	}
	f.react()
	f.at++
	began := processTime(f.t)
	for _, m := range plans {
		if _, err := proto.Marshal(m); err != nil {
			f.t.Fatal(err)
		}
	}
	return processTime(f.t) - began
}

// report is what a worker says after a plan. States stay as they are.
func (f *fleet) report(p *coordpb.Plan) *coordpb.Report {
	r := &coordpb.Report{Generation: p.Generation, Step: p.Step, StateDigest: f.digest[:], LossSum: 1, Tokens: 10, GradientNs: 1e8}
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

// fleetJob is a job with a micro-batch of one example for every worker, and more steps than anybody
// waits for.
func fleetJob(t testing.TB, workers int) *job.Job {
	t.Helper()
	tok, err := tokenizer.Open(tinyModel)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, uint64(workers)))
	examples := make([]dataset.Example, 10*workers)
	for i := range examples {
		examples[i] = dataset.Example{ID: fmt.Sprint(i), Source: strings.Repeat("words ", 5+rng.IntN(25)), Target: "true"}
	}
	sampler, err := dataset.NewSampler(len(examples), workers, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := testSettings()
	j, err := job.Load(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	j.Planner = &job.Planner{Examples: examples, Tokenizer: tok, Sampler: sampler, MaxSource: 256, MaxTarget: 16, PromptLength: 100}
	j.Spec.Steps, j.Spec.EvalEvery, j.Spec.EvalFirst = 1<<40, -1, false
	j.Initial = optim.NewState(make([]float32, 11240))
	return j
}

// TestFleetSteps keeps the benchmark's fleet honest: every worker gets its share, each step is
// committed, and workers that go leave nothing behind.
func TestFleetSteps(t *testing.T) {
	const workers, steps = 40, 3
	f := newFleet(t, workers)
	for range steps {
		f.step()
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
