package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/device"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/lab/meter"
	"github.com/dptune/dpt/model/lab/unfused"
	"github.com/dptune/dpt/model/t5"
)

// runBench dispatches to what it should measure.
func runBench(ctx context.Context, args []string, std cli.IO) error {
	verbs := map[string]cli.RunFunc{"step": runBenchStep, "data": runBenchData, "load": runBenchLoad}
	if len(args) == 0 {
		return cli.NewCommand("dpt bench", "", "").Usagef("nothing to measure, want step, data or load")
	}
	switch args[0] {
	case "-h", "--help":
		return cli.InfoRequest(benchOverview)
	case "--version":
		return cli.InfoRequest(func(int) string { return cli.VersionText("dpt", model.Engines()) })
	}
	verb, ok := verbs[args[0]]
	if !ok {
		return cli.NewCommand("dpt bench", "", "").Usagef("found %s, want step, data or load", args[0])
	}
	return verb(ctx, args[1:], std)
}

func benchOverview(width int) string {
	return "Usage: dpt bench step|data|load [flags]\n\n" +
		cli.Wrap("Measures training steps (a batch's losses, and their gradient with respect to the prompt), or "+
			"loading. Beside a step's speed it prints the engine's own limit, measured in the same run on the same "+
			"products, and where the time went.", width) +
		"\nMeasured:\n" +
		"    step    one shape: all sources have the same length\n" +
		"    data    the lengths of real examples, task by task\n" +
		"    load    opening a model\n" +
		"\nExample:\n    dpt bench step --shape t5-base --batch 8 --source-length 256\n"
}

const embeddedShape = "tiny"

// optimizations are the names that --without switches off.
var optimizations = []string{
	"ragged", "frozen", "packing", "absorption", "first-layer", "fused", "target-projection", "shared-passes",
}

// benchFlags are the flags that all measurements share.
type benchFlags struct {
	model      string
	shape      string
	prompt     int
	batch      int
	microBatch int // 0: the whole batch
	without    []string
	device     device.Flags
	passes     int
	time       time.Duration
	json       bool
	options    model.Options
}

// bindModel adds the flags that come before a command's own flags.
func (f *benchFlags) bindModel(cmd *cli.Command) {
	f.shape, f.prompt, f.batch = "t5-base", 100, 8
	g := cmd.Group("Model")
	shapes := append(t5.Shapes(), embeddedShape)
	g.Choice(&f.shape, "shape", "`NAME` of an architecture, with random weights: "+commaList(t5.Shapes())+
		"; or "+embeddedShape+", the embedded model", shapes...)
	g.String(&f.model, "model", "measure the checkpoint in `DIR` instead", cli.ExistingDir)
	g.Int(&f.prompt, "prompt-length", "virtual tokens", cli.AtLeast(1))
	g.Int(&f.batch, "batch", "examples in a step", cli.AtLeast(1))
	g.Int(&f.microBatch, "micro-batch", "examples in a micro-batch, each of which has a gradient of its own; 0 is "+
		"the whole batch", cli.AtLeast(0))
}

// bindMeasurement adds the flags that come after a command's own flags.
func (f *benchFlags) bindMeasurement(cmd *cli.Command) {
	f.time = 10 * time.Second
	f.device.Bind(cmd.Group("Engine"))
	g := cmd.Group("Measurement")
	g.Strings(&f.without, "without", "switch off the optimization `NAME,...`: ragged (sources are padded to "+
		"--source-length, as the paper's code does), frozen (the gradients of all weights are computed too; this "+
		"also switches off absorption and first-layer), packing (weights lie row by row; engine onednn), absorption "+
		"(of short targets' cross-attention), first-layer (what the first encoder layer need not compute), fused "+
		"(residual additions are passes of their own; attention stays one kernel), target-projection (logits are "+
		"computed at padding too, up to the batch's longest target, so that targets of one length cost the same), "+
		"shared-passes (each micro-batch is computed by itself)",
		cli.OneOf(optimizations...))
	g.Duration(&f.time, "time", "measure for `TIME`, and at least three passes", cli.MoreThan(time.Duration(0)))
	g.Int(&f.passes, "passes", "measure `N` passes over the batches instead; 0 goes by --time", cli.AtLeast(0))
	cmd.Group("Output").Bool(&f.json, "json", "print one JSON object rather than tables")
	cmd.Engines = model.Engines()
}

// check checks the flags together. Call it after Parse.
func (f *benchFlags) check(cmd *cli.Command) (err error) {
	if f.model != "" && cmd.Changed("shape") {
		return cmd.Usagef("--model %s and --shape %s, want one of them", f.model, f.shape)
	}
	if f.options, err = f.device.Options(cmd); err != nil {
		return err
	}
	f.options.DisableAbsorption = slices.Contains(f.without, "absorption")
	f.options.DisableFirstLayer = slices.Contains(f.without, "first-layer")
	f.options.DisablePacking = slices.Contains(f.without, "packing")
	f.options.PadTargets = slices.Contains(f.without, "target-projection")
	f.options.TrainWeights = slices.Contains(f.without, "frozen")
	return f.options.Check()
}

