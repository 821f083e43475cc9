package outputs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
	"github.com/dptune/dpt/model/tiny"
)

// result is a trainer state to write the outputs from.
type result struct {
	step  ids.Step
	state []byte
	blob  ids.Blob // where it is too large for the log
}

// resultsOf returns the best state on the evaluation split, or the last where there is none, and
// the last.
func resultsOf(m *fsm.Machine) (best, last result) {
	last = result{m.Step(), m.State(), m.Blob()}
	best = last
	if b := m.Best(); b != nil {
		best = result{b.Step, b.State, b.Blob}
	}
	return best, last
}

// results writes what was trained. Blobs are here.
func (w *writer) results(best, last result) error {
	if w.job.Spec.FineTunes() {
		if err := w.model("model", best); err != nil {
			return err
		}
		return w.model("final", last)
	}
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

// promptOf decodes a trainer state and returns its prompt as a file's content.
func promptOf(state []byte, conf prompt.Config, metadata map[string]string) (checkpoint.Prompt, error) {
	var s optim.State
	if err := s.UnmarshalBinary(state); err != nil {
		return checkpoint.Prompt{}, err
	}
	if len(s.Params) != conf.Size() {
		return checkpoint.Prompt{}, fmt.Errorf("trainer state has %d parameters, the prompt wants %d",
			len(s.Params), conf.Size())
	}
	return conf.File(s.Params, metadata)
}

// model writes a fine-tuned model as a directory that Transformers loads, with the tokenizer's
// files.
func (w *writer) model(name string, r result) error {
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

// tokenizerFiles reads the tokenizer's files of a model directory, "" the embedded model's, so that
// they go with the new weights.
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
			return nil, fmt.Errorf("copy the tokenizer of model %s: %w", job.ModelName(model), err)
		}
		files[name] = data
	}
	return files, nil
}
