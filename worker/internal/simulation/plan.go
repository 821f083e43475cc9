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
	Workers      int // at the start; the job waits for all of them
	CommitEvery  int64
	CommitWindow int
	Evaluate     bool // the job has evaluations
	Compact      replica.Compaction
	Large        bool // every trainer state counts as too large for the log
	Faults       []Fault
}

// Kind tells what a fault does.
type Kind string

// The faults. Each but Join is followed by a remedy after Fault.For.
const (
	// Crash ends a process at once. It is started again.
	Crash Kind = "crash"
	// PowerLoss ends a machine: its process ends and no neighbour hears of it. It is started again.
	PowerLoss Kind = "power loss"
	// CrashAtPoint ends a process at a crash point of its code. It is started again.
	CrashAtPoint Kind = "crash at point"
	// Stop asks a process to stop. It is started again.
	Stop Kind = "stop"
	// Hang holds all that a host sends and receives. Then it arrives.
	Hang Kind = "hang"
	// SlowCompute slows a worker's computing by the factor Count.
	SlowCompute Kind = "slow compute"
	// SlowLink slows the links between two hosts, both ways, by the factor Count.
	SlowLink Kind = "slow link"
	// Partition holds all bytes between a host and another one or all others. Then they arrive.
	Partition Kind = "partition"
	// OneWayPartition holds the bytes from a host to another. Then they arrive.
	OneWayPartition Kind = "one-way partition"
	// Disconnect breaks the connections between two hosts, and loses what is under way.
	Disconnect Kind = "disconnect"
	// DiskError makes an append to a coordinator's log fail to sync. The coordinator gives up and
	// is started again.
	DiskError Kind = "disk error"
	// DiskFull makes all further writes of a coordinator fail. It gives up and is started again,
	// with room on its disk.
	DiskFull Kind = "disk full"
	// BitFlip ends a coordinator and flips a bit on its disk. It is started again, and if it
	// refuses to go on, the bit is flipped back.
	BitFlip Kind = "bit flip"
	// Garbage connects to a port of a host and sends bytes that do not belong there.
	Garbage Kind = "garbage"
	// Join adds a worker for good.
	Join Kind = "join"
)

// Leader as a fault's target stands for the replica that leads at that moment.
const Leader = "leader"

