package worker_test

import (
	"errors"
	"math"
	"sync/atomic"
	"testing"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/worker"
)

func auditing(share float64) func(*coordinator.Config) {
	return func(c *coordinator.Config) { c.Audit = share }
}

// A worker that computes wrongly has all others apply its wrong sum, so that their states agree. Only an audit finds it.
func TestAuditFindsTheWorkerThatComputesWrongly(t *testing.T) {
	s := settings()
	prompt, job := undisturbed(t, s)
	always := func(_ []float32, _ []model.Pair, _ *model.Result, grad []float32) { grad[0]++ }
	for name, c := range map[string]struct {
		share float64
		good  int
		bend  func(prompt []float32, pairs []model.Pair, res *model.Result, grad []float32)
	}{
		"gradient, all audited":     {1, 2, always},
		"gradient, a third audited": {0.34, 2, always},
		"among four workers":        {1, 3, always},
		"the last bit": {1, 2, func(_ []float32, _ []model.Pair, _ *model.Result, grad []float32) {
			grad[3] = math.Nextafter32(grad[3], 2*grad[3])
		}},
		"loss only":                  {1, 2, func(_ []float32, _ []model.Pair, res *model.Result, _ []float32) { res.Loss *= 1.5 }},
		"once only, in some example": {1, 2, once(always)},
	} {
		t.Run(name, func(t *testing.T) {
			s := s
			if c.share < 1 {
				s.Epochs = 8
			}
			k := startCoordinatorWith(t, s, c.good+1, t.TempDir(), "", auditing(c.share))
			for i := range c.good {
				k.startWorker([]string{"x", "y", "z"}[i], nil)
			}
			_, bad := k.startWorker("bad", bending(c.bend))
			k.finish()
			if c.share == 1 { // else what was not audited may have been committed
				k.mustEqual(prompt, job)
			}
			mustFail(t, "the bad worker", <-bad, "worker bad (", "this machine computes differently", "micro-batch ")
		})
	}
}

// once bends the fifth result only.
func once(bend func([]float32, []model.Pair, *model.Result, []float32)) func([]float32, []model.Pair, *model.Result, []float32) {
	var calls atomic.Int64
	return func(prompt []float32, pairs []model.Pair, res *model.Result, grad []float32) {
		if calls.Add(1) == 5 {
			bend(prompt, pairs, res, grad)
		}
	}
}

func TestAuditOfTwoCannotSayWhoIsRight(t *testing.T) {
	c := startCoordinatorWith(t, settings(), 2, t.TempDir(), "", auditing(1))
	_, good := c.startWorker("good", nil)
	_, bad := c.startWorker("bad", bending(func(_ []float32, _ []model.Pair, _ *model.Result, grad []float32) { grad[1]++ }))
	o := <-c.result
	mustFail(t, "the coordinator", o.err, "worker good (", "worker bad (", "nobody is left to decide who is right", "micro-batch ")
	var failed *coordinator.FailedError
	if errors.As(o.err, &failed) {
		t.Error("the job is given up for good, though its data may be right")
	}
	for name, ended := range map[string]<-chan error{"good": good, "bad": bad} {
		mustFail(t, name, <-ended, "nobody is left to decide")
	}
}

// An audit changes nothing where all compute rightly.
func TestAuditLeavesNoTrace(t *testing.T) {
	s := settings()
	prompt, job := undisturbed(t, s)
	for _, n := range []int{1, 2, 5} { // there are four micro-batches
		c := startCoordinatorWith(t, s, n, t.TempDir(), "", auditing(0.7))
		for i := range n {
			c.startWorker(string(rune('a'+i)), nil)
		}
		c.finish()
		c.mustEqual(prompt, job)
	}
}

