package simulation

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"time"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
	"github.com/dptune/dpt/coordinator/replica"
	"github.com/dptune/dpt/worker"
)

// Plan is what a seed stands for: a cluster, a job and a script of faults.
type Plan struct {
	Seed         uint64
	Replicas     int // of the coordinator: 1 or 3
	Workers      int // at the start, and as many are waited for
	CommitEvery  int64
	CommitWindow int
	Evaluate     bool // whether the job has evaluations
	Compact      replica.Compaction
	Large        bool // every trainer state counts as too large for the log
	Faults       []Fault
}

// Kind is what a fault does.
type Kind string

// The faults. A remedy follows each after Fault.For.
const (
	Crash     Kind = "crash"      // the process dies; started again
	PowerLoss Kind = "power loss" // the machine dies, and says nothing to anybody; started again
	CrashAt   Kind = "crash at"   // the process dies at a marked point; started again
	Stop      Kind = "stop"       // the process is asked to stop; started again
	Hang      Kind = "hang"       // nothing goes in or out; goes on
	Slow      Kind = "slow"       // computes more slowly; recovers
	SlowLink  Kind = "slow link"  // between two hosts, both ways; recovers
	Part      Kind = "part"       // no bytes between a host and another or all others; healed, and what was held arrives
	PartWay   Kind = "part way"   // the same in one direction
	Cut       Kind = "cut"        // connections between two hosts break, with what was under way
	BadDisk   Kind = "bad disk"   // an append to the log cannot be synced; the coordinator gives up; started again
	FullDisk  Kind = "full disk"  // nothing more can be written; the coordinator gives up; started again with room
	Rot       Kind = "rot"        // the process dies and a bit of its disk flips; it is started again, and if it refuses, with the bit flipped back
	Stranger  Kind = "stranger"   // somebody connects to a port and sends what does not belong there
	Join      Kind = "join"       // one more worker, for good
)

// Leader as a fault's target is the replica that leads at that moment.
const Leader = "leader"

// Fault is one line of the script.
type Fault struct {
	At    time.Duration // since the start
	For   time.Duration // until the remedy
	Kind  Kind
	Host  string // its target
	Other string // of a link, its other end; "" is all others
	Point string // of CrashAt
	Count int    // of CrashAt: at the how-manieth time from now on; of Slow and SlowLink: the factor
}

func (f Fault) String() string {
	text := fmt.Sprintf("%v %s %s", f.At, f.Kind, f.Host)
	if f.Other != "" {
		text += " and " + f.Other
	}
	if f.Point != "" {
		text += fmt.Sprintf(" %q, time %d", f.Point, f.Count)
	} else if f.Count > 0 {
		text += fmt.Sprintf(" by %d", f.Count)
	}
	return fmt.Sprintf("%s for %v", text, f.For)
}

// faultWindow is the time in which faults begin.
const faultWindow = 4 * time.Second

// PlanOf is the plan of a seed.
func PlanOf(seed uint64) Plan {
	r := draw(seed, "plan")
	p := Plan{Seed: seed, Replicas: pick(r, []int{1, 1, 3}), Workers: 2 + r.IntN(3), CommitEvery: pick(r, []int64{1, 1, 1, 2}), CommitWindow: r.IntN(3), Evaluate: r.IntN(3) == 0}
	joined := 0
	for range 1 + r.IntN(8) {
		f := p.fault(r)
		if n := len(p.Faults); n > 0 && r.IntN(2) == 0 {
			// Soon after another: recovery is where faults hurt most.
			f.At = p.Faults[n-1].At + between(r, 0, 600*time.Millisecond)
		}
		if f.Kind == Join {
			joined++
			f.Host, f.For = fmt.Sprintf("w%d", p.Workers+joined), 0
		}
		p.Faults = append(p.Faults, f)
	}
	if r.IntN(8) == 0 {
		// Everything goes at once, and comes back one by one.
		at, kind := between(r, 500*time.Millisecond, faultWindow), pick(r, []Kind{Crash, PowerLoss})
		for _, name := range append(p.coordinators(), p.workers()...) {
			p.Faults = append(p.Faults, Fault{At: at, For: between(r, 50*time.Millisecond, 2*time.Second), Kind: kind, Host: name})
		}
	}
	if r.IntN(2) == 0 {
		p.Compact = replica.Compaction{Threshold: 1 + r.Uint64N(6), Trailing: r.Uint64N(4), Interval: between(r, 20*time.Millisecond, 400*time.Millisecond)}
	}
	p.Large = draw(seed, "large").IntN(3) == 0
	sort.SliceStable(p.Faults, func(i, j int) bool { return p.Faults[i].At < p.Faults[j].At })
	return p
}

