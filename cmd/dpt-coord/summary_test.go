package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
)

// The summary puts the best prompt's metrics beside those before training and those of always the
// same answer, where there is such an answer.
func TestSummary(t *testing.T) {
	res := &coordinator.Result{
		Steps: 40, PromptStep: 20, Out: "out", Epochs: []fsm.EpochStat{{}},
		Evaluations: []fsm.Evaluation{
			{Step: 0, Split: "val", Examples: 8, Loss: 2, Metrics: json.RawMessage(`{"accuracy":25}`)},
			{Step: 20, Split: "val", Examples: 8, Loss: 1, Metrics: json.RawMessage(`{"accuracy":87.5}`)},
			{Step: 40, Split: "val", Examples: 8, Loss: 1.5, Metrics: json.RawMessage(`{"accuracy":75}`)},
		},
		Majority: dataset.Metrics{{Name: "accuracy", Value: 50}},
	}
	var text, js bytes.Buffer
	if err := summarize(&text, job.DefaultSettings(), res, false); err != nil {
		t.Fatal(err)
	}
	if want := "25.00 -> 87.50  (50.00 for a constant answer)\n"; !strings.Contains(text.String(), want) {
		t.Errorf("the summary is\n%swant %q in it", text.String(), want)
	}
	if err := summarize(&js, job.DefaultSettings(), res, true); err != nil {
		t.Fatal(err)
	}
	want := `"eval_before":{"accuracy":25},"eval_after":{"accuracy":87.5},"eval_majority":{"accuracy":50}`
	if !strings.Contains(js.String(), want) {
		t.Errorf("as JSON it is %s, want %s in it", js.String(), want)
	}
	res.Majority = nil
	text.Reset()
	if err := summarize(&text, job.DefaultSettings(), res, false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "25.00 -> 87.50\n") {
		t.Errorf("without such an answer the summary is\n%s", text.String())
	}
}
