package sweep

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/job"
)

// queue is a coordinator's queue that runs a job whenever it is looked at. Jobs whose name has a key of fails fail.
type queue struct {
	jobs  []*coordpb.Job
	base  map[string]job.Settings
	fails map[string]bool
	score func(job.Settings) float64 // of its evaluations; nil: 60
}

func (q *queue) Submit(_ context.Context, name string, s job.Settings) error {
	if _, there := q.base[name]; there {
		return nil
	}
	q.base[name] = s
	q.jobs = append(q.jobs, &coordpb.Job{Id: "id-" + name, Name: name, Status: "queued"})
	return nil
}

func (q *queue) List(_ context.Context, names []string) (list []*coordpb.Job, err error) {
	ran := false
	for _, j := range q.jobs {
		if j.Status == "queued" && !ran {
			ran = true
			if q.fails[j.Name] {
				j.Status, j.Reason = "failed", "no such data"
			} else {
				s := q.base[j.Name]
				spec, err := json.Marshal(job.Spec{Task: s.Task, Method: s.Method, Parameters: s.PromptLength})
				if err != nil {
					return nil, err
				}
				score := 60.0
				if q.score != nil {
					score = q.score(s)
				}
				e := &coordpb.JobEvaluation{Step: 5, Score: score, Loss: 0.5, Metrics: []byte(`{"accuracy":60}`), Probe: []byte(`{"positive":1,"negative":2,"rank":3}`)}
				j.Status, j.Spec, j.Step, j.TotalSteps, j.Best, j.Evaluations = "finished", spec, 10, int64(s.Epochs), e, []*coordpb.JobEvaluation{e}
			}
		}
		for _, n := range names {
			if n == j.Name {
				list = append(list, j)
			}
		}
	}
	return list, nil
}

func TestRunner(t *testing.T) {
	g, err := Preset("short", []string{""})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bad := g.Runs()[7]
	q := &queue{base: map[string]job.Settings{}, fails: map[string]bool{"x." + bad.Key(): true}}
	// Another sweep's jobs are in the queue too.
	if err := q.Submit(context.Background(), "other", job.Settings{}); err != nil {
		t.Fatal(err)
	}
	run := func() error {
		t.Helper()
		results, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer results.Close()
		base := job.DefaultSettings()
		base.BatchSize = 8
		g.Settings = base
		return (&Runner{Jobs: q, Grid: g, Prefix: "x.", Results: results, Logger: slog.New(slog.DiscardHandler)}).Run(context.Background())
	}
	if err := run(); err == nil || !strings.Contains(err.Error(), "1 of 36 runs have no result; the first: "+bad.Key()+" is failed: no such data") {
		t.Errorf("with a run that fails: %v", err)
	}
	list, err := Read(dir)
	if err != nil || len(list) != 35 {
		t.Fatalf("%d results (%v), want those of the 35 runs that finished", len(list), err)
	}
	r := list[0]
	if r.Score != 60 || r.BestStep != 5 || r.Steps != 10 || r.Headline() != 60 || r.Evaluations[0].Probe.Rank != 3 || r.Parameters != int64(r.PromptLength) {
		t.Errorf("result %+v", r)
	}
	for name, s := range q.base {
		if name != "other" && (s.BatchSize != 8 || s.Method == "" || s.Seed == 0) {
			t.Errorf("job %s has settings %+v, want the run's on top of the shared ones", name, s)
		}
	}
	// The next call tries the failed run again, and no other.
	before := len(q.jobs)
	if err := run(); err != nil {
		t.Error(err)
	}
	if len(q.jobs) != before+1 || q.jobs[before].Name != "x."+bad.Key()+".2" {
		t.Errorf("%d more jobs, want one more attempt of the failed run", len(q.jobs)-before)
	}
	if list, err := Read(dir); err != nil || len(list) != 36 {
		t.Errorf("%d results (%v), want 36", len(list), err)
	}
}
