package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/dptune/dpt/cmd/internal/cli"
)

// runPredict prints the greedy output for each source on standard input.
func runPredict(ctx context.Context, args []string, std cli.IO) error {
	var f backboneFlags
	maxSource, maxTarget := 256, 128
	cmd := cli.NewCommand("dpt predict", "--model DIR --prompt FILE < sources.jsonl",
		`Reads a JSON string, or an object with the string "source", from each line and prints the model's greedy `+
			`output as a JSON string on a line, in the same order. Without --prompt the model answers unprompted.`)
	cmd.Examples = []cli.Example{{
		Command: `echo '"is the sky blue?"' | dpt predict --model ./t5-large --prompt runs/r1/prompt.safetensors`,
	}}
	f.bind(cmd)
	g := cmd.Group("Lengths")
	g.Int(&maxSource, "max-source-length", "cut sources to `N` tokens, </s> included; 0 does not cut", cli.AtLeast(0))
	g.Int(&maxTarget, "max-target-length", "stop after `N` tokens", cli.AtLeast(1))
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	b, err := f.open(std.Err)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	return predict(ctx, b, newLineReader(ctx, "standard input", std.In), maxSource, maxTarget, std.Out)
}

// predict answers in batches: as many lines as have arrived, up to a bound. So a file goes through
// at full speed, and a person who types gets each answer at once.
func predict(ctx context.Context, b *backbone, in *lineReader, maxSource, maxTarget int, w io.Writer) error {
	var sources [][]int32
	tokens := 0
	answer := func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(sources) == 0 {
			return nil
		}
		outputs, err := b.Generate(b.prompt.Embeddings, sources, maxTarget)
		if err != nil {
			return fmt.Errorf("%s: lines %d to %d: %w", in.name, in.number-len(sources)+1, in.number, err)
		}
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		for _, ids := range outputs {
			if err := enc.Encode(b.tok.Decode(ids)); err != nil {
				return err
			}
		}
		sources, tokens = sources[:0], 0
		_, err = w.Write(out.Bytes())
		return err
	}
	for {
		line, err := in.next()
		if err == io.EOF {
			return answer()
		} else if err != nil {
			return err
		}
		text, err := in.source(line)
		if err != nil {
			// Answer the good lines before the bad one first. Their own errors must not count the
			// bad one.
			in.number--
			return errors.Join(answer(), err)
		}
		sources = append(sources, encode(b.tok, text, maxSource))
		tokens += b.prompt.Length + len(sources[len(sources)-1]) + maxTarget
		if len(sources) >= passPairs || tokens >= passTokens || in.wouldBlock() {
			if err := answer(); err != nil {
				return err
			}
		}
	}
}

// source reads a line that is a string, or an object with one under "source".
func (l *lineReader) source(line []byte) (string, error) {
	const want = `a JSON string or an object with the string "source"`
	var text *string
	if bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte("{")) {
		var object struct {
			Source *string `json:"source"`
		}
		if err := l.unmarshal(line, &object, want); err != nil {
			return "", err
		}
		text = object.Source
	} else if err := l.unmarshal(line, &text, want); err != nil {
		return "", err
	}
	if text == nil {
		return "", l.errorf("no source, want %s", want)
	}
	return *text, nil
}
