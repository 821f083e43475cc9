package job

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/lab/tinyrandom"
)

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
		"malformed line":  {func(s *Settings) { s.Data = data }, []string{"train.jsonl:2", "premise", "want a string"}},
		"missing data":    {func(s *Settings) { s.Data = "nowhere" }, []string{"nowhere"}},
		"unlabeled split": {func(s *Settings) { s.EvalSplit = "test" }, []string{`split "test"`, "no labels"}},
		"init of another shape": {func(s *Settings) { s.Init = init },
			[]string{"--init", "prompt is [2 3], want [100 64]"}},
		"setting out of range": {func(s *Settings) { s.MicroBatch = 99 }, []string{"--micro-batch: 99, want 1 to the batch size, 16"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := testSettings()
			c.change(&s)
			_, err := Load(s, slog.New(slog.DiscardHandler))
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
	job, err := Load(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []ids.Step{0, 1, ids.Step(job.Spec.Steps)} {
		if job.EvalDue(step) {
			t.Errorf("evaluation is due at step %d without a split to evaluate", step)
		}
	}
	s.Patience = 2
	if _, err := Load(s, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "--patience: 2, want 0, as the data has no split to evaluate") {
		t.Errorf("patience without evaluations: %v", err)
	}
	s.EvalSplit = "train"
	if job, err = Load(s, slog.New(slog.DiscardHandler)); err != nil || !job.EvalDue(0) || !job.EvalDue(ids.Step(job.Spec.Steps)) || job.Spec.EvalExamples != 1 {
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
