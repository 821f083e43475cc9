package simulation

import (
	"container/heap"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/t5"
	"github.com/dptune/dpt/model/tiny"
)

// Options say how to run a plan.
type Options struct {
	Reference *Reference // what must come out; nil for the run that makes it
	Scratch   string     // a directory for outputs, better in memory; "" is the system's for temporary files
	Log       io.Writer  // takes all log lines of all processes, if any

	Settings func(*job.Settings)                                   // changes the plan's job
	Took     func(worker string, pairs []model.Pair) time.Duration // how long a worker computes; nil is drawn
}

// Report is what came of a run.
type Report struct {
	Plan       Plan
	Violations []string // what the checker found, in order
	Trace      []string // what happened: faults, starts, ends, generations, commits, each with its time
	Took       time.Duration
	Commits    int            // steps made known as committed, each counted once
	Lives      int            // processes started
	Redone     int            // steps that were done again
	Most       int            // the same, after one failure
	Crashed    map[string]int // crashes at marked points
	Reference  *Reference     // of the run itself
}

// Digest identifies the trace: two runs with equal digests saw the same events at the same times.
func (r *Report) Digest() [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.Join(r.Trace, "\n")))
}

// patience is how long a whole cluster may take to end the job after the last remedy. It covers a
// few rounds of the longest waits: the step timeout, the backoff between generations, a worker's retries.
const patience = 2 * time.Minute

// world is a cluster at work. One goroutine, director, runs the script; processes call in from theirs.
type world struct {
	Options
	plan  Plan
	net   *network
	dir   string
	begun time.Time
	dim   int
	model ids.Digest

	ended   chan *process // lives that are over
	crashed chan crash    // crashes at marked points, which await their remedy

	mu     sync.Mutex
	report *Report
	procs  map[string]*process // the last life by name
	lives  []*process
	disks  map[string]*disk
	slows  map[string]*atomic.Int64
	armed  map[string][]*Fault
	leader string
	steps  map[ids.Step]fsm.StepRecord // as first seen
	known  ids.Step                    // the last step that was made known
	ring   ids.Generation              // the last generation that was started
	dealer *process                    // who started it
	visits sync.WaitGroup              // of strangers
	rotten map[string]func()           // by coordinator: makes good what is flipped on its disk
	over   bool                        // the run is being taken down
	later  timetable
	seq    int
}

type crash struct {
	p *process
	f *Fault
}

// embedded is the width and the digest of the embedded model, which the coordinators read; what it computes the backbone stands in for. It is not a
// directory's, whose path would be another in each run.
func embedded() (width int, digest ids.Digest, err error) {
	m, err := tiny.Open()
	if err != nil {
		return 0, digest, err
	}
	defer m.Close()
	config, err := t5.ParseConfig(m.Config())
	if err != nil {
		return 0, digest, err
	}
	digest, err = m.Digest()
	return config.DModel, digest, err
}

// Run plays a plan inside a testing/synctest bubble.
func Run(plan Plan, options Options) (*Report, error) {
	dir, err := os.MkdirTemp(options.Scratch, "dpt-sim-")
	if err != nil {
		return nil, err
	}
	dir = filepath.Clean(dir) // as it will be named in errors
	defer os.RemoveAll(dir)
	width, digest, err := embedded()
	if err != nil {
		return nil, err
	}
	w := &world{
		Options: options, plan: plan, net: newNetwork(plan.Seed), dir: dir, begun: time.Now(), dim: width, model: digest,
		ended: make(chan *process, 1<<10), crashed: make(chan crash, 1<<10),
		report: &Report{Plan: plan, Crashed: map[string]int{}}, procs: map[string]*process{}, disks: map[string]*disk{}, slows: map[string]*atomic.Int64{},
		armed: map[string][]*Fault{}, rotten: map[string]func(){}, steps: map[ids.Step]fsm.StepRecord{},
	}
	w.net.know(plan.hosts())
	w.direct()
	return w.report, nil
}

