package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/dataset/tokenizer"
)

// runTokenize writes the ids of each text on standard input, line by line.
func runTokenize(ctx context.Context, args []string, std cli.IO) error {
	var spec string
	var eos bool
	cmd := cli.NewCommand("dpt tokenize", "--tokenizer FILE|DIR|byte [--eos] < strings.jsonl",
		"Reads a JSON string per line and writes a JSON array of its token ids per line, as SentencePiece and the "+
			"fast T5 tokenizer of Transformers give them. Input may be endless; answers do not wait for its end.")
	cmd.Examples = []cli.Example{{Command: `echo '"Is this it? <extra_id_0>"' | dpt tokenize --tokenizer ` +
		`./t5-large/spiece.model --eos`}}
	g := cmd.Group("Tokenizer")
	bindTokenizer(g, &spec).Required()
	g.Bool(&eos, "eos", "end each line with the id of </s>")
	if err := cmd.Parse(args); err != nil {
		return err
	}
	tok, err := openTokenizer(spec)
	if err != nil {
		return err
	}
	return tokenize(newLineReader(ctx, "standard input", std.In), tok, eos, std.Out)
}

func tokenize(in *lineReader, tok tokenizer.Tokenizer, eos bool, w io.Writer) (err error) {
	out := bufio.NewWriterSize(w, readSize)
	// What was answered before a bad line is the caller's.
	defer func() { err = errors.Join(err, out.Flush()) }()
	var text string
	var row []byte
	for {
		if in.wouldBlock() {
			if err := out.Flush(); err != nil {
				return nil // bufio keeps the error; the deferred Flush returns it
			}
		}
		line, err := in.next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := in.unmarshal(line, &text, "a JSON string"); err != nil {
			return err
		}
		if bytes.Equal(bytes.TrimSpace(line), []byte("null")) { // which leaves text as it was
			return in.errorf("found null, want a JSON string")
		}
		row = append(row[:0], '[')
		for _, id := range tok.Encode(text) {
			row = append(strconv.AppendInt(row, int64(id), 10), ',')
		}
		if eos {
			row = append(strconv.AppendInt(row, int64(tok.EOSID()), 10), ',')
		}
		if len(row) > 1 {
			row = row[:len(row)-1]
		}
		if _, err := out.Write(append(row, ']', '\n')); err != nil {
			return nil // as above
		}
	}
}

// bindTokenizer adds --tokenizer: a file, a directory, or the word "byte".
func bindTokenizer(g *cli.Group, spec *string) *cli.Flag {
	return g.String(spec, "tokenizer",
		"spiece.model or tokenizer.json, a directory with one, or the word byte for ByT5's bytes: `FILE|DIR|byte`",
		func(path string) error {
			if path == "byte" {
				return nil
			}
			if err := cli.Existing(path); err != nil {
				return fmt.Errorf("%w or the word byte", err)
			}
			return nil
		})
}

// byteExtraIDs is how many <extra_id_N> ByT5 has, which makes its vocabulary 384.
const byteExtraIDs = 125
