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

// bent is a backbone with a gradient that a test has changed.
type bent struct {
	worker.Backbone
	bend func(prompt []float32, pairs []model.Pair, res *model.Result, grad []float32)
}

func (b *bent) LossGrad(prompt []float32, pairs []model.Pair) (model.Result, []float32, error) {
	res, grad, err := b.Backbone.LossGrad(prompt, pairs)
	if err == nil {
		b.bend(prompt, pairs, &res, grad)
	}
	return res, grad, err
}

// bending makes a worker compute with a bent backbone.
func bending(bend func(prompt []float32, pairs []model.Pair, res *model.Result, grad []float32)) func(*worker.Config) {
	return func(cfg *worker.Config) {
		cfg.Open = func(dir string, options model.Options) (worker.Backbone, error) {
			b, err := model.Open(dir, options)
			if err != nil {
				return nil, err
			}
			return &bent{b, bend}, nil
		}
	}
}

// poisoned makes every worker fail alike at one example of step 2, and says which.
func poisoned(t *testing.T, s job.Settings) (id string, change func(*worker.Config)) {
	t.Helper()
	job, err := job.Load(s, testLogger(t, "job", nil))
	if err != nil {
		t.Fatal(err)
	}
	bad := job.Plan(2).Micro[1].Examples[0]
	return bad.Id, bending(func(_ []float32, pairs []model.Pair, res *model.Result, _ []float32) {
		if slices.ContainsFunc(pairs, func(p model.Pair) bool { return slices.Equal(p.Source, bad.Source) }) {
			res.Loss = math.NaN()
		}
	})
}

func mustFail(t *testing.T, who string, err error, says ...string) {
	t.Helper()
	for _, text := range says {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s ended with %v, want it to say %q", who, err, text)
		}
	}
}

// A job that its data fails is not found out anew: the log says so, every process ends with the same words, and so does a restart.
func TestFailedJobStaysFailed(t *testing.T) {
	s := settings()
	id, poison := poisoned(t, s)
	c := startCoordinator(t, s, 2, t.TempDir(), "")
	var ended []<-chan error
	for i := range 2 {
		_, e := c.startWorker(fmt.Sprint("w", i), poison)
		ended = append(ended, e)
	}
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
		mustFail(t, "the coordinator", (<-again.result).err, "holds a job that failed at step 2", "example "+id, "train_digest is", "another --out or --data-dir")
	})
}

func TestFailedJobEndsAllReplicas(t *testing.T) {
	s := settings()
	id, poison := poisoned(t, s)
	c := newCouncil(t, s, "a", "b", "c")
	var addrs []string
	for _, seat := range c.seats {
		addrs = append(addrs, seat.workerAddr)
	}
	as := &cluster{t: t}
	var ended []<-chan error
	for i := range 3 {
		_, e := as.startWorker(fmt.Sprint("w", i), func(w *worker.Config) { w.Coordinators = addrs; poison(w) })
		ended = append(ended, e)
	}
	t.Cleanup(as.wg.Wait)
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
