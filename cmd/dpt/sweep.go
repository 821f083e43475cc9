package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/jobflags"
	"github.com/dptune/dpt/cmd/internal/localworkers"
	"github.com/dptune/dpt/cmd/internal/tlsconf"
	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/lab/report"
	"github.com/dptune/dpt/coordinator/lab/sweep"
	"github.com/dptune/dpt/dataset"
)

// sweepPoll is how often the queue is looked at.
const sweepPoll = 500 * time.Millisecond

// sweepFlags are what dpt sweep takes beside the jobs' shared settings.
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
		"Runs one of the paper's experiments, or a grid of your own: many jobs, one after another on the same workers, which load the backbone once. Each run that ends adds a line to DIR/results.jsonl; "+
			"tables and figures are rendered as runs end. Stopped or killed, the same command goes on where it was.")
	cmd.Notes = "Presets, with the paper's tasks, sizes and three seeds: table1 (Tables 1, 3 and 4), fewshot (figure 4), bottleneck (5 and 10), length (6 and 11), short (7), overparam (8), rank (3 and 9, one seed), custom (dpt on all tasks; give the lists you want). " + embeddedNote
	cmd.Examples = []cli.Example{
		{Text: "Table 1 on the embedded model and data, with workers on this machine:", Command: "dpt sweep --preset table1 --out runs/table1"},
		{Text: "The effect of the prompt's length, on a cluster:", Command: "dpt sweep --preset length --models /models/t5-large --data /data/superglue --coord trainer:7070 --insecure --out runs/length"},
	}
	g := cmd.Group("Experiment")
	g.Choice(&f.preset, "preset", "the experiment", sweep.Presets...)
	g.Strings(&f.models, "models", "backbones, `DIR,...`", cli.NotEmpty).DefaultText("the embedded tiny T5")
	g.Strings(&f.tasks, "tasks", "tasks, `TASK,...`", jobflags.KnownTask).DefaultText("the preset's")
	g.Strings(&f.methods, "methods", "methods, `METHOD,...` of "+strings.Join(sweep.Methods(), ", "), cli.OneOf(sweep.Methods()...)).DefaultText("the preset's")
	g.Strings(&f.seeds, "seeds", "seeds, `N,...`", number(0)).DefaultText("the preset's")
	g.Strings(&f.shots, "shots", "sizes of the training set, `K,...`; 0 is all", number(0)).DefaultText("the preset's")
	g.Strings(&f.lengths, "prompt-lengths", "virtual tokens, `C,...`, for every method with a prompt but respt-10", number(1)).DefaultText("the preset's")
	g.Strings(&f.bottlenecks, "bottlenecks", "`B,...`, for dpt", number(1)).DefaultText("the preset's")
	g.Strings(&f.lrs, "lrs", "learning rates, `[METHOD=]X,...`: candidates for all methods, or one method's own", learningRate).DefaultText("--lr")
	g.Int(&f.halving, "halving", "successive halving among the sizes and learning rates of each method: only the best one in `ETA` goes on from rung to rung; 0 trains all of them in full", cli.Between(0, 64))
	g.Int(&f.rungs, "rungs", "`N` rungs of halving: the first trains with 1/ETA^(N-1) of the epochs or steps, the last with all", cli.Between(2, 16))
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
		return cmd.Usagef("--nodes and --coord, want one of them: workers on this machine or a coordinator that has its own")
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
	runner := &sweep.Runner{Jobs: queue, Grid: grid, Results: results, Logger: logger, Poll: sweepPoll, Finished: func(done, total int) {
		if _, err := report.Write(f.out); err != nil && done > 0 {
			logger.Warn("report not rendered", "reason", err)
		}
	}}
	if len(f.coord) > 0 {
		runner.Prefix = filepath.Base(f.out) + "."
	}
	ran := runner.Run(ctx)
	if errors.Is(ran, context.Cause(ctx)) && ctx.Err() != nil {
		return fmt.Errorf("%w; %d of %d runs are finished, and the same command goes on from there: dpt sweep %s", ran, results.Len(), grid.Total(), strings.Join(args, " "))
	}
	path, err := report.Write(f.out)
	if err := errors.Join(ran, err); err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Out, path)
	return err
}

