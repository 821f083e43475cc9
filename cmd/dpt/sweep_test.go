package main

import (
	"testing"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/jobflags"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/lab/sweep"
)

// TestSweepOfTheEmbeddedModel: without --models the paper's sizes become those of the embedded
// model, except where flags give them.
func TestSweepOfTheEmbeddedModel(t *testing.T) {
	paper := job.DefaultSettings()
	for _, c := range []struct {
		name          string
		flags         sweepFlags
		args          []string
		steps, every  int64
		target        int
		length, short int     // virtual tokens of dpt and of the short residual prompt
		tuning        float64 // full fine-tuning's own learning rate
	}{
		{"embedded", sweepFlags{}, nil, embeddedSteps, embeddedEvery, embeddedTarget, 20, 10, embeddedTuning},
		{"flags", sweepFlags{lengths: []string{"7"}, lrs: []string{"ft=0.5", "dpt=1"}},
			[]string{"--steps", "7", "--max-target-length", "3"}, 7, paper.EvalEvery, 3, 7, 10, 0.5},
		{"epochs", sweepFlags{},
			[]string{"--epochs", "2", "--lr", "0.1"}, 0, paper.EvalEvery, embeddedTarget, 20, 10, 0},
		{"own model", sweepFlags{models: []string{"m"}}, nil, 0, paper.EvalEvery, paper.MaxTargetLength, 100, 10, 0},
	} {
		cmd, s := cli.NewCommand("dpt sweep", "", ""), job.DefaultSettings()
		shared := jobflags.BindShared(cmd, &s)
		if err := cmd.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		c.flags.preset = "table1"
		if c.flags.models == nil {
			embeddedSettings(cmd, &s)
		}
		if err := shared.Check(); err != nil {
			t.Fatal(err)
		}
		g, err := c.flags.grid(cmd, s)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Settings; got.Steps != c.steps || got.EvalEvery != c.every || got.MaxTargetLength != c.target {
			t.Errorf("%s: %d steps, an evaluation every %d, targets of %d; want %d, %d, %d",
				c.name, got.Steps, got.EvalEvery, got.MaxTargetLength, c.steps, c.every, c.target)
		}
		has := func(want sweep.Prompt) {
			for _, p := range g.Prompts {
				if p.Method == want.Method && p.Length == want.Length && (want.Method != "ft" || p.LR == want.LR) {
					return
				}
			}
			t.Errorf("%s: prompts %+v, want %+v among them", c.name, g.Prompts, want)
		}
		has(sweep.Prompt{Method: "dpt", Length: c.length})
		has(sweep.Prompt{Method: "respt", Length: c.short})
		has(sweep.Prompt{Method: "ft", LR: c.tuning})
	}
}
