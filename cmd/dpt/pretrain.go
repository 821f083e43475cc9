package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/device"
	"github.com/dptune/dpt/dataset/lab/corpus"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/lab/pretrain"
)

// runPretrain trains all weights of a small T5 from nothing.
func runPretrain(ctx context.Context, args []string, std cli.IO) error {
	var d device.Flags
	var documents, pairs, out, dtype string
	s := pretrain.DefaultSettings()
	c := &s.Model
	o := pretrain.Options{LogEvery: 50, EvalEvery: 500, EvalPairs: 512, SaveEvery: 2 * time.Minute}
	log := cli.DefaultLog()
	cmd := cli.NewCommand("dpt pretrain", "--out DIR [--documents FILE] [--pairs FILE]",
		"Trains a small byte-level T5 from nothing, on one machine: spans taken out of documents, and pairs of source and target. Writes a model directory as Transformers does. The result depends on the settings and texts alone: neither on the number of threads nor on when it was stopped. Started again with the same --out it goes on where it was.")
	cmd.Notes = "Every micro-batch is computed by one thread; --threads 0 is two threads to a core here, so that no core waits for the others' last micro-batches."
	cmd.Examples = []cli.Example{{Command: "dpt pretrain --out tiny --dtype bf16"}}
	dtype = "bf16"
	g := cmd.Group("Texts")
	g.String(&documents, "documents", "texts, one to a line, from which spans are taken, `FILE`", cli.ExistingFile).DefaultText("the small world of the embedded data set")
	g.String(&pairs, "pairs", `pairs, {"source": ..., "target": ...} to a line, `+"`FILE`", cli.ExistingFile).DefaultText("the same world's skills")
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
	g.Int64(&s.Steps, "steps", "steps to take; may be changed on the way, as --decay and --lr may, until the learning rate falls")
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
	o.Engine, o.Numerics = func() (engine.Engine, error) { return model.OpenEngine(options) }, model.Numerics
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

// openCorpus opens the texts.
func openCorpus(cmd *cli.Command, documents, pairs string, s *pretrain.Settings) (pretrain.Corpus, error) {
	switch {
	case documents == "" && pairs == "":
		return worldCorpus(), nil
	case documents == "" && s.Spans > 0:
		if cmd.Changed("spans") {
			return pretrain.Corpus{}, cmd.Usagef("--spans %v without --documents, want 0", s.Spans)
		}
		s.Spans = 0
	case pairs == "" && s.Spans < 1:
		if cmd.Changed("spans") {
			return pretrain.Corpus{}, cmd.Usagef("--spans %v without --pairs, want 1", s.Spans)
		}
		s.Spans = 1
	}
	return pretrain.FileCorpus(documents, pairs)
}

// lessons are what a run's pairs are, by their numbers: those below until are taken from the streams by turns. A run begins with what all other
// skills build on, and what a model finds slowly when it is one among many: copying, then finding a word again and comparing two. Then come texts of which many
// things are asked, each with a place of its own for the answer, since these say most at the cost of reading a text; and last, too, more of those that ask one thing,
// as tasks do.
var lessons = []struct {
	until   uint64
	streams string
}{
	{20_000, "c"},
	{192_000, "kkkckkkekckkkskkkkvk"},
	{1_150_000, "vektvektvektvektves"},
	{math.MaxUint64, "svestvksevtsvektsve"},
}

// streams are the letters of lessons.
var streams = map[byte]func(seed, i uint64) (corpus.Pair, string){
	'c': copying, 'k': corpus.Keys, 't': corpus.Table, 'e': corpus.Easy, 'v': corpus.Several, 's': corpus.Skill,
}

// copying is those of Skill that want nothing else.
func copying(seed, i uint64) (p corpus.Pair, kind string) {
	const apart = 1 << 40 // numbers of other draws
	for p, kind = corpus.Skill(seed, i); kind != "copy" && kind != "map"; p, kind = corpus.Skill(seed, i) {
		i += apart
	}
	return p, kind
}

// worldPair is pair i of a seed.
func worldPair(seed, i uint64) (p corpus.Pair, kind string) {
	for _, l := range lessons {
		if i < l.until {
			return streams[l.streams[i%uint64(len(l.streams))]](seed, i)
		}
	}
	panic("lessons end")
}

// worldCorpus is the text of the small world that the embedded data set is made of.
func worldCorpus() pretrain.Corpus {
	seed := func(s pretrain.Stream) uint64 {
		if s.HeldOut {
			return ^s.Seed
		}
		return s.Seed
	}
	c := pretrain.Corpus{
		Document: func(s pretrain.Stream, i uint64) string { return corpus.Document(seed(s), i) },
		Pair: func(s pretrain.Stream, i uint64) (source, target, kind string) {
			p, kind := corpus.Skill(seed(s), i)
			if !s.HeldOut {
				p, kind = worldPair(s.Seed, i)
			}
			return p.Source, p.Target, kind
		},
	}
	// A run may not go on under a program that tells of another world: the name holds a digest of what this one tells.
	h := sha256.New()
	fmt.Fprintln(h, lessons)
	for i := range uint64(1000) {
		source, target, kind := c.Pair(pretrain.Stream{}, i)
		fmt.Fprintf(h, "%q %q %q %q\n", c.Document(pretrain.Stream{}, i), source, target, kind)
		for _, letter := range slices.Sorted(maps.Keys(streams)) {
			p, _ := streams[letter](0, i)
			fmt.Fprintf(h, "%q\n", p)
		}
	}
	c.Name = fmt.Sprintf("world:%x", h.Sum(nil)[:8])
	return c
}

// pretrainReporter logs what happens, and appends it to metrics.jsonl.
type pretrainReporter struct {
	log     *slog.Logger
	metrics io.Writer
	err     error // the first of writing
}

func (r *pretrainReporter) report(p pretrain.Report) {
	r.log.Info("trained", "step", p.Step, "of", p.Steps, "loss", round(p.Loss), "norm", round(p.Norm), "lr", round(p.Factor),
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
		r.log.Info("held out", "step", e.Step, "kind", k.Kind, "examples", k.Count, "loss", round(k.Loss), "exact", round(k.Exact))
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

// round is for log lines.
func round(x float64) string { return fmt.Sprintf("%.4g", x) }