// What runs on the embedded model have where neither flags nor the paper's epochs say how long they are: a hundred epochs of each of eight tasks are hours, and
// its sources and targets are short.
const (
	embeddedSteps, embeddedEvery = 50, 25
	embeddedTarget               = 8
	embeddedTuning               = 10 * job.FineTuningLR // full fine-tuning's learning rate: there are few steps
)

var embeddedNote = fmt.Sprintf("On the embedded model prompts of 20 tokens and more are a fifth as long, and unless flags say otherwise runs have %d steps (--steps), are evaluated every %d (--eval-every) with outputs of at most %d tokens (--max-target-length), and ft learns at %g (--lrs).",
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

// number wants a whole number of at least low.
func number(low uint64) cli.Check[string] {
	return func(text string) error {
		if n, err := strconv.ParseUint(text, 10, 63); err != nil || n < low {
			return fmt.Errorf("want whole numbers of at least %d", low)
		}
		return nil
	}
}

// learningRate wants X or METHOD=X.
func learningRate(text string) error {
	_, err := rate(text)
	return err
}

func rate(text string) (r sweep.Rate, err error) {
	method, x, own := strings.Cut(text, "=")
	if !own {
		method, x = "", text
	}
	r.Method = method
	if r.LR, err = strconv.ParseFloat(x, 64); err != nil || !(r.LR > 0) || r.LR > 1e6 {
		return r, errors.New("want positive numbers, or METHOD=X")
	}
	if own && !slices.Contains(job.Methods(), method) {
		return r, fmt.Errorf("want METHOD one of %s", strings.Join(job.Methods(), ", "))
	}
	return r, nil
}

// numbers are texts that number has checked.
func numbers(texts []string) []int {
	list := make([]int, len(texts))
	for i, t := range texts {
		list[i], _ = strconv.Atoi(t)
	}
	return list
}

// grid is the preset's with the user's lists in place of its own, and the settings that all runs share.
func (f *sweepFlags) grid(cmd *cli.Command, s job.Settings) (sweep.Grid, error) {
	models := []string{""}
	for i, m := range f.models {
		abs, err := filepath.Abs(m)
		if err != nil {
			return sweep.Grid{}, fmt.Errorf("--models %s: %w", m, err)
		}
		models = append(models[:i], abs)
	}
	g, err := sweep.Preset(f.preset, models)
	if err != nil {
		return g, err
	}
	if f.tasks != nil {
		g.Tasks = nil
		for _, name := range f.tasks {
			t, err := dataset.Lookup(name)
			if err != nil {
				return g, err
			}
			g.Tasks = append(g.Tasks, t.Name())
		}
	}
	if f.methods != nil {
		if err := g.RestrictMethods(f.methods); err != nil {
			return g, err
		}
	}
	if f.models == nil {
		g.ShortenPrompts()
	}
	if f.seeds != nil {
		g.Seeds = nil
		for _, n := range numbers(f.seeds) {
			g.Seeds = append(g.Seeds, uint64(n))
		}
	}
	if f.shots != nil {
		g.Shots = numbers(f.shots)
	}
	if f.lengths != nil {
		g.VaryLengths(numbers(f.lengths))
	}
	if f.bottlenecks != nil {
		g.VaryBottlenecks(numbers(f.bottlenecks))
	}
	var rates []sweep.Rate
	for _, text := range f.lrs {
		r, err := rate(text)
		if err != nil {
			return g, err
		}
		rates = append(rates, r)
	}
	tuning := func(r sweep.Rate) bool { return r.Method == "" || r.Method == job.FineTuning }
	if f.models == nil && !cmd.Changed("lr") && !slices.ContainsFunc(rates, tuning) {
		rates = append(rates, sweep.Rate{Method: job.FineTuning, LR: embeddedTuning})
	}
	g.VaryLearningRates(rates)
	if f.halving > 0 {
		g.Halving = &sweep.Halving{Eta: f.halving, Rungs: f.rungs}
	} else if cmd.Changed("rungs") {
		return g, cmd.Usagef("--rungs without --halving, want both or none")
	}
	s.Model, s.Task, s.Method, s.Shots, s.Seed = "", "", "", 0, 0 // each run has its own
	g.Settings = s
	if err := g.Validate(); err != nil {
		return g, cmd.Usagef("%s", err)
	}
	return g, nil
}

// queue is the coordinator's that --coord names, or of one that runs here with workers of its own until stop.
func (f *sweepFlags) queue(ctx context.Context, giveUp context.CancelCauseFunc, logger *slog.Logger, std cli.IO) (q *remoteQueue, stop func(), err error) {
	if len(f.coord) > 0 {
		secure, err := f.security.Open(slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, nil, err
		}
		return &remoteQueue{addrs: f.coord, creds: secure.ClientCredentials("the coordinator", false), logger: logger}, func() {}, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen for workers: %w", err)
	}
	jobsLogger := logger.With("from", "coordinator")
	if !logger.Enabled(ctx, slog.LevelDebug) {
		jobsLogger = slog.New(warnings{logger.Handler()}).With("from", "coordinator")
	}
	cfg := coordinator.Config{Serve: true, Nodes: f.nodes, MinNodes: 1, Listener: listener, Out: filepath.Join(f.out, "runs"), DataDir: filepath.Join(f.out, "state"),
		CommitEvery: 1, CommitWindow: 1, HeartbeatTimeout: 5 * time.Second, StepTimeout: 10 * time.Minute, Version: cli.Version(), Logger: jobsLogger}
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, err := coordinator.Run(runCtx, cfg); err != nil {
			giveUp(err)
		}
	}()
	workers := localworkers.Start(runCtx, giveUp, f.nodes, listener.Addr().String(), &tlsconf.Flags{}, f.log, std.Err)
	return &remoteQueue{addrs: []string{listener.Addr().String()}, creds: insecure.NewCredentials(), logger: logger}, func() {
		workers.Stop()
		cancel()
		<-ended
	}, nil
}

