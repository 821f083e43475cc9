package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/device"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/lab/pretrain"
)

// runPretrain trains all weights of a small T5 from random weights.
func runPretrain(ctx context.Context, args []string, std cli.IO) error {
	var d device.Flags
	var documents, pairs, out, dtype string
	s := pretrain.DefaultSettings()
	c := &s.Model
	o := pretrain.Options{LogEvery: 50, EvalEvery: 500, EvalPairs: 512, SaveEvery: 2 * time.Minute}
	log := cli.DefaultLog()
	cmd := cli.NewCommand("dpt pretrain", "--out DIR [--documents FILE] [--pairs FILE]",
		"Trains a small byte-level T5 from random weights, on one machine, on spans taken out of documents and on "+
			"pairs of source and target. Writes a model directory as Transformers does. The result depends on the "+
			"settings and texts alone, not on the number of threads nor on interruptions. Started again with the "+
			"same --out, it continues where it stopped.")
	cmd.Notes = "One thread computes each micro-batch. --threads 0 is two threads per core here, so that no core " +
		"waits for the others' last micro-batches."
	cmd.Examples = []cli.Example{{Command: "dpt pretrain --out tiny --dtype bf16"}}
	dtype = "bf16"
	g := cmd.Group("Texts")
	g.String(&documents, "documents", "texts, one to a line, from which spans are taken, `FILE`", cli.ExistingFile).
		DefaultText("the small world of the embedded data set")
	g.String(&pairs, "pairs", `pairs, {"source": ..., "target": ...} to a line, `+"`FILE`", cli.ExistingFile).
		DefaultText("the same world's skills")
	g.Float(&s.Spans, "spans", "share of the examples that are documents")
	g.Float(&s.Noise, "noise", "share of a document's bytes that are taken out")
	g.Float(&s.SpanBytes, "span-bytes", "mean bytes of what is taken out in one piece")
	g.Int(&s.MaxBytes, "max-bytes", "cut documents to `N` bytes")
	g = cmd.Group("Model")
	g.Int(&c.DModel, "d-model", "width of the residual stream")
	g.Int(&c.DFF, "d-ff", "width of the feed-forward layers")
	g.Int(&c.NumHeads, "heads", "attention heads")
	g.Int(&c.DKV, "d-kv", "width of a head")
	g.Int(&c.NumLayers, "layers", "encoder layers")
	g.Int(&c.NumDecoderLayers, "decoder-layers", "decoder layers")
	g = cmd.Group("Training")
	g.Uint64(&s.Seed, "seed", "seed of the weights and of the order of texts")
	g.Int64(&s.Steps, "steps",
		"steps to take; may be changed on the way, as --decay and --lr may, until the learning rate falls")
	g.Int(&s.BatchTokens, "batch-tokens", "source and target tokens of a step, about")
	g.Int(&s.Micro, "micro-batches", "parts that a step is cut into, which threads share")
	g.Float(&s.Optimizer.LR, "lr", "highest learning rate")
	g.Float(&s.Optimizer.Beta2, "beta2", "AdamW's decay of squared gradients")
	g.Float(&s.Optimizer.WeightDecay, "weight-decay", "AdamW's decay of weights")
	g.Float(&s.Clip, "clip", "bound of the gradient's norm; 0 is none")
	g.Int64(&s.Warmup, "warmup", "steps in which the learning rate grows")
	g.Int64(&s.Decay, "decay", "last steps, in which it falls to 0")
	d.Bind(cmd.Group("Engine"))
	g = cmd.Group("Output")
	g.String(&out, "out", "model `DIR` to write, which also keeps an unfinished run's state", cli.NotEmpty).Required()
	g.Choice(&dtype, "store", "type of the written weights", "bf16", "f32")
	g.Int64(&o.LogEvery, "log-every", "steps between two reports", cli.AtLeast(int64(1)))
	g.Int64(&o.EvalEvery, "eval-every", "steps between two looks at held-out texts; 0 is none", cli.AtLeast(int64(0)))
	g.Int(&o.EvalPairs, "eval-examples", "held-out examples to look at", cli.AtLeast(1))
	g.Duration(&o.SaveEvery, "save-every", "write the state and the model every `TIME`", cli.MoreThan(time.Duration(0)))
	log.Bind(g)
	cmd.Engines = model.Engines()
	if err := cmd.Parse(args); err != nil {
		return err
	}
	options, err := d.Options(cmd)
	if err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return cmd.Usagef("%v", err)
	}
	if o.Corpus, err = openCorpus(cmd, documents, pairs, &s); err != nil {
		return err
	}
	o.Settings, o.Dir, o.BF16, o.Workers, o.Log = s, out, dtype == "bf16", options.Threads, log.Logger(std.Err)
	if o.Workers == 0 {
		o.Workers = min(s.Micro, 2*runtime.GOMAXPROCS(0))
	}
	options.Threads = 1
	o.Engine = func() (engine.Engine, error) { return model.OpenEngine(options) }
	if err := os.MkdirAll(out, 0o777); err != nil {
		return fmt.Errorf("make %s: %w", out, err)
	}
	metrics, err := os.OpenFile(filepath.Join(out, "metrics.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	reporter := pretrainReporter{log: o.Log, metrics: metrics}
	o.Report, o.Evaluation = reporter.report, reporter.evaluation
	return errors.Join(pretrain.Run(ctx, o), reporter.err, metrics.Close())
}

// pretrainReporter logs the progress of a run and appends it to metrics.jsonl.
type pretrainReporter struct {
	log     *slog.Logger
	metrics io.Writer
	err     error // the first error of a write
}

func (r *pretrainReporter) report(p pretrain.Report) {
	r.log.Info("trained", "step", p.Step, "of", p.Steps,
		"loss", formatFloat(p.Loss), "norm", formatFloat(p.Norm), "lr", formatFloat(p.Factor),
		"tokens", p.Tokens, "tokens/s", int(p.PerSecond), "left", p.Left.Round(time.Second))
	r.write(struct {
		Step   int64   `json:"step"`
		Loss   float64 `json:"loss"`
		Norm   float64 `json:"norm"`
		Factor float64 `json:"lr_factor"`
		Tokens int64   `json:"tokens"`
	}{p.Step, p.Loss, p.Norm, p.Factor, p.Tokens})
}

func (r *pretrainReporter) evaluation(e pretrain.Evaluation) {
	for _, k := range e.Kinds {
		r.log.Info("held out", "step", e.Step, "kind", k.Kind, "examples", k.Count,
			"loss", formatFloat(k.Loss), "exact", formatFloat(k.Exact))
		r.write(struct {
			Step  int64   `json:"step"`
			Kind  string  `json:"kind"`
			Count int     `json:"examples"`
			Loss  float64 `json:"held_out_loss"`
			Exact float64 `json:"exact"`
		}{e.Step, k.Kind, k.Count, k.Loss, k.Exact})
	}
}

func (r *pretrainReporter) write(v any) {
	if err := json.NewEncoder(r.metrics).Encode(v); err != nil && r.err == nil {
		r.err = fmt.Errorf("write metrics.jsonl: %w", err)
	}
}

// formatFloat formats a number for a log line.
func formatFloat(x float64) string { return fmt.Sprintf("%.4g", x) }