// One worker's word that an example cannot be computed does not end the job.
func TestWorkerThatFailsAloneIsExpelled(t *testing.T) {
	s := settings()
	prompt, job := undisturbed(t, s)
	c := startCoordinator(t, s, 3, t.TempDir(), "")
	c.startWorker("x", nil)
	c.startWorker("y", nil)
	_, bad := c.startWorker("bad", bending(func(_ []float32, _ []model.Pair, _ *model.Result, grad []float32) { grad[0] = float32(math.NaN()) }))
	c.finish()
	c.mustEqual(prompt, job)
	mustFail(t, "the bad worker", <-bad, "worker bad (", "says that it cannot be computed", "this machine computes differently")
}

// More workers than micro-batches: some have nothing to do but the update.
func TestWorkersWithoutWork(t *testing.T) {
	s := settings()
	s.MicroBatch = 2
	prompt, job := undisturbed(t, s)
	c := startCoordinator(t, s, 5, t.TempDir(), "")
	for i := range 5 {
		c.startWorker(string(rune('a'+i)), nil)
	}
	c.finish()
	c.mustEqual(prompt, job)
}

// A worker that hangs in a gradient while its heartbeats go on holds up nobody: the others take over its micro-batches, compute nothing
// twice, and it comes back when it answers.
func TestStuckWorkerIsRelieved(t *testing.T) {
	s := settings()
	s.Epochs = 10
	prompt, job := undisturbed(t, s)
	var stuck atomic.Bool
	here, goOn := make(chan struct{}), make(chan struct{})
	type call struct {
		prompt float32
		source string
	}
	seen := make(chan call, 4096)
	note := bending(func(prompt []float32, pairs []model.Pair, _ *model.Result, _ []float32) {
		for _, p := range pairs {
			seen <- call{prompt[0], string(bytesOf(p.Source))}
		}
	})
	calls := 0
	c := startCoordinator(t, s, 3, t.TempDir(), "")
	c.startWorker("x", note)
	c.startWorker("y", note)
	c.startWorker("stuck", bending(func([]float32, []model.Pair, *model.Result, []float32) {
		if calls++; calls == 8 && stuck.CompareAndSwap(false, true) {
			close(here)
			<-goOn
		}
	}))
	<-here
	c.awaitLog("worker stands down")
	c.awaitStep(15) // without it
	close(goOn)
	c.awaitLog("worker is back")
	c.awaitLog("generation started") // with it, unless the job has ended first
	c.finish()
	c.mustEqual(prompt, job)
	close(seen)
	times := map[call]int{}
	for x := range seen {
		if times[x]++; times[x] > 1 {
			t.Errorf("an example is computed twice for the same prompt")
		}
	}
}

func bytesOf(ids []int32) (b []byte) {
	for _, id := range ids {
		b = append(b, byte(id), byte(id>>8))
	}
	return b
}

// halting blocks a worker's evaluations.
type halting struct {
	worker.Backbone
	halt func()
}

func (h *halting) Evaluate(prompt []float32, pairs []model.Pair, most int) ([][]int32, model.Result, error) {
	h.halt()
	return h.Backbone.Evaluate(prompt, pairs, most)
}

// A worker that hangs in an evaluation does not hold it up, nor the step after it.
func TestWorkerStuckInAnEvaluationIsRelieved(t *testing.T) {
	s := settings()
	s.EvalEvery, s.EvalFirst, s.Epochs = 100, true, 1
	prompt, job := undisturbed(t, s)
	goOn := make(chan struct{})
	c := startCoordinator(t, s, 2, t.TempDir(), "")
	c.startWorker("x", nil)
	c.startWorker("stuck", func(cfg *worker.Config) {
		cfg.Open = func(dir string, options model.Options) (worker.Backbone, error) {
			b, err := model.Open(dir, options)
			if err != nil {
				return nil, err
			}
			return &halting{b, func() { <-goOn }}, nil
		}
	})
	c.awaitLog("evaluation chunk is late; another worker computes it too")
	c.awaitLog("worker stands down")
	c.awaitStep(2)
	close(goOn)
	c.finish()
	c.mustEqual(prompt, job)
}