// warnings passes on what is at least a warning: what a coordinator says of each of many short jobs is too much.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}
func (w warnings) WithAttrs(as []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(as)} }
func (w warnings) WithGroup(name string) slog.Handler    { return warnings{w.Handler.WithGroup(name)} }

// remoteQueue is a coordinator's queue over gRPC. It waits while the coordinator is away.
type remoteQueue struct {
	addrs  []string
	creds  credentials.TransportCredentials
	logger *slog.Logger
	said   time.Time
}

// again is how long a queue that is away is left alone, sayAway how often that is mentioned.
const (
	again   = 500 * time.Millisecond
	sayAway = 30 * time.Second
)

func patiently[T any](ctx context.Context, q *remoteQueue, question func(context.Context, grpc.ClientConnInterface) (T, error)) (T, error) {
	for {
		answer, err := askAt(ctx, q.addrs, q.creds, question)
		if err == nil || !away(err) || ctx.Err() != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return answer, err
		}
		if time.Since(q.said) > sayAway {
			if !q.said.IsZero() {
				q.logger.Warn("no coordinator; trying again until it is there", "reason", err)
			}
			q.said = time.Now()
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
}

// Submit implements sweep.Jobs.
func (q *remoteQueue) Submit(ctx context.Context, name string, s job.Settings) error {
	request, err := s.Request()
	if err != nil {
		return err
	}
	_, err = patiently(ctx, q, func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.Job, error) {
		return coordpb.NewJobsClient(c).Submit(ctx, &coordpb.SubmitJob{Name: name, Settings: request})
	})
	return err
}

// List implements sweep.Jobs.
func (q *remoteQueue) List(ctx context.Context, names []string) ([]*coordpb.Job, error) {
	list, err := patiently(ctx, q, func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.JobList, error) {
		return coordpb.NewJobsClient(c).List(ctx, &coordpb.ListJobs{Evaluations: true, Names: names})
	})
	if err != nil {
		return nil, err
	}
	return list.Jobs, nil
}