// direct runs the script, then waits for the end.
func (w *world) direct() {
	for _, name := range append(w.plan.coordinators(), w.plan.workers()...) {
		w.start(name)
	}
	for _, f := range w.plan.Faults {
		w.at(f.At, func() { w.inflict(f) })
	}
	deadline := w.plan.end() + patience
	var winner *process
	for winner == nil {
		wait := deadline
		if len(w.later) > 0 {
			wait = min(wait, w.later[0].at)
		}
		timer := time.NewTimer(wait - w.now())
		select {
		case p := <-w.ended:
			winner = w.bury(p)
		case c := <-w.crashed:
			w.at(w.now()+c.f.For, func() { w.restart(c.p.name) })
		case <-timer.C:
		}
		timer.Stop()
		for winner == nil && len(w.later) > 0 && w.later[0].at <= w.now() {
			heap.Pop(&w.later).(*timed).do()
		}
		if w.now() >= deadline && winner == nil {
			w.fault("the job has not ended %v after the last remedy: step %d of %d is committed", patience, w.known, w.total())
			break
		}
	}
	w.report.Took = w.now()
	w.takeDown()
	if winner != nil {
		w.judge(winner)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report.Commits, w.report.Lives = len(w.steps), len(w.lives)
}

// takeDown ends what still runs. Workers that a coordinator which is gone could not tell wait for the next one.
func (w *world) takeDown() {
	w.mu.Lock()
	w.over = true
	lives := slices.Clone(w.lives)
	w.mu.Unlock()
	for _, p := range lives {
		p.cancel(errCrash)
	}
	for _, p := range lives {
		p.host.die(false)
		select {
		case <-p.done:
		case <-time.After(patience):
			// Its goroutines would run for ever, and the bubble with them.
			panic(fmt.Sprintf("simulation: seed %d: %v does not end %v after it was told to; what happened before:\n%s", w.plan.Seed, p, patience, strings.Join(w.report.Trace, "\n")))
		}
	}
	w.visits.Wait() // time would not go on without this goroutine
}

// bury deals with a life that has ended, and returns it if it has ended the job.
func (w *world) bury(p *process) (winner *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead {
		return nil
	}
	p.dead = true
	p.host.die(false)
	if p.mount != nil {
		p.mount.freeze()
	}
	switch {
	case p.err == nil:
		w.noteLocked("%v has finished", p)
		if !p.worker() {
			return p
		}
		return nil
	case p.stopping && (errors.Is(p.err, errStop) || !p.worker()):
		w.noteLocked("%v has stopped", p)
		return nil // its remedy is due
	case p.badDisk:
		w.noteLocked("%v gives up: %v", p, p.err)
	case w.rotten[p.name] != nil:
		w.noteLocked("%v refuses to go on: %v", p, p.err)
		w.rotten[p.name]()
		delete(w.rotten, p.name)
	default:
		w.faultLocked("%v ended by itself: %v", p, p.err)
	}
	w.atLocked(w.now()+time.Second, func() { w.restart(p.name) })
	return nil
}

func (w *world) restart(name string) {
	w.mu.Lock()
	p := w.procs[name]
	again := p != nil && p.dead
	w.mu.Unlock()
	if again {
		w.start(name)
	} else if p != nil && p.stopping {
		// Still on its way out.
		w.at(w.now()+100*time.Millisecond, func() { w.restart(name) })
	}
}

// inflict makes a fault and puts its remedy on the timetable.
func (w *world) inflict(f Fault) {
	w.mu.Lock()
	if f.Host == Leader {
		if f.Host = w.leader; f.Host == "" {
			f.Host = "c1"
		}
	}
	if f.Other == Leader {
		if f.Other = w.leader; f.Other == "" {
			f.Other = "c1"
		}
	}
	if f.Other == f.Host {
		f.Other = ""
	}
	p := w.procs[f.Host]
	w.noteLocked("fault: %v", f)
	w.mu.Unlock()
	remedy := func(do func()) { w.at(w.now()+f.For, func() { w.note("remedy: %v", f); do() }) }
	switch f.Kind {
	case Join:
		w.start(f.Host)
		return
	case CrashAt:
		w.mu.Lock()
		w.armed[f.Host] = append(w.armed[f.Host], &f)
		w.mu.Unlock()
		w.at(w.plan.end(), func() { w.disarm(&f) })
		return
	case Slow:
		w.slow(f.Host).Store(int64(f.Count))
		remedy(func() { w.slow(f.Host).Store(1) })
		return
	case Hang, Part, PartWay:
		way := f.Kind == PartWay
		w.net.each(f.Host, f.Other, way, func(l *link) { l.blocked++ })
		remedy(func() { w.net.each(f.Host, f.Other, way, func(l *link) { l.blocked-- }) })
		return
	case SlowLink:
		w.net.each(f.Host, f.Other, false, func(l *link) { l.slow *= f.Count })
		remedy(func() { w.net.each(f.Host, f.Other, false, func(l *link) { l.slow /= f.Count }) })
		return
	case Stranger:
		w.visit(f)
		return
	case Cut:
		w.net.cut(f.Host, f.Other)
		return
	}
	if p == nil || p.dead {
		return
	}
	switch f.Kind {
	case Crash, PowerLoss:
		p.crash(f.Kind == PowerLoss, string(f.Kind))
	case Stop:
		w.mu.Lock()
		p.stopping = true
		w.mu.Unlock()
		p.cancel(errStop)
	case Rot:
		p.crash(false, string(f.Kind))
		w.mu.Lock()
		if what, undo := w.disk(f.Host).rot(p.rand("rot")); undo != nil && w.rotten[f.Host] == nil {
			w.rotten[f.Host] = undo
			w.noteLocked("%v: a bit of %s flips", p, what)
		} else if undo != nil {
			undo()
		}
		w.mu.Unlock()
	case BadDisk, FullDisk:
		w.mu.Lock()
		p.badDisk = true
		w.mu.Unlock()
		p.mount.fail(map[Kind]error{BadDisk: errSync, FullDisk: errFull}[f.Kind])
		return // it is started again when it has given up
	}
	remedy(func() { w.restart(f.Host) })
}

// reached is called by a process at a marked point.
func (w *world) reached(p *process, point string) {
	w.mu.Lock()
	var hit *Fault
	if !p.dead && !w.over {
		if point == coordinator.HalfPlan {
			p.plans++
		}
		for i, f := range w.armed[p.name] {
			if f.Point == point {
				if f.Count--; f.Count == 0 {
					hit = f
					w.armed[p.name] = slices.Delete(w.armed[p.name], i, i+1)
					w.report.Crashed[point]++
				}
				break
			}
		}
	}
	w.mu.Unlock()
	if hit != nil {
		p.crash(false, point)
		w.crashed <- crash{p, hit}
	}
}

func (w *world) disarm(f *Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed[f.Host] = slices.DeleteFunc(w.armed[f.Host], func(o *Fault) bool { return o == f })
}

// disk is a host's; w.mu is held.
func (w *world) disk(name string) *disk {
	if w.disks[name] == nil {
		w.disks[name] = newDisk()
	}
	return w.disks[name]
}

// slow is by what a host's computing is slowed.
func (w *world) slow(name string) *atomic.Int64 {
	if w.slows[name] == nil {
		w.slows[name] = new(atomic.Int64)
		w.slows[name].Store(1)
	}
	return w.slows[name]
}

func (w *world) settings() job.Settings {
	s := w.plan.settings()
	if w.Settings != nil {
		w.Settings(&s)
	}
	return s
}

func (w *world) now() time.Duration { return time.Since(w.begun) }

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked(format, args...)
}