func (f *benchFlags) padded() bool { return slices.Contains(f.without, "ragged") }

// bench is an open model whose engine is measured.
type bench struct {
	*model.Backbone
	meter  *meter.Engine
	prompt []float32
	loaded time.Duration
}

// open loads the model, or makes one with random weights.
func (f *benchFlags) open() (*bench, error) {
	b := &bench{}
	f.options.Wrap = func(e engine.Engine) engine.Engine {
		b.meter = meter.New(e)
		if slices.Contains(f.without, "fused") {
			return unfused.New(b.meter)
		}
		return b.meter
	}
	began := time.Now()
	var err error
	switch {
	case f.model != "":
		b.Backbone, err = model.Open(f.model, f.options)
	case f.shape == embeddedShape:
		b.Backbone, err = model.Open("", f.options)
	default:
		b.Backbone, err = model.OpenRandom(f.shape, 1, f.options)
	}
	if err != nil {
		return nil, err
	}
	b.loaded = time.Since(began)
	r := rand.New(rand.NewPCG(1, 1))
	b.prompt = make([]float32, f.prompt*b.Dim())
	for i := range b.prompt {
		b.prompt[i] = float32(r.NormFloat64())
	}
	return b, nil
}

// randomPair is a pair of the given lengths with ids from vocab.
func randomPair(r *rand.Rand, source, target, vocab int) model.Pair {
	ids := make([]int32, source+target)
	for i := range ids {
		ids[i] = int32(r.IntN(vocab))
	}
	return model.Pair{Source: ids[:source:source], Target: ids[source:]}
}

// run measures batches and writes the report.
func (f *benchFlags) run(ctx context.Context, b *bench, what string, batches [][]model.Pair, w io.Writer) error {
	if len(batches) == 0 {
		return errors.New("no batch to measure")
	}
	report, err := f.measure(ctx, b, batches)
	if err != nil {
		return err
	}
	if f.microBatch > 0 {
		what += fmt.Sprintf(", in micro-batches of %d", f.microBatch)
	}
	report.What, report.Without = what, f.without
	if f.json {
		return report.writeJSON(w)
	}
	_, err = io.WriteString(w, report.text())
	return err
}

// measure runs passes over batches: first warm-up passes, then those that count. The warm-up takes
// at least two steps. The first one finds how much memory the engine needs, and the second is the
// first one in memory of that size.
func (f *benchFlags) measure(ctx context.Context, b *bench, batches [][]model.Pair) (*benchReport, error) {
	pass := func() (time.Duration, error) {
		began := time.Now()
		for i, pairs := range batches {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			if err := f.step(b, pairs); err != nil {
				return 0, fmt.Errorf("batch %d: %w", i, err)
			}
		}
		return time.Since(began), nil
	}
	resetPeak()
	for steps := 0; steps < 2; steps += len(batches) {
		if _, err := pass(); err != nil {
			return nil, err
		}
	}
	b.meter.Reset()
	var times []time.Duration
	var total time.Duration
	var peak int64
	var isolated *meter.Isolated
	// The limit is measured twice, in the middle of the passes and after them, so that both see the
	// same machine.
	limit := min(f.time, 3*time.Second) / 2
	for {
		took, err := pass()
		if err != nil {
			return nil, err
		}
		times = append(times, took)
		total += took
		n := len(times)
		if isolated == nil && (f.passes > 0 && 2*n >= f.passes || f.passes == 0 && n >= 2 && 2*total >= f.time) {
			peak = peakResident() // before the memory of isolated products
			isolated = b.meter.Isolate()
			isolated.Run(limit)
		}
		if f.passes > 0 && n >= f.passes || f.passes == 0 && n >= 3 && total >= f.time {
			break
		}
	}
	isolated.Run(limit)
	report := newReport(b, batches, times)
	report.PeakBytes = peak
	report.setLimits(isolated.Limits())
	return report, nil
}

// step computes the gradient of every micro-batch of a batch, all in one call unless that is
// switched off.
func (f *benchFlags) step(b *bench, pairs []model.Pair) error {
	size := f.microBatch
	if size == 0 {
		size = len(pairs)
	}
	microBatches := slices.Collect(slices.Chunk(pairs, size))
	perCall := len(microBatches)
	if slices.Contains(f.without, "shared-passes") {
		perCall = 1
	}
	for call := range slices.Chunk(microBatches, perCall) {
		if _, _, err := b.LossGrads(b.prompt, call); err != nil {
			return err
		}
	}
	return nil
}

// plural is "1 batch" or "3 batches".
func plural(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// withoutText lists what was switched off, "nothing" where nothing was.
func withoutText(without []string) string {
	if len(without) == 0 {
		return "nothing"
	}
	return strings.Join(without, ", ")
}
