package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/jobflags"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/lab/report"
	"github.com/dptune/dpt/coordinator/lab/sweep"
)

// sweepPoll is the time between two looks at the queue.
const sweepPoll = 500 * time.Millisecond

// sweepFlags are the flags of dpt sweep, except those of the jobs' shared settings.
type sweepFlags struct {
	coordFlags
	preset, out                        string
	models, tasks, methods             []string
	seeds, shots, lengths, bottlenecks []string
	lrs                                []string
	halving, rungs                     int
	nodes                              int
	log                                cli.Log
}

// runSweep runs an experiment's jobs and renders its tables and figures.
func runSweep(ctx context.Context, args []string, std cli.IO) error {
	f := sweepFlags{preset: "table1", log: cli.DefaultLog(), nodes: max(1, runtime.NumCPU()/2), rungs: 3}
	s := job.DefaultSettings()
	cmd := cli.NewCommand("dpt sweep", "--preset NAME --out DIR [flags]",
		"Runs one of the paper's experiments, or a grid of your own: many jobs, one after another on the same "+
			"workers, which load the backbone once. Each run that ends adds a line to DIR/results.jsonl; tables and "+
			"figures are rendered as runs end. If it is stopped or killed, the same command continues from there.")
	cmd.Notes = "Presets, with the paper's tasks, sizes and three seeds: table1 (Tables 1, 3 and 4), fewshot " +
		"(figure 4), bottleneck (5 and 10), length (6 and 11), short (7), overparam (8), rank (3 and 9, one seed), " +
		"custom (dpt on all tasks; give the lists you want). " + embeddedNote
	cmd.Examples = []cli.Example{
		{Text: "Table 1 on the embedded model and data, with workers on this machine:",
			Command: "dpt sweep --preset table1 --out runs/table1"},
		{Text: "The effect of the prompt's length, on a cluster:",
			Command: "dpt sweep --preset length --models /models/t5-large --data /data/superglue " +
				"--coord trainer:7070 --insecure --out runs/length"},
	}
	g := cmd.Group("Experiment")
	g.Choice(&f.preset, "preset", "the experiment", sweep.Presets...)
	g.Strings(&f.models, "models", "backbones, `DIR,...`", cli.NotEmpty).DefaultText("the embedded tiny T5")
	g.Strings(&f.tasks, "tasks", "tasks, `TASK,...`", jobflags.CheckTask).DefaultText("the preset's")
	g.Strings(&f.methods, "methods", "methods, `METHOD,...` of "+strings.Join(sweep.Methods(), ", "),
		cli.OneOf(sweep.Methods()...)).DefaultText("the preset's")
	g.Strings(&f.seeds, "seeds", "seeds, `N,...`", number(0)).DefaultText("the preset's")
	g.Strings(&f.shots, "shots", "sizes of the training set, `K,...`; 0 is all", number(0)).DefaultText("the preset's")
	g.Strings(&f.lengths, "prompt-lengths", "virtual tokens, `C,...`, for every method with a prompt but respt-10",
		number(1)).DefaultText("the preset's")
	g.Strings(&f.bottlenecks, "bottlenecks", "`B,...`, for dpt", number(1)).DefaultText("the preset's")
	g.Strings(&f.lrs, "lrs", "learning rates, `[METHOD=]X,...`: candidates for all methods, or one method's own",
		checkRate).DefaultText("--lr")
	g.Int(&f.halving, "halving", "successive halving among the sizes and learning rates of each method: only the "+
		"best one in `ETA` goes on from rung to rung; 0 trains all of them in full", cli.Between(0, 64))
	g.Int(&f.rungs, "rungs",
		"`N` rungs of halving: the first trains with 1/ETA^(N-1) of the epochs or steps, the last with all",
		cli.Between(2, 16))
	g.String(&f.out, "out", "`DIR` for results.jsonl, report.md, tables.csv and the figures", cli.NotEmpty).Required()
	g = cmd.Group("Cluster")
	f.bind(g)
	f.coord = nil
	g.Int(&f.nodes, "nodes", "without --coord: workers to start on this machine", cli.Between(1, 1<<8))
	f.security.Bind(cmd.Group("Security"))
	shared := jobflags.BindShared(cmd, &s)
	f.log.Bind(cmd.Group("Logging"))
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if f.models == nil {
		embeddedSettings(cmd, &s)
	}
	if err := shared.Check(); err != nil {
		return err
	}
	if s.EvalEvery < 0 {
		return cmd.Usagef("--eval-every -1: a sweep compares evaluations, want 0 or a number of steps")
	}
	if cmd.Changed("nodes") && len(f.coord) > 0 {
		return cmd.Usagef("--nodes and --coord, want one of them: workers on this machine or a coordinator that " +
			"has its own")
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	if err := jobflags.Absolute(&s); err != nil {
		return err
	}
	grid, err := f.grid(cmd, s)
	if err != nil {
		return err
	}
	if err := sweep.WriteGrid(f.out, grid); err != nil {
		return err
	}
	results, err := sweep.Open(f.out)
	if err != nil {
		return err
	}
	defer results.Close()
	logger := f.log.Logger(std.Err)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue, stop, err := f.queue(ctx, cancel, logger, std)
	if err != nil {
		return err
	}
	defer stop()
	runner := &sweep.Runner{
		Jobs: queue, Grid: grid, Results: results, Logger: logger, Poll: sweepPoll,
		Finished: func(done, total int) {
			if _, err := report.Write(f.out); err != nil && done > 0 {
				logger.Warn("report not rendered", "reason", err)
			}
		},
	}
	if len(f.coord) > 0 {
		runner.Prefix = filepath.Base(f.out) + "."
	}
	ran := runner.Run(ctx)
	if errors.Is(ran, context.Cause(ctx)) && ctx.Err() != nil {
		return fmt.Errorf("%w; %d of %d runs are finished, and the same command goes on from there: dpt sweep %s",
			ran, results.Len(), grid.Total(), strings.Join(args, " "))
	}
	path, err := report.Write(f.out)
	if err := errors.Join(ran, err); err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Out, path)
	return err
}

// Settings of runs on the embedded model where no flags give them. A hundred epochs of each of
// eight tasks would take hours, and the sources and targets are short.
const (
	embeddedSteps, embeddedEvery = 50, 25
	embeddedTarget               = 8
	embeddedTuning               = 10 * job.FineTuningLR // full fine-tuning's learning rate: there are few steps
)

var embeddedNote = fmt.Sprintf("On the embedded model, prompts of 20 tokens and more are a fifth as long. Unless "+
	"flags say otherwise, runs have %d steps (--steps) and are evaluated every %d (--eval-every) with outputs of at "+
	"most %d tokens (--max-target-length), and ft has the learning rate %g (--lrs).",
	embeddedSteps, embeddedEvery, embeddedTarget, embeddedTuning)

func embeddedSettings(cmd *cli.Command, s *job.Settings) {
	if !cmd.Changed("steps") && !cmd.Changed("epochs") {
		s.Steps = embeddedSteps
		if !cmd.Changed("eval-every") {
			s.EvalEvery = embeddedEvery
		}
	}
	if !cmd.Changed("max-target-length") {
		s.MaxTargetLength = embeddedTarget
	}
}
