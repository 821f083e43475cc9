package job_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/internal/jobtest"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/lab/tinyrandom"
)

// tinyDir is the directory of a tiny model with one file changed.
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

// rteLine is a line of RTE's training split.
const rteLine = `{"premise":"a","hypothesis":"b","label":"entailment","idx":1}`

func TestLoadRefuses(t *testing.T) {
	malformed := jobtest.RTE(t, rteLine, `{"premise":7}`)
	init := filepath.Join(t.TempDir(), "init.safetensors")
	misshapen := checkpoint.Prompt{Length: 2, Dim: 3, Embeddings: make([]float32, 6)}
	if err := checkpoint.WritePrompt(init, misshapen); err != nil {
		t.Fatal(err)
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	for name, c := range map[string]struct {
		change func(s *job.Settings)
		wants  []string // in the error
	}{
		"mis-shaped model": {
			func(s *job.Settings) { s.Model = tinyDir(t, "config.json", replaced(`"d_ff": 192`, `"d_ff": 200`)) },
			[]string{"wi.weight", "shape [192 64], want [200 64]"},
		},
		"truncated model": {
			func(s *job.Settings) { s.Model = tinyDir(t, "model.safetensors", half) },
			[]string{"truncated"},
		},
		"another model": {
			func(s *job.Settings) { s.Model = tinyDir(t, "config.json", replaced(`"t5"`, `"bert"`)) },
			[]string{`model_type is "bert"`, `want "t5"`},
		},
		"missing tokenizer": {
			func(s *job.Settings) {
				s.Model = tinyDir(t, "tokenizer_config.json", replaced("ByT5Tokenizer", "NoTokenizer"))
			},
			[]string{"tokenizer"},
		},
		"malformed line": {
			func(s *job.Settings) { s.Data = malformed },
			[]string{"train.jsonl:2", "premise", "want a string"},
		},
		"missing data": {
			func(s *job.Settings) { s.Data = "nowhere" },
			[]string{"nowhere"},
		},
		"unlabeled split": {
			func(s *job.Settings) { s.EvalSplit = "test" },
			[]string{`split "test"`, "no labels"},
		},
		"init of another shape": {
			func(s *job.Settings) { s.Init = init },
			[]string{"--init", "prompt is [2 3], want [100 64]"},
		},
		"setting out of range": {
			func(s *job.Settings) { s.MicroBatch = 99 },
			[]string{"--micro-batch: 99, want 1 to the batch size, 16"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jobtest.TryLoad(c.change)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range c.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want one with %q", err, want)
				}
			}
		})
	}
}
