package coordinator

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/lab/tinyrandom"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// tinyDir is the model with one file changed.
func tinyDir(t *testing.T, file string, change func([]byte) []byte) string {
	t.Helper()
	dir := tinyrandom.Dir(t)
	path := filepath.Join(dir, file)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func replaced(from, to string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
}

func TestLoadJobRefuses(t *testing.T) {
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "RTE"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "RTE", "train.jsonl"), []byte("{\"premise\":\"a\",\"hypothesis\":\"b\",\"label\":\"entailment\",\"idx\":1}\n{\"premise\":7}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	init := filepath.Join(t.TempDir(), "init.safetensors")
	if err := checkpoint.WritePrompt(init, checkpoint.Prompt{Length: 2, Dim: 3, Embeddings: make([]float32, 6)}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(s *Settings)
		says   []string
	}{
		"mis-shaped model": {func(s *Settings) { s.Model = tinyDir(t, "config.json", replaced(`"d_ff": 192`, `"d_ff": 200`)) },
			[]string{"wi.weight", "shape [192 64], want [200 64]"}},
		"truncated model": {func(s *Settings) {
			s.Model = tinyDir(t, "model.safetensors", func(b []byte) []byte { return b[:len(b)/2] })
		}, []string{"truncated"}},
		"another model": {func(s *Settings) { s.Model = tinyDir(t, "config.json", replaced(`"t5"`, `"bert"`)) }, []string{`model_type is "bert"`, `want "t5"`}},
		"missing tokenizer": {func(s *Settings) {
			s.Model = tinyDir(t, "tokenizer_config.json", replaced("ByT5Tokenizer", "NoTokenizer"))
		}, []string{"tokenizer"}},
		"malformed line":  {func(s *Settings) { s.Data = data }, []string{"train.jsonl:2", "premise", "expected a string"}},
		"missing data":    {func(s *Settings) { s.Data = "nowhere" }, []string{"nowhere"}},
		"unlabeled split": {func(s *Settings) { s.EvalSplit = "test" }, []string{`split "test"`, "no labels"}},
		"init of another shape": {func(s *Settings) { s.Init = init },
			[]string{"--init", "prompt is [2 3], want [100 64]"}},
		"setting out of range": {func(s *Settings) { s.MicroBatch = 99 }, []string{"--micro-batch: 99, want 1 to the batch size, 16"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := testSettings()
			c.change(&s)
			_, err := LoadJob(s, quiet())
			if err == nil {
				t.Fatal("accepted")
			}
			for _, says := range c.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("error %q does not say %q", err, says)
				}
			}
		})
	}
}

func TestJobWithoutValidationSplitTrainsWithoutEvaluation(t *testing.T) {
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "RTE"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "RTE", "train.jsonl"), []byte("{\"premise\":\"a\",\"hypothesis\":\"b\",\"label\":\"entailment\",\"idx\":1}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := testSettings()
	s.Data = data
	job, err := LoadJob(s, quiet())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []ids.Step{0, 1, ids.Step(job.Spec.Steps)} {
		if job.EvalDue(step) {
			t.Errorf("evaluation is due at step %d without a split to evaluate", step)
		}
	}
	s.Patience = 2
	if _, err := LoadJob(s, quiet()); err == nil || !strings.Contains(err.Error(), "--patience: 2, want 0, as the data has no split to evaluate") {
		t.Errorf("patience without evaluations: %v", err)
	}
	s.EvalSplit = "train"
	if job, err = LoadJob(s, quiet()); err != nil || !job.EvalDue(0) || !job.EvalDue(ids.Step(job.Spec.Steps)) || job.Spec.EvalExamples != 1 {
		t.Errorf("--eval-split train: %v", err)
	}
}

func TestEvalDue(t *testing.T) {
	for _, c := range []struct {
		every int64
		first bool
		due   []ids.Step
	}{
		{0, true, []ids.Step{0, 4, 8, 10}},
		{0, false, []ids.Step{4, 8, 10}},
		{3, false, []ids.Step{3, 6, 9, 10}},
		{100, true, []ids.Step{0, 10}},
		{-1, false, nil},
	} {
		j := &Job{Spec: Spec{EvalEvery: c.every, EvalFirst: c.first, StepsPerEpoch: 4, Steps: 10}}
		var due []ids.Step
		for step := range ids.Step(11) {
			if j.EvalDue(step) {
				due = append(due, step)
			}
		}
		if len(due) != len(c.due) {
			t.Errorf("every %d: due at %v, want %v", c.every, due, c.due)
			continue
		}
		for i := range due {
			if due[i] != c.due[i] {
				t.Errorf("every %d: due at %v, want %v", c.every, due, c.due)
			}
		}
	}
}

func TestMetricsFileFollowsTheLog(t *testing.T) {
	job, err := LoadJob(testSettings(), quiet())
	if err != nil {
		t.Fatal(err)
	}
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
		file      string
		committed ids.Step
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
			o, err := openOutputs(dir, job, nil, false, c.committed)
			if err != nil {
				t.Fatal(err)
			}
			defer o.close()
			for _, r := range c.recent {
				if r.Step > o.last {
					if err := o.step(r, job.Planner.Plan(r.Step)); err != nil {
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