func (w *world) noteLocked(format string, args ...any) {
	line := fmt.Sprintf("%v ", w.now()) + strings.ReplaceAll(fmt.Sprintf(format, args...), w.dir+"/", "")
	if !w.over {
		w.report.Trace = append(w.report.Trace, line)
	}
	if w.Log != nil {
		fmt.Fprintln(w.Log, ">>>>", line)
	}
}

func (w *world) logged(p *process, level slog.Level, message, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Log != nil {
		fmt.Fprintln(w.Log, w.now(), p, level, text)
	}
	if message == "worker expelled" && !p.dead && !w.over {
		w.faultLocked("%v: %s", p, text)
	}
}

// timetable is what the director is to do, by time and, at one time, in the order of asking.
type timetable []*timed

type timed struct {
	at  time.Duration
	seq int
	do  func()
}

func (t timetable) Len() int { return len(t) }
func (t timetable) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].seq < t[j].seq
}
func (t timetable) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timetable) Push(x any)   { *t = append(*t, x.(*timed)) }
func (t *timetable) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

// at puts something on the timetable. The director alone calls it.
func (w *world) at(at time.Duration, do func()) { w.atLocked(at, do) }

func (w *world) atLocked(at time.Duration, do func()) {
	w.seq++
	heap.Push(&w.later, &timed{at, w.seq, do})
}
