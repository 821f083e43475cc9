package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/mini"
)

// TestPromptLearns tunes a prompt for the embedded model with two workers until it can do a task:
// whether a speaker believes what a clause says, its opposite, or neither (CommitmentBank).
// Pre-training has seen neither the format nor the labels nor the people named, and each label has
// a third of the examples. A wrong gradient, optimizer, sampler or metric ends below the wanted
// score.
//
// This is mostly arithmetic, so the examples are few. The first batch of seed 1 lacks a label: a
// sampler that repeats it fails too.
func TestPromptLearns(t *testing.T) {
	if testing.Short() {
		t.Skip("training on the embedded model: skipped with -short")
	}
	t.Parallel()
	const want = 98 // per cent
	sizes := mini.Standard
	sizes.Val = 96
	dir := t.TempDir()
	data, out := filepath.Join(dir, "data"), filepath.Join(dir, "out")
	if err := os.CopyFS(data, mini.New(mini.Seed, sizes)); err != nil {
		t.Fatal(err)
	}
	job := start(t, "dpt-coord", "--local", "--nodes", "2", "--data", data, "--task", "cb", "--out", out,
		"--prompt-length", "20", "--steps", "40", "--batch-size", "4", "--micro-batch", "2", "--max-target-length", "8",
		"--eval-every", "40", "--seed", "1", "--log-format", "json")
	job.mustEnd(0)
	var sum summary
	if err := json.Unmarshal([]byte(job.stdout.String()), &sum); err != nil {
		t.Fatalf("the summary: %v: %s", err, job.stdout.String())
	}
	accuracy := func(raw json.RawMessage) float64 {
		var m dataset.Metrics
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		v, ok := m.Get("accuracy")
		if !ok {
			t.Fatalf("an evaluation has metrics %s, want accuracy", raw)
		}
		return v
	}
	before, after := accuracy(sum.EvalBefore), accuracy(sum.EvalAfter)
	t.Logf("accuracy %.2f before, %.2f after %d steps; a constant answer: %v",
		before, after, sum.Steps, sum.EvalMajority)
	if majority := sum.EvalMajority.Primary(); majority > 40 {
		t.Errorf("a constant answer scores %.2f, want about 33: the labels are not balanced", majority)
	}
	if before > want-10 {
		t.Errorf("accuracy %.2f before training, want at most %d: nothing is left to learn", before, want-10)
	}
	if after < want {
		t.Errorf("accuracy %.2f after %d steps, want at least %d", after, sum.Steps, want)
	}
}
