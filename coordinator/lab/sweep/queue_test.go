package sweep

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/job"
)

// fakeQueue is a coordinator's queue that ends the first waiting job whenever its jobs are listed.
type fakeQueue struct {
	jobs     []*coordpb.Job
	settings map[string]job.Settings    // by job name
	fails    string                     // name of the job that fails; "": none does
	score    func(job.Settings) float64 // of a job's evaluations; nil: 60
}

func (q *fakeQueue) Submit(_ context.Context, name string, s job.Settings) error {
	if _, ok := q.settings[name]; ok {
		return nil
	}
	if q.settings == nil {
		q.settings = map[string]job.Settings{}
	}
	q.settings[name] = s
	q.jobs = append(q.jobs, &coordpb.Job{Id: "id-" + name, Name: name, Status: "queued"})
	return nil
}

func (q *fakeQueue) List(_ context.Context, names []string) (list []*coordpb.Job, err error) {
	if i := slices.IndexFunc(q.jobs, func(j *coordpb.Job) bool { return j.Status == "queued" }); i >= 0 {
		if err := q.end(q.jobs[i]); err != nil {
			return nil, err
		}
	}
	for _, j := range q.jobs {
		if slices.Contains(names, j.Name) {
			list = append(list, j)
		}
	}
	return list, nil
}

// end makes a job finish with one evaluation, or fail.
func (q *fakeQueue) end(j *coordpb.Job) error {
	if j.Name == q.fails {
		j.Status, j.Reason = "failed", "no such data"
		return nil
	}
	s := q.settings[j.Name]
	spec, err := json.Marshal(job.Spec{Task: s.Task, Method: s.Method, Parameters: s.PromptLength})
	if err != nil {
		return err
	}
	e := &coordpb.JobEvaluation{
		Step:    5,
		Score:   60,
		Loss:    0.5,
		Metrics: []byte(`{"accuracy":60}`),
		Probe:   []byte(`{"positive":1,"negative":2,"rank":3}`),
	}
	if q.score != nil {
		e.Score = q.score(s)
	}
	j.Status, j.Spec, j.Step, j.TotalSteps = "finished", spec, 10, int64(s.Epochs)
	j.Best, j.Evaluations = e, []*coordpb.JobEvaluation{e}
	return nil
}

// stoppedQueue is a queue whose coordinator goes on while this client is stopped after some calls
// of List.
type stoppedQueue struct {
	*fakeQueue
	calls int // left
}

var errStopped = errors.New("stopped")

func (q *stoppedQueue) List(ctx context.Context, names []string) ([]*coordpb.Job, error) {
	if q.calls--; q.calls < 0 {
		return nil, errStopped
	}
	return q.fakeQueue.List(ctx, names)
}

// runSweep runs what the results in dir lack, and returns the runner's error.
func runSweep(t *testing.T, jobs Jobs, g Grid, prefix, dir string) error {
	t.Helper()
	results, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer results.Close()
	r := &Runner{Jobs: jobs, Grid: g, Prefix: prefix, Results: results, Logger: slog.New(slog.DiscardHandler)}
	return r.Run(context.Background())
}

// mustRead reads dir's results, of which there must be n.
func mustRead(t *testing.T, dir string, n int) []Result {
	t.Helper()
	list, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != n {
		t.Fatalf("%d results, want %d", len(list), n)
	}
	return list
}
