package outputs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/internal/jobtest"
	"github.com/dptune/dpt/coordinator/job"
)

// TestMetricsFileFollowsTheLog: whatever an earlier process has left in metrics.jsonl, its steps
// grow, none is beyond the log, and the last ones that the log holds are there.
func TestMetricsFileFollowsTheLog(t *testing.T) {
	j := jobtest.Load(t, func(*job.Settings) {})
	var recs []fsm.StepRecord
	for s := ids.Step(1); s <= 5; s++ {
		recs = append(recs, fsm.StepRecord{Step: s, LossSum: float64(s), Tokens: 1, Seconds: 1, Workers: 1})
	}
	steps := func(dir string) string {
		b, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
			_, rest, _ := strings.Cut(line, `"step":`)
			step, _, _ := strings.Cut(rest, ",")
			list = append(list, step)
		}
		return strings.Join(list, " ")
	}
	line := func(step string) string { return `{"step":` + step + `,"loss":1}` + "\n" }
	for name, c := range map[string]struct {
		file      string   // what an earlier process has left
		committed ids.Step // the last committed step
		recent    []fsm.StepRecord
		want      string
	}{
		"new":                                    {"", 0, nil, ""},
		"as it should be":                        {line("1") + line("2"), 2, recs[:2], "1 2"},
		"lines lost":                             {line("1"), 4, recs[:4], "1 2 3 4"},
		"torn line":                              {line("1") + `{"step":2,"lo`, 3, recs[:3], "1 2 3"},
		"not committed":                          {line("1") + line("2") + line("3"), 1, recs[:1], "1"},
		"another job's":                          {line("1") + line("2"), 0, nil, ""},
		"a gap of a replica that was far behind": {line("1") + line("4"), 5, recs, "1 4 5"},
		"older lines gone":                       {"", 5, recs[2:], "3 4 5"},
		"garbage in middle":                      {line("1") + "x\n" + line("3"), 3, recs[:3], "1 2 3"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "metrics.jsonl"), []byte(c.file), 0o644); err != nil {
				t.Fatal(err)
			}
			o, err := openWriter(dir, j, nil, false, c.committed)
			if err != nil {
				t.Fatal(err)
			}
			defer o.close()
			for _, r := range c.recent {
				if r.Step > o.last {
					if err := o.writeStep(r, j.Plan(r.Step)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := steps(dir); got != c.want {
				t.Errorf("steps %q, want %q", got, c.want)
			}
		})
	}
}
