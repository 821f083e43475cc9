package simulation

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model"
)

// These tests measure, on the fake clock, how long steps take with workers of unequal speeds. A
// gradient takes its rows times the worker's time for a row, and all else (plans, the ring,
// commits, the network's latencies) takes its simulated time.
//
// The result is compared with two ideals. The divisible ideal is all rows over the sum of the
// speeds. If a batch has few micro-batches, no deal of whole ones comes near it: eight equal ones
// on speeds 3, 3, 3, 1 need at least the time of 1/3·3, which is 80% of it. The other ideal is the
// best deal of whole micro-batches, found by trying all.

// rowTime is how long a worker of full speed computes a row: 100 to 200 ms for a micro-batch of two
// examples.
const rowTime = time.Millisecond

// warmUp is how many steps at the beginning do not count, because the speeds are not known yet.
const warmUp = 8

// workload is a job and the speeds of its workers.
type workload struct {
	batch, micro int     // examples in a batch and in a micro-batch
	epochs       int     // of two steps each
	slowBy       []int   // for each worker, the factor by which it is slower than full speed
	faults       []Fault // besides
}

// play plays the job and returns its settings and its steps.
func (s workload) play(t *testing.T) (job.Settings, []fsm.StepRecord) {
	t.Helper()
	plan := Plan{Seed: 1, Replicas: 1, Workers: len(s.slowBy), CommitEvery: 1, CommitWindow: 1, Faults: s.faults}
	change := func(set *job.Settings) {
		set.BatchSize, set.MicroBatch, set.Shots, set.Epochs = s.batch, s.micro, 2*s.batch, s.epochs
		set.MaxSourceLength = 256
	}
	for i, f := range s.slowBy {
		if f > 1 {
			host := fmt.Sprintf("w%d", i+1)
			plan.Faults = append(plan.Faults, Fault{For: time.Hour, Kind: SlowCompute, Host: host, Count: f})
		}
	}
	settings := plan.settings()
	change(&settings)
	rep := play(t, plan, Options{Settings: change, ComputeTime: func(_ string, pairs []model.Pair) time.Duration {
		rows := 0
		for _, p := range pairs {
			rows += len(p.Source) + len(p.Target) + settings.PromptLength
		}
		return time.Duration(rows) * rowTime
	}})
	if len(rep.Violations) > 0 || rep.Reference == nil {
		t.Fatalf("%q\n%q", rep.Violations, rep.Trace)
	}
	return settings, rep.Reference.Steps
}

// ideals returns the seconds that steps take at best, if the work is divisible and if it is not.
func (s workload) ideals(
	t *testing.T, settings job.Settings, steps []fsm.StepRecord,
) (divisible, whole float64) {
	t.Helper()
	job, err := job.Load(settings, (&process{world: &world{}}).logger())
	if err != nil {
		t.Fatal(err)
	}
	var speeds []float64
	var sum float64
	for _, f := range s.slowBy {
		speeds = append(speeds, 1/float64(f))
		sum += 1 / float64(f)
	}
	for _, r := range steps {
		costs := slices.Clone(job.Plan(r.Step).Costs)
		total := 0
		for _, c := range costs {
			total += c
		}
		divisible += float64(total) / sum * rowTime.Seconds()
		whole += best(costs, speeds) * rowTime.Seconds()
	}
	return divisible, whole
}

// best returns the time of the best deal of whole micro-batches, by branch and bound.
func best(costs []int, speeds []float64) float64 {
	slices.SortFunc(costs, func(a, b int) int { return b - a })
	var total, sum float64
	for _, c := range costs {
		total += float64(c)
	}
	for _, v := range speeds {
		sum += v
	}
	least, tried := math.Inf(1), 0
	loads := make([]float64, len(speeds))
	var deal func(i int, end float64)
	deal = func(i int, end float64) {
		if tried++; end >= least || tried > 1<<20 || least <= total/sum*1.01 {
			return
		}
		if i == len(costs) {
			least = end
			return
		}
		for r := range loads {
			loads[r] += float64(costs[i])
			deal(i+1, max(end, loads[r]/speeds[r]))
			loads[r] -= float64(costs[i])
		}
	}
	deal(0, 0)
	return least
}

// seconds returns how long steps took.
func seconds(steps []fsm.StepRecord) (sum float64) {
	for _, r := range steps {
		sum += r.Seconds
	}
	return sum
}

func TestThroughputWithASlowWorker(t *testing.T) {
	if raceEnabled {
		t.Skip("long jobs without faults: other tests play the same code under the race detector")
	}
	for _, s := range []workload{ // of 16 epochs
		{batch: 16, micro: 1, slowBy: []int{1, 1, 1, 3}},
		{batch: 32, micro: 2, slowBy: []int{1, 1, 1, 3}},
		{batch: 16, micro: 2, slowBy: []int{1, 1, 1, 3}}, // the programs' defaults
		{batch: 16, micro: 2, slowBy: []int{1, 1, 1, 1}},
		{batch: 16, micro: 2, slowBy: []int{1, 1, 1, 12}}, // better off without its work
	} {
		name := fmt.Sprintf("batch %d in micro-batches of %d, slow by %v", s.batch, s.micro, s.slowBy)
		t.Run(name, func(t *testing.T) {
			s.epochs = 16
			settings, steps := s.play(t)
			steps = steps[warmUp:]
			divisible, whole := s.ideals(t, settings, steps)
			took := seconds(steps)
			t.Logf("%d steps in %.2f s: %.1f%% of the divisible ideal, %.1f%% of the best deal",
				len(steps), took, 100*divisible/took, 100*whole/took)
			if whole/took < 0.85 {
				t.Errorf("%.1f%% of the best deal, want at least 85%%", 100*whole/took)
			}
			if s.batch/s.micro >= 16 && divisible/took < 0.85 {
				t.Errorf("%.1f%% of the divisible ideal, want at least 85%%", 100*divisible/took)
			}
		})
	}
}

// A worker whose speed falls to a third while the job runs costs a few steps, not the rest of the
// job, and it gets its work back when it has recovered.
func TestThroughputAfterASpeedChanges(t *testing.T) {
	if raceEnabled {
		t.Skip("long jobs without faults: other tests play the same code under the race detector")
	}
	s := workload{
		batch:  16,
		micro:  1,
		epochs: 48,
		slowBy: []int{1, 1, 1, 1},
		faults: []Fault{{At: 6 * time.Second, For: 8 * time.Second, Kind: SlowCompute, Host: "w4", Count: 3}},
	}
	settings, steps := s.play(t)
	var at float64
	var before, during, after []fsm.StepRecord
	slow := workload{slowBy: []int{1, 1, 1, 3}}
	for _, r := range steps[warmUp:] {
		switch at += r.Seconds; {
		case at < 4:
			before = append(before, r)
		case at > 8 && at < 11:
			during = append(during, r)
		case at > 17:
			after = append(after, r)
		}
	}
	for name, c := range map[string]struct {
		shape workload
		steps []fsm.StepRecord
	}{"before": {s, before}, "while it is slow": {slow, during}, "after": {s, after}} {
		if len(c.steps) == 0 {
			t.Fatalf("no steps %s, in all %.1f s", name, at)
		}
		divisible, _ := c.shape.ideals(t, settings, c.steps)
		got := divisible / seconds(c.steps)
		t.Logf("%s: %d steps, %.1f%% of the divisible ideal", name, len(c.steps), 100*got)
		if got < 0.85 {
			t.Errorf("%s: %.1f%% of the ideal, want at least 85%%", name, 100*got)
		}
	}
}
