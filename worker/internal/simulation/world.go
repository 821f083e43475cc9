package simulation

import (
	"container/heap"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
)

// patience is how long a whole cluster may take to end the job after the last remedy. It covers a
// few rounds of the longest waits: the step timeout, the backoff between generations, a worker's
// retries.
const patience = 2 * time.Minute

// world is a simulated cluster. One goroutine, the director, runs the script; processes call in
// from their goroutines.
type world struct {
	// Set by Run and constant from then on.
	Options
	plan      Plan
	net       *network
	dir       string // holds the output directories
	startTime time.Time
	dim       int        // d_model of the embedded model
	model     ids.Digest // of the embedded model

	ended   chan *process   // processes that have ended, to the director
	crashes chan crashEvent // crashes at crash points, which the director remedies

	// Only the director uses these.
	timetable taskHeap
	taskCount int                      // numbers the tasks in the order of scheduling
	slowdowns map[string]*atomic.Int64 // by host: the factor by which its computing is slower

	garbageSenders sync.WaitGroup // counts the goroutines of sendGarbage

	mu           sync.Mutex // guards what follows
	report       *Report
	current      map[string]*process // the last process of each host
	processes    []*process          // all processes, in the order of starting
	disks        map[string]*disk    // by host
	armedCrashes map[string][]*Fault // by host: CrashAtPoint faults that wait for their point
	flippedBits  map[string]func()   // by host: flips the bit on its disk back
	shuttingDown bool                // the run is over, and what happens is not looked at

	// What the checker has seen.
	leader         string                      // the replica that started the last generation
	steps          map[ids.Step]fsm.StepRecord // committed steps as first seen
	lastKnown      ids.Step                    // the last step that was made known as committed
	lastGeneration ids.Generation              // the last generation that was started
	lastDealer     *process                    // the process that started it
}

// crashEvent is a process that has crashed at the crash point of a fault.
type crashEvent struct {
	process *process
	fault   *Fault
}

func newWorld(plan Plan, options Options, dir string) *world {
	w := &world{
		Options:      options,
		plan:         plan,
		net:          newNetwork(plan.Seed),
		dir:          dir,
		startTime:    time.Now(),
		ended:        make(chan *process, 1<<10),
		crashes:      make(chan crashEvent, 1<<10),
		report:       &Report{Plan: plan, Crashed: map[string]int{}},
		current:      map[string]*process{},
		disks:        map[string]*disk{},
		slowdowns:    map[string]*atomic.Int64{},
		armedCrashes: map[string][]*Fault{},
		flippedBits:  map[string]func(){},
		steps:        map[ids.Step]fsm.StepRecord{},
	}
	w.net.createLinks(plan.hosts())
	return w
}

