package main

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/device"
	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/tiny"
)

// backboneFlags say which model a command runs, on what, and behind which prompt.
type backboneFlags struct {
	model     string
	tokenizer string
	prompt    string
	device    device.Flags
	options   model.Options
}

func (f *backboneFlags) bind(cmd *cli.Command) {
	g := cmd.Group("Model")
	g.String(&f.model, "model", "`DIR` with config.json and model.safetensors, as Transformers writes it", cli.ExistingDir).DefaultText("the embedded tiny T5")
	g.String(&f.prompt, "prompt", "soft prompt: prompt.safetensors of a run, or PEFT's adapter_model.safetensors, `FILE`", cli.ExistingFile)
	bindTokenizer(g, &f.tokenizer).DefaultText("the model's")
	f.device.Bind(cmd.Group("Engine"))
	cmd.Engines = model.Engines()
}

// check looks at the flags together; call it after Parse.
func (f *backboneFlags) check(cmd *cli.Command) (err error) {
	f.options, err = f.device.Options(cmd)
	return err
}

// backbone is an open model with the tokenizer and prompt that go with it.
type backbone struct {
	*model.Backbone
	tok    tokenizer.Tokenizer
	prompt checkpoint.Prompt // no embeddings where none was given
}

// open loads the prompt, the tokenizer and the model, and checks that they fit together. It warns of
// a prompt that was trained on a model with other weights: it will run, and hardly do any good.
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
	if err := b.fit(f.prompt); err != nil {
		_ = b.Close() // the misfit is what there is to say
		return nil, err
	}
	digest := b.Digest()
	if trained, here := b.prompt.Metadata["model_digest"], hex.EncodeToString(digest[:]); trained != "" && trained != here {
		cli.DefaultLog().Logger(stderr).Warn("the prompt was trained on another model", "prompt", f.prompt, "trained_on", trained, "model", here)
	}
	return b, nil
}

// fit checks the prompt's and the tokenizer's sizes against the model's.
func (b *backbone) fit(promptFile string) error {
	if promptFile != "" && b.prompt.Dim != b.Dim() {
		return fmt.Errorf("prompt %s: vectors of %d numbers, want %d, the d_model of model %s", promptFile, b.prompt.Dim, b.Dim(), b.Name())
	}
	if b.tok.VocabSize() > b.VocabSize() {
		return fmt.Errorf("tokenizer: %d ids, want at most %d, the vocab_size of model %s", b.tok.VocabSize(), b.VocabSize(), b.Name())
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
	return tokenizer.OpenFS(tiny.FS(), "the embedded tiny T5")
}

// openTokenizer opens what --tokenizer names.
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
