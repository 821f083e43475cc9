package worker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/prompt"
)

// smallTasks is a small data set, whose evaluation takes little time.
var smallTasks = filepath.Join("..", "dataset", "testdata", "tasks")

// Every method trains on a cluster: one and two workers write the same bytes, every parameter
// changes, and the file holds what was trained, so that another job can start from it.
func TestMethodsTrain(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	for _, method := range prompt.Names() {
		t.Run(method, func(t *testing.T) {
			s := settings()
			s.Method, s.EvalEvery, s.Data = method, 0, smallTasks
			s.Bottleneck = 0
			if method == "respt" {
				s.Bottleneck = 6
			}
			one, two := train(t, s, 1), train(t, s, 2)
			if !bytes.Equal(readFile(t, one, "final.safetensors"), readFile(t, two, "final.safetensors")) {
				t.Error("one and two workers end with different bytes")
			}
			own, err := job.Load(s, testLogger(t, "job", nil))
			if err != nil {
				t.Fatal(err)
			}
			p, err := checkpoint.ReadPrompt(filepath.Join(one, "final.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			cfg, params, ok := prompt.FromFile(p)
			if !ok || cfg != own.Spec.Prompt() || len(params) != own.Spec.Parameters {
				t.Fatalf("the file holds %+v (%v), want %+v", cfg, ok, own.Spec.Prompt())
			}
			for _, part := range cfg.Tensors() {
				moved := false
				for i := part.Offset; i < part.Offset+part.Size(); i++ {
					moved = moved || params[i] != own.Initial.Params[i]
				}
				if !moved {
					t.Errorf("%s is as it was before training", part.Name)
				}
			}
			adapter, err := checkpoint.ReadPrompt(filepath.Join(one, "adapter"))
			if err != nil || adapter.Length != s.PromptLength {
				t.Errorf("adapter: %v", err)
			}
			if s := readJob(t, one).Settings; s.Parameters != len(params) || s.Method != method {
				t.Errorf("job.json has %d parameters of %s, want %d of %s", s.Parameters, s.Method, len(params), method)
			}
			lines := strings.Split(strings.TrimSpace(string(readFile(t, one, "eval.jsonl"))), "\n")
			if len(lines) != 3 {
				t.Errorf("%d evaluations, want 3", len(lines))
			}
			for _, line := range lines {
				var e struct{ Probe *prompt.Probe }
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatal(err)
				}
				if (e.Probe != nil) != (method == "svd") {
					t.Errorf("evaluation %s, want a probe with svd alone", line)
				} else if e.Probe != nil && e.Probe.Positive+e.Probe.Negative != 5 {
					t.Errorf("probe %+v, want 5 entries", *e.Probe)
				}
			}
			s.Init, s.Steps = filepath.Join(one, "final.safetensors"), 1
			next, err := job.Load(s, testLogger(t, "job", nil))
			if err != nil || fmt.Sprint(next.Initial.Params) != fmt.Sprint(params) {
				t.Errorf("the next job does not go on from the file (%v)", err)
			}
		})
	}
}

// A prompt for two tasks: one and two workers write the same bytes, and both tasks are evaluated.
func TestMixtureTrains(t *testing.T) {
	s := settings()
	s.Task, s.Shots, s.EvalEvery, s.Data = "copa,cb", 6, 0, smallTasks
	var first []byte
	for _, workers := range []int{1, 2} {
		out := train(t, s, workers)
		if got := readFile(t, out, "prompt.safetensors"); first == nil {
			first = got
		} else if !bytes.Equal(first, got) {
			t.Error("one and two workers end with different bytes")
		}
		lines := strings.Split(strings.TrimSpace(string(readFile(t, out, "eval.jsonl"))), "\n")
		for _, line := range lines {
			var e outputs.EvalLine
			var metrics map[string]float64
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(e.Metrics, &metrics); err != nil {
				t.Fatal(err)
			}
			want := (metrics["copa.accuracy"] + (metrics["cb.accuracy"]+metrics["cb.f1_macro"])/2) / 2
			if len(metrics) != 3 || e.Score < want-1e-9 || e.Score > want+1e-9 {
				t.Errorf("evaluation %s, want three metrics and the score %v", line, want)
			}
		}
		if len(lines) != 3 || readJob(t, out).Settings.Task != "copa,cb" {
			t.Errorf("%d evaluations, want 3", len(lines))
		}
	}
}
