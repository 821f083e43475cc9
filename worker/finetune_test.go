package worker_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/t5"
)

// Full fine-tuning on a cluster: one and two workers write the same bytes, every weight changes,
// the loss falls, and the output is a model from which another job can start.
func TestFineTuning(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := settings()
	s.Method, s.Bottleneck, s.LR, s.EvalEvery, s.Epochs = job.FineTuning, 0, 2e-3, 0, 2
	one, two := train(t, s, 1), train(t, s, 2)
	for _, name := range []string{"final/model.safetensors", "model/model.safetensors", "final/tokenizer_config.json"} {
		if !bytes.Equal(readFile(t, one, name), readFile(t, two, name)) {
			t.Errorf("one and two workers end with different bytes of %s", name)
		}
	}
	m, err := checkpoint.OpenModel(filepath.Join(one, "final"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	cfg, err := t5.ParseConfig(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	weights, err := t5.ReadAll(cfg, m)
	if err != nil {
		t.Fatal(err)
	}
	first, err := job.Load(s, testLogger(t, "job", nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range cfg.Parameters(t5.Tied(m)) {
		if at := p.Offset; slices.Equal(weights[at:at+p.Size()], first.Initial.Params[at:at+p.Size()]) {
			t.Errorf("%s is as it was before training", p.Name)
		}
	}
	if s := readJob(t, one).Settings; s.Parameters != len(weights) || s.Method != "ft" ||
		s.PromptLength != 0 || s.InitFrom != "model" {
		t.Errorf("job.json has settings %+v", s)
	}
	var losses []float64
	for line := range strings.Lines(string(readFile(t, one, "eval.jsonl"))) {
		var e outputs.EvalLine
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		losses = append(losses, e.Loss)
	}
	if len(losses) != s.Epochs+1 || losses[s.Epochs] > 0.7*losses[0] {
		t.Errorf("evaluation losses %v, want %d, the last much below the first", losses, s.Epochs+1)
	}
	s.Model = filepath.Join(one, "final")
	next, err := job.Load(s, testLogger(t, "job", nil))
	if err != nil || !slices.Equal(next.Initial.Params, weights) {
		t.Errorf("the next job does not start from the model (%v)", err)
	}
}
