package worker_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/worker"
)

// withBackbone makes a worker compute with a backbone that wraps the real one.
func withBackbone(wrap func(worker.Backbone) worker.Backbone) func(*worker.Config) {
	return func(cfg *worker.Config) {
		cfg.Open = func(dir string, options model.Options) (worker.Backbone, error) {
			b, err := model.Open(dir, options)
			if err != nil {
				return nil, err
			}
			return wrap(b), nil
		}
	}
}

// alteration changes the result of a gradient.
type alteration func(prompt []float32, pairs []model.Pair, res *model.Result, grad []float32)

// alteredBackbone is a backbone whose gradients a test alters.
type alteredBackbone struct {
	worker.Backbone
	alter alteration
}

func (b *alteredBackbone) LossGrads(prompt []float32, microBatches [][]model.Pair) (
	[]model.Result, [][]float32, error,
) {
	results, grads, err := b.Backbone.LossGrads(prompt, microBatches)
	if err == nil {
		for i, pairs := range microBatches {
			b.alter(prompt, pairs, &results[i], grads[i])
		}
	}
	return results, grads, err
}

// alteringResults makes a worker compute with an alteredBackbone.
func alteringResults(alter alteration) func(*worker.Config) {
	return withBackbone(func(b worker.Backbone) worker.Backbone { return &alteredBackbone{b, alter} })
}

// failingExample chooses an example of step 2, and makes every worker fail alike at it.
func failingExample(t *testing.T, s job.Settings) (id string, change func(*worker.Config)) {
	t.Helper()
	loaded, err := job.Load(s, testLogger(t, "job", nil))
	if err != nil {
		t.Fatal(err)
	}
	bad := loaded.Plan(2).Micro[1].Examples[0]
	return bad.Id, alteringResults(func(_ []float32, pairs []model.Pair, res *model.Result, _ []float32) {
		if slices.ContainsFunc(pairs, func(p model.Pair) bool { return slices.Equal(p.Source, bad.Source) }) {
			res.Loss = math.NaN()
		}
	})
}

// mustFail fails the test unless who ended with an error that contains all texts.
func mustFail(t *testing.T, who string, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !contains(err, text) {
			t.Errorf("%s ended with %v, want %q in it", who, err, text)
		}
	}
}

// A job that fails because of its data stays failed: the log records it, every process ends with
// the same reason, and so does a coordinator that is started again.
func TestFailedJobStaysFailed(t *testing.T) {
	s := settings()
	id, poison := failingExample(t, s)
	c := startCoordinator(t, s, 2, t.TempDir(), "")
	ended := c.startWorkers(2, poison)
	o := <-c.result
	var failed *coordinator.FailedError
	if !errors.As(o.err, &failed) || failed.Step != 2 || failed.Committed > 1 {
		t.Fatalf("coordinator ends with %v, want a FailedError at step 2", o.err)
	}
	mustFail(t, "the coordinator", o.err, "example "+id, "the same data would fail again", "--data-dir")
	for i, e := range ended {
		mustFail(t, fmt.Sprint("worker ", i), <-e, "the job failed at step 2: ", "example "+id)
	}
	if f := readJob(t, c.out); f.Finished || !strings.Contains(f.Failure, "example "+id) {
		t.Errorf("job.json: finished %v, failure %q", f.Finished, f.Failure)
	}
	t.Run("a restart says so at once", func(t *testing.T) {
		again := startCoordinator(t, s, 2, c.out, "")
		if got := (<-again.result).err; got == nil || got.Error() != o.err.Error() {
			t.Errorf("restarted it ends with\n%v, want\n%v", got, o.err)
		}
	})
	t.Run("corrected data is another job", func(t *testing.T) {
		other := s
		other.Shots = 11
		again := startCoordinator(t, other, 2, c.out, "")
		mustFail(t, "the coordinator", (<-again.result).err, "holds a job that failed at step 2",
			"example "+id, "train_digest is", "another --out or --data-dir")
	})
}

func TestFailedJobEndsAllReplicas(t *testing.T) {
	s := settings()
	id, poison := failingExample(t, s)
	c := newReplicaSet(t, s, "a", "b", "c")
	ended := c.startWorkers(3, poison)
	c.start("a", "b", "c")
	var text string
	for _, replica := range []string{"a", "b", "c"} {
		o := c.ended(replica)
		var failed *coordinator.FailedError
		if !errors.As(o.err, &failed) || failed.Step != 2 || !strings.Contains(failed.Reason, "example "+id) {
			t.Fatalf("replica %s ends with %v, want a FailedError at step 2", replica, o.err)
		}
		if text == "" {
			text = failed.Reason
		}
		if failed.Reason != text {
			t.Errorf("replica %s says %q, another %q", replica, failed.Reason, text)
		}
	}
	for i, e := range ended {
		mustFail(t, fmt.Sprint("worker ", i), <-e, "the job failed at step 2: "+text)
	}
}
