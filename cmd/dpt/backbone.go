package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/device"
	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/tiny"
)

// backboneFlags are the flags for the model that a command runs, the engine and the prompt.
type backboneFlags struct {
	model     string
	tokenizer string
	prompt    string
	device    device.Flags
	options   model.Options
}

func (f *backboneFlags) bind(cmd *cli.Command) {
	g := cmd.Group("Model")
	g.String(&f.model, "model", "`DIR` with config.json and model.safetensors, as Transformers writes it",
		cli.ExistingDir).DefaultText("the embedded tiny T5")
	g.String(&f.prompt, "prompt",
		"soft prompt: prompt.safetensors of a run, or a PEFT adapter's directory or weights, `PATH`", existingPrompt)
	bindTokenizer(g, &f.tokenizer).DefaultText("the model's")
	f.device.Bind(cmd.Group("Engine"))
	cmd.Engines = model.Engines()
}

// existingPrompt checks for a file, or the directory of a PEFT adapter.
func existingPrompt(path string) error {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return cli.ExistingFile(path)
	}
	if !checkpoint.IsAdapter(path) {
		return errors.New("found a directory, want a file or the directory of a PEFT adapter")
	}
	return nil
}

// check checks the flags together. Call it after Parse.
func (f *backboneFlags) check(cmd *cli.Command) (err error) {
	f.options, err = f.device.Options(cmd)
	return err
}

// backbone is an open model with its tokenizer and prompt.
type backbone struct {
	*model.Backbone
	tok    tokenizer.Tokenizer
	prompt checkpoint.Prompt // no embeddings where none was given
}

// open loads the prompt, the tokenizer and the model, and checks that they fit together. It warns
// about a prompt that was trained on a model with other weights: it runs, but hardly helps.
func (f *backboneFlags) open(stderr io.Writer) (_ *backbone, err error) {
	b := &backbone{}
	if f.prompt != "" {
		if b.prompt, err = checkpoint.ReadPrompt(f.prompt); err != nil {
			return nil, err
		}
	}
	if b.tok, err = f.openTokenizer(); err != nil {
		return nil, err
	}
	if b.Backbone, err = model.Open(f.model, f.options); err != nil {
		return nil, err
	}
	if err := b.checkSizes(f.prompt); err != nil {
		_ = b.Close() // the mismatch is the error to report
		return nil, err
	}
	digest := b.Digest()
	trained, here := b.prompt.Metadata["model_digest"], hex.EncodeToString(digest[:])
	if trained != "" && trained != here {
		cli.DefaultLog().Logger(stderr).Warn("the prompt was trained on another model",
			"prompt", f.prompt, "trained_on", trained, "model", here)
	}
	return b, nil
}

// checkSizes compares the sizes of the prompt and the tokenizer with the model's.
func (b *backbone) checkSizes(promptFile string) error {
	if promptFile != "" && b.prompt.Dim != b.Dim() {
		return fmt.Errorf("prompt %s: vectors of %d numbers, want %d, the d_model of model %s",
			promptFile, b.prompt.Dim, b.Dim(), b.Name())
	}
	if b.tok.VocabSize() > b.VocabSize() {
		return fmt.Errorf("tokenizer: %d ids, want at most %d, the vocab_size of model %s",
			b.tok.VocabSize(), b.VocabSize(), b.Name())
	}
	return nil
}

func (f *backboneFlags) openTokenizer() (tokenizer.Tokenizer, error) {
	switch {
	case f.tokenizer != "":
		return openTokenizer(f.tokenizer)
	case f.model != "":
		return tokenizer.Open(f.model)
	}
	return tokenizer.OpenFS(tiny.FS(), tiny.Name)
}

// openTokenizer opens the tokenizer that --tokenizer names.
func openTokenizer(spec string) (tokenizer.Tokenizer, error) {
	if spec == "byte" {
		return tokenizer.NewByteLevel(byteExtraIDs), nil
	}
	return tokenizer.OpenPath(spec)
}

// encode returns the ids of a text with </s> last, at most max of them; max 0 is no limit.
func encode(tok tokenizer.Tokenizer, text string, max int) []int32 {
	if max > 0 {
		return tokenizer.EncodeTruncated(tok, text, max)
	}
	return append(tok.Encode(text), tok.EOSID())
}