// Fault is one line of the script.
type Fault struct {
	At    time.Duration // since the start of the run
	For   time.Duration // until the remedy
	Kind  Kind
	Host  string // the target
	Other string // the other end of a link; "" means all other hosts
	Point string // the crash point of CrashAtPoint
	// Count is how often the process must pass the point from now on, for CrashAtPoint, and the
	// factor for SlowCompute and SlowLink.
	Count int
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

// faultWindow is the time, from the start, in which faults begin.
const faultWindow = 4 * time.Second

// PlanOf draws the plan of a seed.
func PlanOf(seed uint64) Plan {
	// The cluster and the job.
	r := seededRand(seed, "plan")
	p := Plan{
		Seed:         seed,
		Replicas:     pick(r, []int{1, 1, 3}),
		Workers:      2 + r.IntN(3),
		CommitEvery:  pick(r, []int64{1, 1, 1, 2}),
		CommitWindow: r.IntN(3),
		Evaluate:     r.IntN(3) == 0,
	}

	// Up to eight faults, every second soon after another: recovery is where faults hurt most.
	joined := 0
	for range 1 + r.IntN(8) {
		f := p.fault(r)
		if n := len(p.Faults); n > 0 && r.IntN(2) == 0 {
			f.At = p.Faults[n-1].At + between(r, 0, 600*time.Millisecond)
		}
		if f.Kind == Join {
			joined++
			f.Host, f.For = fmt.Sprintf("w%d", p.Workers+joined), 0
		}
		p.Faults = append(p.Faults, f)
	}
	if r.IntN(8) == 0 {
		// All processes go at once, and come back one by one.
		at, kind := between(r, 500*time.Millisecond, faultWindow), pick(r, []Kind{Crash, PowerLoss})
		for _, name := range append(p.coordinators(), p.workers()...) {
			p.Faults = append(p.Faults, Fault{
				At:   at,
				For:  between(r, 50*time.Millisecond, 2*time.Second),
				Kind: kind,
				Host: name,
			})
		}
	}

	// The log and the trainer states.
	if r.IntN(2) == 0 {
		p.Compact = replica.Compaction{
			Threshold: 1 + r.Uint64N(6),
			Trailing:  r.Uint64N(4),
			Interval:  between(r, 20*time.Millisecond, 400*time.Millisecond),
		}
	}
	p.Large = seededRand(seed, "large").IntN(3) == 0
	sort.SliceStable(p.Faults, func(i, j int) bool { return p.Faults[i].At < p.Faults[j].At })
	return p
}

// Undisturbed returns the plan of the job without faults, on one coordinator and one worker.
func Undisturbed(evaluate bool) Plan {
	return Plan{Replicas: 1, Workers: 1, CommitEvery: 1, Evaluate: evaluate}
}

// fault draws one fault.
func (p *Plan) fault(r *rand.Rand) Fault {
	w := fmt.Sprintf("w%d", 1+r.IntN(p.Workers))
	c := pick(r, append(p.coordinators(), Leader))
	host := pick(r, []string{w, w, c})
	f := Fault{At: between(r, 0, faultWindow), For: between(r, 50*time.Millisecond, 4*time.Second), Host: host}
	f.Kind = pick(r, []Kind{
		Crash, Crash, PowerLoss, CrashAtPoint, CrashAtPoint, CrashAtPoint, Stop, Hang, SlowCompute, SlowLink,
		Partition, OneWayPartition, Disconnect, DiskError, DiskFull, BitFlip, BitFlip, Garbage, Join,
	})

	// What the kind needs besides a host.
	switch f.Kind {
	case CrashAtPoint:
		f.Count = 1 + r.IntN(3)
		if points := worker.Marks(); host == w {
			f.Point = pick(r, points)
		} else {
			f.Point = pick(r, coordinator.Marks())
		}
		if f.Point == outputs.BeforePrompts || f.Point == outputs.AfterPrompts {
			f.Count = 1 // a process passes it once
		}
	case SlowCompute:
		f.Host, f.Count = w, 2+r.IntN(6)
	case SlowLink:
		f.Count = 2 + r.IntN(100)
		f.Other = p.otherHost(r, host)
	case Disconnect:
		f.Other = p.otherHost(r, host)
	case OneWayPartition:
		f.Host, f.Other = w, c // the worker receives, but what it sends is held
		if r.IntN(2) == 0 {
			f.Host, f.Other = c, w
		}
	case Partition:
		if r.IntN(2) == 0 {
			f.Other = p.otherHost(r, host)
		}
	case DiskError, DiskFull, BitFlip:
		f.Host = c
	}
	return f
}

// coordinators returns the names of the replicas.
func (p *Plan) coordinators() (names []string) {
	for i := range p.Replicas {
		names = append(names, fmt.Sprintf("c%d", i+1))
	}
	return names
}

// workers returns the names of the workers at the start.
func (p *Plan) workers() (names []string) {
	for i := range p.Workers {
		names = append(names, fmt.Sprintf("w%d", i+1))
	}
	return names
}

// hosts returns the names of all hosts that take part at some time.
func (p *Plan) hosts() []string {
	names := append(p.coordinators(), p.workers()...)
	for _, f := range p.Faults {
		if f.Kind == Join {
			names = append(names, f.Host)
		}
	}
	return names
}

// otherHost draws a host that is not the given one.
func (p *Plan) otherHost(r *rand.Rand, not string) string {
	for {
		if name := pick(r, append(p.coordinators(), p.workers()...)); name != not {
			return name
		}
	}
}

// end returns when the last remedy is done.
func (p *Plan) end() (at time.Duration) {
	for _, f := range p.Faults {
		at = max(at, f.At+f.For)
	}
	return at
}

// settings returns the job's settings: nine steps of four examples, in three epochs.
func (p *Plan) settings() job.Settings {
	s := job.DefaultSettings()
	s.PromptLength, s.Bottleneck, s.Shots, s.Epochs, s.BatchSize, s.MicroBatch = 2, 1, 11, 3, 4, 1
	s.MaxSourceLength, s.MaxTargetLength, s.EvalEvery = 24, 4, -1
	if p.Evaluate {
		s.EvalEvery, s.EvalFirst = 4, false
	}
	return s
}
