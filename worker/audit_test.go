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

// withAudit has a share of the micro-batches audited.
func withAudit(share float64) func(*coordinator.Config) {
	return func(c *coordinator.Config) { c.Audit = share }
}

// A worker that computes wrongly makes all others apply its wrong sum, so that their states agree.
// Only an audit finds it.
func TestAuditFindsTheWorkerThatComputesWrongly(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := settings()
	prompt, job := undisturbed(t, s)
	always := func(_ []float32, _ []model.Pair, _ *model.Result, grad []float32) { grad[0]++ }
	for name, c := range map[string]struct {
		share float64
		good  int
		alter alteration
	}{
		"gradient, all audited":     {1, 2, always},
		"gradient, a third audited": {0.34, 2, always},
		"among four workers":        {1, 3, always},
		"the last bit": {1, 2, func(_ []float32, _ []model.Pair, _ *model.Result, grad []float32) {
			grad[3] = math.Nextafter32(grad[3], 2*grad[3])
		}},
		"loss only": {1, 2, func(_ []float32, _ []model.Pair, res *model.Result, _ []float32) {
			res.Loss *= 1.5
		}},
		"once only, in some example": {1, 2, once(always)},
	} {
		t.Run(name, func(t *testing.T) {
			s := s
			if c.share < 1 {
				s.Epochs = 8
			}
			k := startCoordinatorWith(t, s, c.good+1, t.TempDir(), "", withAudit(c.share))
			for i := range c.good {
				k.startWorker([]string{"x", "y", "z"}[i], nil)
			}
			_, bad := k.startWorker("bad", alteringResults(c.alter))
			k.finish()
			if c.share == 1 { // else what was not audited may have been committed
				k.mustEqual(prompt, job)
			}
			mustFail(t, "the bad worker", <-bad, "worker bad (", "this machine computes differently", "micro-batch ")
		})
	}
}

// once alters the fifth result only.
func once(alter alteration) alteration {
	var calls atomic.Int64
	return func(prompt []float32, pairs []model.Pair, res *model.Result, grad []float32) {
		if calls.Add(1) == 5 {
			alter(prompt, pairs, res, grad)
		}
	}
}

func TestAuditOfTwoCannotSayWhoIsRight(t *testing.T) {
	c := startCoordinatorWith(t, settings(), 2, t.TempDir(), "", withAudit(1))
	_, good := c.startWorker("good", nil)
	_, bad := c.startWorker("bad", alteringResults(
		func(_ []float32, _ []model.Pair, _ *model.Result, grad []float32) { grad[1]++ }))
	o := <-c.result
	mustFail(t, "the coordinator", o.err,
		"worker good (", "worker bad (", "nobody is left to decide who is right", "micro-batch ")
	var failed *coordinator.FailedError
	if errors.As(o.err, &failed) {
		t.Error("the job is given up for good, though its data may be right")
	}
	for name, ended := range map[string]<-chan error{"good": good, "bad": bad} {
		mustFail(t, name, <-ended, "nobody is left to decide")
	}
}

// An audit changes nothing if all workers compute correctly.
func TestAuditLeavesNoTrace(t *testing.T) {
	s := settings()
	prompt, job := undisturbed(t, s)
	for _, n := range []int{1, 2, 5} { // there are four micro-batches
		c := startCoordinatorWith(t, s, n, t.TempDir(), "", withAudit(0.7))
		c.startWorkers(n, nil)
		c.finish()
		c.mustEqual(prompt, job)
	}
}

// A single worker's claim that an example cannot be computed does not end the job.
func TestWorkerThatFailsAloneIsExpelled(t *testing.T) {
	s := settings()
	prompt, job := undisturbed(t, s)
	c := startCoordinator(t, s, 3, t.TempDir(), "")
	c.startWorker("x", nil)
	c.startWorker("y", nil)
	_, bad := c.startWorker("bad", alteringResults(
		func(_ []float32, _ []model.Pair, _ *model.Result, grad []float32) { grad[0] = float32(math.NaN()) }))
	c.finish()
	c.mustEqual(prompt, job)
	mustFail(t, "the bad worker", <-bad,
		"worker bad (", "says that it cannot be computed", "this machine computes differently")
}

// With more workers than micro-batches, some compute nothing but the update.
func TestWorkersWithoutWork(t *testing.T) {
	s := settings()
	s.MicroBatch = 2
	prompt, job := undisturbed(t, s)
	c := startCoordinator(t, s, 5, t.TempDir(), "")
	c.startWorkers(5, nil)
	c.finish()
	c.mustEqual(prompt, job)
}

// A worker that hangs in a gradient while its heartbeats go on does not stop the job: the others
// take over its micro-batches, compute nothing twice, and it comes back when it answers.
func TestStuckWorkerStandsDown(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := settings()
	s.Epochs = 10
	prompt, job := undisturbed(t, s)
	var stuck atomic.Bool
	hangs, goOn := make(chan struct{}), make(chan struct{})
	type call struct {
		prompt float32
		source string
	}
	seen := make(chan call, 4096)
	note := alteringResults(func(prompt []float32, pairs []model.Pair, _ *model.Result, _ []float32) {
		for _, p := range pairs {
			seen <- call{prompt[0], string(bytesOf(p.Source))}
		}
	})
	calls := 0
	c := startCoordinator(t, s, 3, t.TempDir(), "")
	c.startWorker("x", note)
	c.startWorker("y", note)
	var inFlight float32 // identifies the prompt of the step in which the worker hangs
	c.startWorker("stuck", alteringResults(func(prompt []float32, _ []model.Pair, _ *model.Result, _ []float32) {
		if calls++; calls == 8 && stuck.CompareAndSwap(false, true) {
			inFlight = prompt[0]
			close(hangs)
			<-goOn
		}
	}))
	<-hangs
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
		// In other steps a worker without work may be measured by what another computes too.
		if times[x]++; times[x] > 1 && x.prompt == inFlight {
			t.Errorf("an example of the step in flight is computed twice")
		}
	}
	if len(times) == 0 {
		t.Error("the other workers computed nothing")
	}
}

// bytesOf encodes token ids, which have 16 bits here.
func bytesOf(ids []int32) (b []byte) {
	for _, id := range ids {
		b = append(b, byte(id), byte(id>>8))
	}
	return b
}

// blockingEvaluation is a backbone whose evaluations wait until goOn is closed.
type blockingEvaluation struct {
	worker.Backbone
	goOn chan struct{}
}

func (b *blockingEvaluation) Evaluate(
	prompt []float32, pairs []model.Pair, maxNew int,
) ([][]int32, model.Result, error) {
	<-b.goOn
	return b.Backbone.Evaluate(prompt, pairs, maxNew)
}

// A worker that hangs in an evaluation delays neither the evaluation nor the step after it.
func TestWorkerStuckInAnEvaluationStandsDown(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := settings()
	s.EvalEvery, s.EvalFirst, s.Epochs = 100, true, 1
	prompt, job := undisturbed(t, s)
	goOn := make(chan struct{})
	c := startCoordinator(t, s, 2, t.TempDir(), "")
	c.startWorker("x", nil)
	c.startWorker("stuck", withBackbone(func(b worker.Backbone) worker.Backbone {
		return &blockingEvaluation{b, goOn}
	}))
	c.awaitLog("evaluation chunk is late; another worker computes it too")
	c.awaitLog("worker stands down")
	c.awaitStep(2)
	close(goOn)
	c.finish()
	c.mustEqual(prompt, job)
}
