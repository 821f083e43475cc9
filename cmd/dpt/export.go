package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/model/checkpoint"
)

// exportFlags are the flags of dpt export.
type exportFlags struct {
	prompt    string
	format    string
	out       string
	model     string
	baseModel string
	force     bool
}

// runExport writes a prompt in another program's format.
func runExport(_ context.Context, args []string, _ cli.IO) error {
	f := exportFlags{format: "peft"}
	cmd := cli.NewCommand("dpt export", "--prompt FILE --format peft --out DIR [--base-model NAME]",
		"Writes a prompt as an adapter that Hugging Face PEFT loads onto the T5 it was trained with: "+
			"adapter_config.json and adapter_model.safetensors.")
	cmd.Notes = "An --out that holds files is left alone without --force. With it, the adapter's two files are " +
		"written there and other files stay."
	cmd.Examples = []cli.Example{{
		Command: "dpt export --prompt runs/r1/prompt.safetensors --format peft --out adapter " +
			"--base-model google-t5/t5-large",
	}}
	g := cmd.Group("Export")
	g.String(&f.prompt, "prompt", "prompt `FILE` of a run, or a PEFT adapter's directory", existingPrompt).Required()
	g.Choice(&f.format, "format", "format to write", "peft")
	g.String(&f.out, "out", "`DIR` to write", cli.NotEmpty).Required()
	g.String(&f.model, "model", "model `DIR` that the prompt belongs to, for its numbers of layers and heads",
		cli.ExistingDir)
	g.String(&f.baseModel, "base-model", "`NAME` of the model in the adapter's config, as PEFT will look it up",
		cli.NotEmpty).DefaultText("the --model directory")
	g.Bool(&f.force, "force", "write into a directory that is not empty")
	if err := cmd.Parse(args); err != nil {
		return err
	}
	p, err := checkpoint.ReadPrompt(f.prompt)
	if err != nil {
		return err
	}
	name := f.baseModel
	if name == "" {
		name = f.model
	}
	// Without the model only the prompt's own size is known; PEFT asks the model for the rest.
	config := fmt.Appendf(nil, `{"d_model": %d}`, p.Dim)
	if f.model != "" {
		m, err := checkpoint.OpenModel(f.model)
		if err != nil {
			return err
		}
		config = m.Config()
		if err := m.Close(); err != nil {
			return err
		}
	}
	return exportPEFT(f.out, p, name, config, f.force)
}

// exportPEFT makes dir as a whole or not at all: it writes a directory beside it and renames that.
// A directory that holds files already needs force; then the two files of the adapter are renamed
// into it one by one.
func exportPEFT(dir string, p checkpoint.Prompt, baseModel string, config []byte, force bool) (err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("export to %s: %w", dir, err)
	}
	if len(entries) > 0 {
		if !force {
			return fmt.Errorf("export to %s: it holds %s already, want an empty or new directory, or --force",
				dir, entries[0].Name())
		}
		return checkpoint.ExportPEFT(dir, p, baseModel, config)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("export to %s: %w", dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return fmt.Errorf("export to %s: %w", dir, err)
	}
	aside, err := os.MkdirTemp(filepath.Dir(dir), ".export-*")
	if err != nil {
		return fmt.Errorf("export to %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	// One level down, so that the directory has ordinary permissions, not those of a temporary one.
	made := filepath.Join(aside, "adapter")
	if err := checkpoint.ExportPEFT(made, p, baseModel, config); err != nil {
		return fmt.Errorf("export to %s: %w", dir, err)
	}
	// Remove removes an empty directory only, so files that appeared meanwhile are safe.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("export to %s: %w", dir, err)
	}
	if err := os.Rename(made, dir); err != nil {
		return fmt.Errorf("export to %s: %w", dir, err)
	}
	return nil
}
