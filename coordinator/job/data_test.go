package job_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/internal/jobtest"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
)

// TestMixtureTrainsOnAllTasks: an epoch of a mixture sees the examples of each task.
func TestMixtureTrainsOnAllTasks(t *testing.T) {
	j := jobtest.Load(t, func(s *job.Settings) { s.Task, s.Shots, s.BatchSize = "cb, RTE", 10, 5 })
	spec := j.Spec
	if spec.Task != "cb,rte" || spec.Mixture != "proportional" || spec.MixtureLimit != 1<<18 ||
		spec.TrainExamples != 20 || spec.StepsPerEpoch != 4 {
		t.Errorf("spec %+v", spec)
	}
	seen := map[string]int{}
	for step := ids.Step(1); step <= 4; step++ {
		for _, id := range j.Plan(step).IDs() {
			task, _, _ := strings.Cut(id, ":")
			seen[task]++
			seen[id]++
		}
	}
	if seen["cb"] != 10 || seen["rte"] != 10 || len(seen) != 22 {
		t.Errorf("an epoch has %d of cb and %d of rte, %d different, want 10, 10 and 20",
			seen["cb"], seen["rte"], len(seen)-2)
	}
	labels, err := j.Labels()
	if want := lookup(t, "cb").Labels(dataset.DPT); err != nil || strings.Join(labels, " ") != strings.Join(want, " ") {
		t.Errorf("labels %v (%v), want %v", labels, err, want)
	}
}

// TestMixtureIsEvaluatedOnAllTasks: the score of a mixture is the mean of its tasks' scores.
func TestMixtureIsEvaluatedOnAllTasks(t *testing.T) {
	j := jobtest.Load(t, func(s *job.Settings) { s.Task = "cb,rte" })
	cb, rte := j.EvalSplits[0], j.EvalSplits[1]
	firstRTE := j.EvalExamples(len(cb.Eval), len(cb.Eval)+1)[0].Id
	if n := j.Spec.EvalExamples; n != len(cb.Eval)+len(rte.Eval) {
		t.Errorf("evaluates %d examples, want %d of cb and %d of rte", n, len(cb.Eval), len(rte.Eval))
	}
	if !strings.HasPrefix(j.Eval[0].ID, "cb:") || firstRTE != "rte:"+rte.Eval[0].ID {
		t.Errorf("evaluates from %s, and rte from %s", j.Eval[0].ID, firstRTE)
	}

	// The same answer to every example of cb, and the right ones to rte.
	texts := make([]string, len(j.Eval))
	for i, e := range j.Eval {
		if texts[i] = "0"; i >= len(cb.Eval) {
			texts[i] = e.Target
		}
	}
	metrics, score, err := j.Score(texts)
	if err != nil {
		t.Fatal(err)
	}
	want, err := cb.Score(texts[:len(cb.Eval)])
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range metrics {
		names = append(names, m.Name)
	}
	if got := strings.Join(names, " "); got != "cb.accuracy cb.f1_macro rte.accuracy" {
		t.Errorf("metrics %s", got)
	}
	if right, _ := metrics.Get("rte.accuracy"); right != 100 || score != (want.Primary()+100)/2 {
		t.Errorf("rte's accuracy is %v and the score %v, want 100 and %v", right, score, (want.Primary()+100)/2)
	}
}

func TestMixtureSettings(t *testing.T) {
	two := jobtest.Load(t, func(s *job.Settings) { s.Task = "cb,rte" })
	one := jobtest.Load(t, func(s *job.Settings) { s.Task = "rte" })
	if one.Spec.Mixture != "" || one.Spec.TrainDigest == two.Spec.TrainDigest || strings.Contains(one.Eval[0].ID, ":") {
		t.Error("a single task is taken for a mixture")
	}
	equal := jobtest.Load(t, func(s *job.Settings) { s.Task, s.Mixture = "cb,rte", "equal" })
	if equal.Spec.Mixture != "equal" || equal.Spec.MixtureLimit != 0 {
		t.Errorf("spec %+v", equal.Spec)
	}
	limited := jobtest.Load(t, func(s *job.Settings) { s.Task, s.MixtureLimit, s.BatchSize = "cb,rte", 8, 4 })
	if limited.Spec.StepsPerEpoch != 4 {
		t.Errorf("%d steps an epoch, want 4 for 8 examples of each", limited.Spec.StepsPerEpoch)
	}
}

func lookup(t *testing.T, name string) dataset.Task {
	t.Helper()
	task, err := dataset.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func TestMixtureRefuses(t *testing.T) {
	for want, change := range map[string]func(s *job.Settings){
		`task rte is there twice in "rte,cb,RTE"`:   func(s *job.Settings) { s.Task = "rte,cb,RTE" },
		`unknown task "squad"`:                      func(s *job.Settings) { s.Task = "rte,squad" },
		"--mixture: half, want one of proportional": func(s *job.Settings) { s.Task, s.Mixture = "rte,cb", "half" },
		"--mixture: equal, want several tasks":      func(s *job.Settings) { s.Mixture = "equal" },
	} {
		if _, err := jobtest.TryLoad(change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// TestDefaultsCutNothing: the embedded data, byte by byte as the embedded model reads it, is within
// the default lengths.
func TestDefaultsCutNothing(t *testing.T) {
	for _, template := range []dataset.Template{dataset.DPT, dataset.T5} {
		s := job.DefaultSettings()
		s.Task, s.Template = strings.Join(dataset.Tasks(), ","), string(template)
		j, err := job.Load(s, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		fits := func(text, flag string, limit int) {
			if n := len(j.Tokenizer.Encode(text)) + 1; n > limit {
				t.Errorf("template %s: %d tokens with </s>, want at most the %d of --%s: %s",
					template, n, limit, flag, text)
			}
		}
		for _, examples := range [][]dataset.Example{j.TrainExamples(), j.Eval} {
			for _, e := range examples {
				fits(e.Source, "max-source-length", s.MaxSourceLength)
				fits(e.Target, "max-target-length", s.MaxTargetLength)
				for _, a := range e.Answers {
					fits(a, "max-target-length", s.MaxTargetLength)
				}
			}
		}
	}
}