// Undisturbed is the plan of the job alone: one coordinator, one worker, nothing happens.
func Undisturbed(evaluate bool) Plan {
	return Plan{Replicas: 1, Workers: 1, CommitEvery: 1, Evaluate: evaluate}
}

func (p *Plan) fault(r *rand.Rand) Fault {
	w := fmt.Sprintf("w%d", 1+r.IntN(p.Workers))
	c := pick(r, append(p.coordinators(), Leader))
	any := pick(r, []string{w, w, c})
	f := Fault{At: between(r, 0, faultWindow), For: between(r, 50*time.Millisecond, 4*time.Second), Host: any}
	switch f.Kind = pick(r, []Kind{Crash, Crash, PowerLoss, CrashAt, CrashAt, CrashAt, Stop, Hang, Slow, SlowLink, Part, PartWay, Cut, BadDisk, FullDisk, Rot, Rot, Stranger, Join}); f.Kind {
	case CrashAt:
		f.Count = 1 + r.IntN(3)
		if points := worker.Marks(); any == w {
			f.Point = pick(r, points)
		} else {
			f.Point = pick(r, coordinator.Marks())
		}
		if f.Point == outputs.BeforePrompts || f.Point == outputs.AfterPrompts {
			f.Count = 1 // met once
		}
	case Slow:
		f.Host, f.Count = w, 2+r.IntN(6)
	case SlowLink:
		f.Count = 2 + r.IntN(100)
		f.Other = p.other(r, any)
	case Cut:
		f.Other = p.other(r, any)
	case PartWay:
		f.Host, f.Other = w, c // the worker hears, and is not heard
		if r.IntN(2) == 0 {
			f.Host, f.Other = c, w
		}
	case Part:
		if r.IntN(2) == 0 {
			f.Other = p.other(r, any)
		}
	case BadDisk, FullDisk, Rot:
		f.Host = c
	}
	return f
}

func (p *Plan) coordinators() (names []string) {
	for i := range p.Replicas {
		names = append(names, fmt.Sprintf("c%d", i+1))
	}
	return names
}

func (p *Plan) workers() (names []string) {
	for i := range p.Workers {
		names = append(names, fmt.Sprintf("w%d", i+1))
	}
	return names
}

// hosts are all that take part at some time.
func (p *Plan) hosts() []string {
	names := append(p.coordinators(), p.workers()...)
	for _, f := range p.Faults {
		if f.Kind == Join {
			names = append(names, f.Host)
		}
	}
	return names
}

func (p *Plan) other(r *rand.Rand, not string) string {
	for {
		if name := pick(r, append(p.coordinators(), p.workers()...)); name != not {
			return name
		}
	}
}

// end is when the last remedy is done.
func (p *Plan) end() (at time.Duration) {
	for _, f := range p.Faults {
		at = max(at, f.At+f.For)
	}
	return at
}

// settings are the job's: nine steps of four examples, three epochs.
func (p *Plan) settings() job.Settings {
	s := job.DefaultSettings()
	s.PromptLength, s.Bottleneck, s.Shots, s.Epochs, s.BatchSize, s.MicroBatch = 2, 1, 11, 3, 4, 1
	s.MaxSourceLength, s.MaxTargetLength, s.EvalEvery = 24, 4, -1
	if p.Evaluate {
		s.EvalEvery, s.EvalFirst = 4, false
	}
	return s
}
