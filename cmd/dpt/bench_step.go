package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/model"
)

// runBenchStep measures one shape.
func runBenchStep(ctx context.Context, args []string, std cli.IO) error {
	var f benchFlags
	source, target := 256, 4
	cmd := cli.NewCommand("dpt bench step", "[--shape NAME] [--batch N] [--source-length N]",
		"Measures training steps on a batch of random examples of one length. It needs no files.")
	cmd.Examples = []cli.Example{{
		Command: "dpt bench step --shape t5-base --batch 8 --source-length 256 --without absorption",
	}}
	f.bindModel(cmd)
	g := cmd.Group("Lengths")
	g.Int(&source, "source-length", "tokens of every source, prompt not counted", cli.AtLeast(1))
	g.Int(&target, "target-length", "tokens of every target", cli.AtLeast(1))
	f.bindMeasurement(cmd)
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	b, err := f.open()
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	r := rand.New(rand.NewPCG(2, 2))
	pairs := make([]model.Pair, f.batch)
	for i := range pairs {
		pairs[i] = randomPair(r, source, target, b.VocabSize())
	}
	what := fmt.Sprintf("%d examples of %d source, %d prompt and %d target tokens", f.batch, source, f.prompt, target)
	return f.run(ctx, b, what, [][]model.Pair{pairs}, std.Out)
}
