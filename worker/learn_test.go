package worker_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
)

// TestPromptLearns tunes a prompt for the embedded model with two workers until it can do a task:
// whether a speaker believes what a clause says, its opposite, or neither (CommitmentBank).
// Pre-training has seen neither the format nor the labels nor the people named, and each label has
// a third of the examples. A wrong gradient, optimizer, sampler or metric ends below the wanted
// score.
func TestPromptLearns(t *testing.T) {
	const want = 98 // per cent
	s := job.DefaultSettings()
	s.Task, s.PromptLength, s.Steps, s.BatchSize, s.MicroBatch, s.MaxTargetLength = "cb", 20, 40, 16, 8, 8
	s.EvalEvery = int64(s.Steps)
	c := startCoordinator(t, s, 2, t.TempDir(), "")
	c.startWorkers(2, nil)
	var res *coordinator.Result
	select {
	case o := <-c.result:
		if res = o.res; o.err != nil {
			t.Fatal(o.err)
		}
	case <-time.After(20 * time.Minute):
		t.Fatal("the job does not end")
	}
	accuracy := func(i int) float64 {
		var m dataset.Metrics
		if err := json.Unmarshal(res.Evaluations[i].Metrics, &m); err != nil {
			t.Fatal(err)
		}
		v, ok := m.Get("accuracy")
		if !ok {
			t.Fatalf("evaluation %d has metrics %v, want accuracy", i, m)
		}
		return v
	}
	before, after := accuracy(0), accuracy(len(res.Evaluations)-1)
	t.Logf("accuracy %.2f before, %.2f after %d steps; a constant answer: %v", before, after, res.Steps, res.Majority)
	if majority := res.Majority.Primary(); majority > 40 {
		t.Errorf("a constant answer scores %.2f, want about 33: the labels are not balanced", majority)
	}
	if before > want-10 {
		t.Errorf("accuracy %.2f before training, want at most %d: nothing is left to learn", before, want-10)
	}
	if after < want {
		t.Errorf("accuracy %.2f after %d steps, want at least %d", after, res.Steps, want)
	}
}
