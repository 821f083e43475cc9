package outputs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
	"github.com/dptune/dpt/model/tiny"
)

// blobPoll is the time between two looks for a blob of a finished job that is not here yet.
const blobPoll = 50 * time.Millisecond

// result is a trainer state that results are written from.
type result struct {
	step  ids.Step
	state []byte   // nil if blob names it
	blob  ids.Blob // of size 0 if state holds it
}

// resultsOf returns the state with the best evaluation, or the last state if there is none, and the
// last state.
func resultsOf(m *fsm.Machine) (best, last result) {
	last = result{m.Step(), m.State(), m.Blob()}
	best = last
	if b := m.Best(); b != nil {
		best = result{b.Step, b.State, b.Blob}
	}
	return best, last
}

// writeResults writes what was trained. It waits for states that are blobs and not here yet.
func (r *Recorder) writeResults(ctx context.Context) error {
	for {
		var best, last result
		if !r.view(func(m *fsm.Machine) { best, last = resultsOf(m) }) {
			return errForgotten
		}
		if !r.opts.Blobs.Has(best.blob) || !r.opts.Blobs.Has(last.blob) {
			select {
			case <-time.After(blobPoll):
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		err := r.writer.writeResults(best, last)
		if !errors.Is(err, blobs.ErrDamaged) && !errors.Is(err, blobs.ErrMissing) {
			return err
		}
		r.opts.Logger.Error("results not written yet", "reason", err)
	}
}

// writeResults writes what was trained, from states that are here.
func (w *writer) writeResults(best, last result) error {
	if w.job.Spec.FineTunes() {
		if err := w.writeModel("model", best); err != nil {
			return err
		}
		return w.writeModel("final", last)
	}

	// Both prompts are decoded before any is written, so that a damaged state leaves no file.
	final, err := w.prompt(last)
	if err != nil {
		return err
	}
	kept, err := w.prompt(best)
	if err != nil {
		return err
	}
	if err := checkpoint.WritePrompt(filepath.Join(w.dir, "final.safetensors"), final); err != nil {
		return err
	}
	if err := checkpoint.WritePrompt(filepath.Join(w.dir, "prompt.safetensors"), kept); err != nil {
		return err
	}
	return checkpoint.ExportPEFT(filepath.Join(w.dir, "adapter"), kept, w.job.Spec.Model, w.job.ModelConfig)
}

// prompt reads the prompt out of a trainer state.
func (w *writer) prompt(r result) (checkpoint.Prompt, error) {
	spec := w.job.Spec
	state, err := w.blobs.State(r.state, r.blob)
	if err != nil {
		return checkpoint.Prompt{}, err
	}
	return promptOf(state, spec.Prompt(), map[string]string{
		"method":       spec.Method,
		"task":         spec.Task,
		"template":     spec.Template,
		"model_digest": spec.ModelDigest,
		"step":         fmt.Sprint(r.step),
		"seed":         fmt.Sprint(spec.Seed),
	})
}

// promptOf decodes a trainer state and returns its prompt as the content of a file.
func promptOf(state []byte, conf prompt.Config, metadata map[string]string) (checkpoint.Prompt, error) {
	var s optim.State
	if err := s.UnmarshalBinary(state); err != nil {
		return checkpoint.Prompt{}, err
	}
	if len(s.Params) != conf.Size() {
		return checkpoint.Prompt{}, fmt.Errorf("trainer state has %d parameters, want the prompt's %d",
			len(s.Params), conf.Size())
	}
	return conf.File(s.Params, metadata)
}

// writeModel writes a fine-tuned model as a directory that Transformers loads, with the tokenizer's
// files.
func (w *writer) writeModel(name string, r result) error {
	extra, err := tokenizerFiles(w.job.ModelPath)
	if err != nil {
		return err
	}
	params, err := w.blobs.Params(r.state, r.blob, w.job.Spec.Parameters)
	if err != nil {
		return err
	}
	var tensors []checkpoint.Tensor
	for _, p := range w.job.Layout {
		tensors = append(tensors, checkpoint.F32(p.Name, p.Shape, params[p.Offset:p.Offset+p.Size()]))
	}
	return checkpoint.WriteModel(filepath.Join(w.dir, name), w.job.ModelConfig, tensors, extra)
}

// tokenizerFiles reads the tokenizer's files of a model directory; "" is the embedded model's. They
// go with the new weights.
func tokenizerFiles(model string) (map[string][]byte, error) {
	var from fs.FS = tiny.FS()
	if model != "" {
		from = os.DirFS(model)
	}
	files := map[string][]byte{}
	for _, name := range []string{
		"tokenizer_config.json",
		"tokenizer.json",
		"spiece.model",
		"special_tokens_map.json",
		"added_tokens.json",
		"generation_config.json",
	} {
		data, err := fs.ReadFile(from, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("copy the tokenizer of model %s: %w", tiny.NameOf(model), err)
		}
		files[name] = data
	}
	return files, nil
}
