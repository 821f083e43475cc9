package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/tiny"
)

// models writes the fine-tuned models:
//
//	model/   the best on the evaluation split, or the last where there is none, as a directory that Transformers loads
//	final/   the same after the last step
func (o *outputs) models(kept, final result) error {
	extra, err := tokenizerFiles(o.job.ModelPath)
	if err != nil {
		return err
	}
	for name, r := range map[string]result{"model": kept, "final": final} {
		params, err := o.states.params(r.state, r.blob, o.job.Spec.Parameters)
		if err != nil {
			return err
		}
		var tensors []checkpoint.Tensor
		for _, p := range o.job.Layout {
			tensors = append(tensors, checkpoint.F32(p.Name, p.Shape, params[p.Offset:p.Offset+p.Size()]))
		}
		if err := checkpoint.WriteModel(filepath.Join(o.dir, name), o.job.ModelConfig, tensors, extra); err != nil {
			return err
		}
	}
	return nil
}

// tokenizerFiles reads the tokenizer's files of a model directory, "" the embedded model's, so that they go with the new weights.
func tokenizerFiles(model string) (map[string][]byte, error) {
	var from fs.FS = tiny.FS()
	if model != "" {
		from = os.DirFS(model)
	}
	files := map[string][]byte{}
	for _, name := range []string{"tokenizer_config.json", "tokenizer.json", "spiece.model", "special_tokens_map.json", "added_tokens.json", "generation_config.json"} {
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
