package job

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
)

// TestMixture: one job over two tasks sees the examples of both, evaluates both, and its score is
// the mean of theirs.
func TestMixture(t *testing.T) {
	j := load(t, func(s *Settings) { s.Task, s.Shots, s.BatchSize = "cb, RTE", 10, 5 })
	if j.Spec.Task != "cb,rte" || j.Spec.Mixture != "proportional" || j.Spec.MixtureLimit != 1<<18 || j.Spec.TrainExamples != 20 || j.Spec.StepsPerEpoch != 4 {
		t.Errorf("spec %+v", j.Spec)
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
		t.Errorf("an epoch has %d of cb and %d of rte, %d different, want 10, 10 and 20", seen["cb"], seen["rte"], len(seen)-2)
	}

	cb, rte := j.EvalSplits[0], j.EvalSplits[1]
	if j.Spec.EvalExamples != len(cb.Eval)+len(rte.Eval) || !strings.HasPrefix(j.Eval[0].ID, "cb:") || j.EvalExamples(len(cb.Eval), len(cb.Eval)+1)[0].Id != "rte:"+rte.Eval[0].ID {
		t.Errorf("evaluates %d examples from %s", j.Spec.EvalExamples, j.Eval[0].ID)
	}
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

	one := load(t, func(s *Settings) { s.Task = "rte" })
	if one.Spec.Mixture != "" || one.Spec.TrainDigest == j.Spec.TrainDigest || strings.Contains(one.Eval[0].ID, ":") {
		t.Error("a single task is taken for a mixture")
	}
	equal := load(t, func(s *Settings) { s.Task, s.Mixture = "cb,rte", "equal" })
	if equal.Spec.Mixture != "equal" || equal.Spec.MixtureLimit != 0 {
		t.Errorf("spec %+v", equal.Spec)
	}
	limited := load(t, func(s *Settings) { s.Task, s.MixtureLimit, s.BatchSize = "cb,rte", 8, 4 })
	if limited.Spec.StepsPerEpoch != 4 {
		t.Errorf("%d steps an epoch, want 4 for 8 examples of each", limited.Spec.StepsPerEpoch)
	}
	labels, err := j.labels()
	if err != nil || strings.Join(labels, " ") != strings.Join(lookup(t, "cb").Labels(dataset.DPT), " ") {
		t.Errorf("labels %v (%v)", labels, err)
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
	for want, change := range map[string]func(s *Settings){
		`task rte is there twice in "rte,cb,RTE"`:   func(s *Settings) { s.Task = "rte,cb,RTE" },
		`unknown task "squad"`:                      func(s *Settings) { s.Task = "rte,squad" },
		"--mixture: half, want one of proportional": func(s *Settings) { s.Task, s.Mixture = "rte,cb", "half" },
		"--mixture: equal, want several tasks":      func(s *Settings) { s.Mixture = "equal" },
	} {
		s := testSettings()
		change(&s)
		if _, err := Load(s, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// TestDefaultsCutNothing: the embedded data, byte by byte as the embedded model reads it, is within
// the default lengths.
func TestDefaultsCutNothing(t *testing.T) {
	for _, template := range []dataset.Template{dataset.DPT, dataset.T5} {
		s := DefaultSettings()
		s.Task, s.Template = strings.Join(dataset.Tasks(), ","), string(template)
		job, err := Load(s, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		fits := func(text, flag string, limit int) {
			if n := len(job.Tokenizer.Encode(text)) + 1; n > limit {
				t.Errorf("template %s: %d tokens with </s>, want at most the %d of --%s: %s", template, n, limit, flag, text)
			}
		}
		for _, examples := range [][]dataset.Example{job.Planner.Examples, job.Eval} {
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
