package sweep

import (
	"context"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/job"
)

func TestRunner(t *testing.T) {
	t.Parallel()
	g, err := Preset("short", []string{""})
	if err != nil {
		t.Fatal(err)
	}
	g.Settings = job.DefaultSettings()
	g.Settings.BatchSize = 8
	dir := t.TempDir()
	bad := g.Runs()[7]
	q := &fakeQueue{fails: "x." + bad.Key()}
	// Another sweep's jobs are in the queue too.
	if err := q.Submit(context.Background(), "other", job.Settings{}); err != nil {
		t.Fatal(err)
	}
	want := "1 of 36 runs have no result; the first: " + bad.Key() + " is failed: no such data"
	if err := runSweep(t, q, g, "x.", dir); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one with %q", err, want)
	}
	r := mustRead(t, dir, 35)[0] // of all runs but the failed one
	if r.Score != 60 || r.BestStep != 5 || r.Steps != 10 || r.Headline() != 60 || r.Evaluations[0].Probe.Rank != 3 ||
		r.Parameters != int64(r.PromptLength) {
		t.Errorf("result %+v", r)
	}
	for name, s := range q.settings {
		if name != "other" && (s.BatchSize != 8 || s.Method == "" || s.Seed == 0) {
			t.Errorf("job %s has settings %+v, want the run's on top of the shared ones", name, s)
		}
	}

	// The next call tries the failed run again, and no other.
	before := len(q.jobs)
	if err := runSweep(t, q, g, "x.", dir); err != nil {
		t.Error(err)
	}
	if len(q.jobs) != before+1 || q.jobs[before].Name != "x."+bad.Key()+".2" {
		t.Errorf("%d more jobs, want one more attempt of the failed run", len(q.jobs)-before)
	}
	mustRead(t, dir, 36)
}
