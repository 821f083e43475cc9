package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/cmdtest"
	"github.com/dptune/dpt/dataset"
)

func TestEval(t *testing.T) {
	dir := t.TempDir()
	for _, name := range dataset.Tasks() {
		task, err := dataset.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		predictions := filepath.Join(dir, name+".jsonl")
		out := mustRun(t, nil, "eval", "--task", name, "--limit", "3", "--max-target-length", "4",
			"--predictions", predictions)
		var report map[string]any
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%s: %q: %v", name, out, err)
		}
		for _, metric := range task.Metrics() {
			if v, ok := report[metric].(float64); !ok || v < 0 || v > 100 {
				t.Errorf("%s: %s is %v, want a percentage: %s", name, metric, report[metric], out)
			}
		}
		if loss, ok := report["loss"].(float64); !ok || loss <= 0 {
			t.Errorf("%s: loss %v, want a positive number", name, report["loss"])
		}
		if report["task"] != name || report["split"] != "val" || report["template"] != "dpt" ||
			report["examples"] != 3.0 {
			t.Errorf("%s: report %s", name, out)
		}
		for _, p := range jsonLines[prediction](t, string(cmdtest.ReadFile(t, predictions))) {
			if p.ID == "" || (p.Target == "") == (p.Answers == nil) {
				t.Errorf("%s: prediction %+v, want an id and a target or answers", name, p)
			}
		}
	}
}

// Task and template come from the prompt's file where they are not given.
func TestEvalTakesTaskFromPrompt(t *testing.T) {
	p := writePrompt(t, t.TempDir(), "prompt.safetensors", newPrompt(t))
	out := mustRun(t, nil, "eval", "--prompt", p, "--limit", "2", "--max-target-length", "2", "--split", "train")
	if !strings.Contains(out, `"task":"copa","split":"train","template":"t5","examples":2`) {
		t.Errorf("report %s, want COPA's train split in the t5 template", out)
	}
}

// A prompt for several tasks is evaluated on each.
func TestEvalSeveralTasks(t *testing.T) {
	p := newPrompt(t)
	p.Metadata["task"] = "copa,cb"
	dir := t.TempDir()
	predictions := filepath.Join(dir, "p.jsonl")
	out := mustRun(t, nil, "eval", "--prompt", writePrompt(t, dir, "prompt.safetensors", p), "--limit", "2",
		"--max-target-length", "2", "--predictions", predictions)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"task":"copa"`) || !strings.Contains(lines[1], `"task":"cb"`) ||
		!strings.Contains(lines[1], `"f1_macro"`) {
		t.Errorf("report %s, want a line of COPA and one of CB", out)
	}
	var tasks []string
	for _, p := range jsonLines[prediction](t, string(cmdtest.ReadFile(t, predictions))) {
		tasks = append(tasks, p.Task)
	}
	if got := strings.Join(tasks, " "); got != "copa copa cb cb" {
		t.Errorf("predictions of %s", got)
	}
}

func TestEvalRefusesUnlabeled(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "RTE"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "RTE/test.jsonl", `{"premise":"a","hypothesis":"b","idx":0}`+"\n")
	code, _, errs := dpt(t, nil, "eval", "--task", "rte", "--data", dir, "--split", "test")
	if code != cli.ExitFailed || !strings.Contains(errs, "split test of rte has no labels") {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
}