// runScript starts the cluster, runs the script of faults, waits for the end of the job and checks
// its outputs.
func (w *world) runScript() {
	for _, name := range append(w.plan.coordinators(), w.plan.workers()...) {
		w.start(name)
	}
	for _, f := range w.plan.Faults {
		w.schedule(f.At, func() { w.inject(f) })
	}

	// Until a coordinator has finished the job: wait for the next event, then do what is due.
	deadline := w.plan.end() + patience
	var winner *process
	for winner == nil {
		wait := deadline
		if len(w.timetable) > 0 {
			wait = min(wait, w.timetable[0].at)
		}
		timer := time.NewTimer(wait - w.now())
		select {
		case p := <-w.ended:
			winner = w.handleEnd(p)
		case c := <-w.crashes:
			w.schedule(w.now()+c.fault.For, func() { w.restart(c.process.name) })
		case <-timer.C:
		}
		timer.Stop()
		for winner == nil && len(w.timetable) > 0 && w.timetable[0].at <= w.now() {
			heap.Pop(&w.timetable).(*task).do()
		}
		if w.now() >= deadline && winner == nil {
			w.violation("the job has not ended %v after the last remedy: step %d of %d is committed",
				patience, w.lastKnown, w.totalSteps())
			break
		}
	}
	w.report.Took = w.now()
	w.shutDown()
	if winner != nil {
		w.checkOutputs(winner)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report.Commits, w.report.Processes = len(w.steps), len(w.processes)
}

// shutDown ends all processes. Workers that no coordinator told of the job's end are still waiting.
func (w *world) shutDown() {
	w.mu.Lock()
	w.shuttingDown = true
	processes := slices.Clone(w.processes)
	w.mu.Unlock()
	for _, p := range processes {
		p.cancel(errCrash)
	}
	for _, p := range processes {
		p.host.takeDown(false)
		select {
		case <-p.done:
		case <-time.After(patience):
			// Its goroutines would run forever, and so would the bubble.
			panic(fmt.Sprintf("simulation: seed %d: %v does not end %v after it was told to; what happened before:\n%s",
				w.plan.Seed, p, patience, strings.Join(w.report.Trace, "\n")))
		}
	}
	w.garbageSenders.Wait() // the bubble's time stands still once this goroutine returns
}

// handleEnd handles the end of a process, and returns the process if it has finished the job. It
// schedules a restart unless the end was asked for.
func (w *world) handleEnd(p *process) (winner *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead {
		return nil
	}
	p.dead = true
	p.host.takeDown(false)
	if p.mount != nil {
		p.mount.crash()
	}
	switch {
	case p.err == nil:
		w.recordLocked("%v has finished", p)
		if !p.isWorker() {
			return p
		}
		return nil
	case p.stopping && (errors.Is(p.err, errStop) || !p.isWorker()):
		w.recordLocked("%v has stopped", p)
		return nil // its remedy starts it again
	case p.diskFailing:
		w.recordLocked("%v gives up: %v", p, p.err)
	case w.flippedBits[p.name] != nil:
		w.recordLocked("%v refuses to go on: %v", p, p.err)
		w.flippedBits[p.name]()
		delete(w.flippedBits, p.name)
	default:
		w.violationLocked("%v ended by itself: %v", p, p.err)
	}
	w.schedule(w.now()+time.Second, func() { w.restart(p.name) })
	return nil
}

// restart starts the next process of the named host, if the last one has ended.
func (w *world) restart(name string) {
	w.mu.Lock()
	p := w.current[name]
	again := p != nil && p.dead
	w.mu.Unlock()
	if again {
		w.start(name)
	} else if p != nil && p.stopping {
		// It is still stopping.
		w.schedule(w.now()+100*time.Millisecond, func() { w.restart(name) })
	}
}

// disk returns a host's disk. w.mu is held.
func (w *world) disk(name string) *disk {
	if w.disks[name] == nil {
		w.disks[name] = newDisk()
	}
	return w.disks[name]
}

// slowdown returns the factor by which a host's computing is slower. Only the director calls it.
func (w *world) slowdown(name string) *atomic.Int64 {
	if w.slowdowns[name] == nil {
		w.slowdowns[name] = new(atomic.Int64)
		w.slowdowns[name].Store(1)
	}
	return w.slowdowns[name]
}

// settings returns the job's settings.
func (w *world) settings() job.Settings {
	s := w.plan.settings()
	if w.Settings != nil {
		w.Settings(&s)
	}
	return s
}

// now returns the simulated time since the start of the run.
func (w *world) now() time.Duration { return time.Since(w.startTime) }

// record adds an event to the trace.
func (w *world) record(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recordLocked(format, args...)
}

func (w *world) recordLocked(format string, args ...any) {
	line := fmt.Sprintf("%v ", w.now()) + strings.ReplaceAll(fmt.Sprintf(format, args...), w.dir+"/", "")
	if !w.shuttingDown {
		w.report.Trace = append(w.report.Trace, line)
	}
	if w.Log != nil {
		fmt.Fprintln(w.Log, ">>>>", line)
	}
}

// checkLog looks at a line that a process logs.
func (w *world) checkLog(p *process, level slog.Level, message, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Log != nil {
		fmt.Fprintln(w.Log, w.now(), p, level, text)
	}
	if message == "worker expelled" && !p.dead && !w.shuttingDown {
		w.violationLocked("%v: %s", p, text)
	}
}
