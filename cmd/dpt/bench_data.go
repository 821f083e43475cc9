package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model"
)

// benchDataFlags are the flags of dpt bench data.
type benchDataFlags struct {
	benchFlags
	tasks     []string
	data      string
	template  string
	tokenizer string
	seed      uint64
	batches   int
	maxSource int
	maxTarget int
}

// runBenchData measures the lengths of real examples.
func runBenchData(ctx context.Context, args []string, std cli.IO) error {
	f := benchDataFlags{
		tasks: dataset.Tasks(), template: string(dataset.DPT), batches: 2, maxSource: 256, maxTarget: 128, seed: 1,
	}
	cmd := cli.NewCommand("dpt bench data", "--data DIR --tokenizer FILE [--task TASK,...]",
		"Measures training steps on batches of real examples, the same number from each task. Only the number of "+
			"tokens matters, not which tokens they are.")
	cmd.Examples = []cli.Example{{
		Command: "dpt bench data --shape t5-base --data ./superglue --tokenizer spiece.model --task boolq,copa",
	}}
	f.bindModel(cmd)
	g := cmd.Group("Data")
	g.Strings(&f.tasks, "task", "take batches from `TASK,...`, of "+commaList(dataset.Tasks()), func(v string) error {
		if _, err := dataset.Lookup(v); err != nil {
			return fmt.Errorf("want one of %s", commaList(dataset.Tasks()))
		}
		return nil
	}).DefaultText("all of them")
	g.String(&f.data, "data", "`DIR` with a directory per task, as SuperGLUE is published", cli.ExistingDir).
		DefaultText("the embedded data set")
	g.Choice(&f.template, "template", "how examples become text", string(dataset.DPT), string(dataset.T5))
	bindTokenizer(g, &f.tokenizer).DefaultText("the model's")
	g.Int(&f.batches, "batches", "`N` batches from each task in a pass, drawn from its training split", cli.AtLeast(1))
	g.Uint64(&f.seed, "seed", "which examples are drawn")
	g = cmd.Group("Lengths")
	g.Int(&f.maxSource, "source-length", "cut sources to `N` tokens, </s> included", cli.AtLeast(1))
	g.Int(&f.maxTarget, "target-length", "cut targets to `N` tokens, </s> included", cli.AtLeast(1))
	f.bindMeasurement(cmd)
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	if f.model == "" && f.shape != embeddedShape && f.tokenizer == "" {
		return cmd.Usagef("--tokenizer is missing, want --tokenizer FILE|DIR|byte, since --shape %s has none", f.shape)
	}
	tok, err := (&backboneFlags{model: f.model, tokenizer: f.tokenizer}).openTokenizer()
	if err != nil {
		return err
	}
	batches, err := f.load(tok)
	if err != nil {
		return err
	}
	b, err := f.open()
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	if tok.VocabSize() > b.VocabSize() {
		return fmt.Errorf("tokenizer: %d ids, want at most %d, the vocab_size of model %s",
			tok.VocabSize(), b.VocabSize(), b.Name())
	}
	what := fmt.Sprintf("%s of up to %d examples from %s, %d prompt tokens",
		plural(len(batches), "batch", "batches"), f.batch, strings.Join(f.tasks, ", "), f.prompt)
	return f.run(ctx, b, what, batches, std.Out)
}

// load draws the batches of every task.
func (f *benchDataFlags) load(tok tokenizer.Tokenizer) ([][]model.Pair, error) {
	fsys, err := dataset.OpenDir(f.data)
	if err != nil {
		return nil, err
	}
	var batches [][]model.Pair
	for _, name := range f.tasks {
		task, err := dataset.Lookup(name)
		if err != nil {
			return nil, err
		}
		split, err := dataset.Load(fsys, task, "train", dataset.Template(f.template))
		if err != nil {
			return nil, err
		}
		sampler, err := dataset.NewSampler(len(split.Train), f.batch, f.batch, f.seed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", task.Name(), err)
		}
		for t := range f.batches {
			_, micro := sampler.Step(int64(t))
			var pairs []model.Pair
			for _, i := range micro[0] {
				pairs = append(pairs, f.pair(tok, split.Train[i]))
			}
			batches = append(batches, pairs)
		}
	}
	return batches, nil
}

func (f *benchDataFlags) pair(tok tokenizer.Tokenizer, e dataset.Example) model.Pair {
	p := model.Pair{Source: encode(tok, e.Source, f.maxSource), Target: encode(tok, e.Target, f.maxTarget)}
	for f.padded() && len(p.Source) < f.maxSource {
		p.Source = append(p.Source, tok.PadID())
	}
	return p
}
