package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/prompt"
	"github.com/dptune/dpt/model/t5"
	"github.com/dptune/dpt/model/tiny"
)

// FineTuning is the method that trains all weights instead of a prompt.
const FineTuning = coordpb.FineTuning

// FineTuningLR is its learning rate where the user gives none; a prompt's would destroy the weights in a step.
const FineTuningLR = 1e-4

const (
	// statePerStep is how many bytes of trainer states a step of full fine-tuning may put into the log on average: a larger state is committed less often.
	statePerStep = 2 << 20
	// blobPerStep is the same of states that are blobs: each replica writes as much, and the worker that sends it is not computing meanwhile.
	blobPerStep = 8 << 20
)

// Methods are what Settings.Method may be.
func Methods() []string { return slices.Sorted(slices.Values(append(prompt.Methods(), FineTuning))) }

// fineTunes says whether all weights are trained.
func (s Spec) fineTunes() bool { return s.Method == FineTuning }

// validateFineTuning checks what the method has no use for.
func (s Settings) validateFineTuning() error {
	for _, r := range []struct{ flag, found string }{{"init", s.Init}, {"init-text", s.InitText}, {"init-from", s.InitFrom}} {
		if r.found != "" {
			return &SettingError{Flag: r.flag, Found: r.found, Want: "none with --method ft, which starts from the model's own weights"}
		}
	}
	if s.Bottleneck > 0 {
		return &SettingError{Flag: "bottleneck", Found: fmt.Sprint(s.Bottleneck), Want: "none with --method ft"}
	}
	return nil
}

// commitEvery is how many steps lie between commits when the user asks for every: more where the state is large, so that not more than statePerStep
// or blobPerStep bytes of it are written a step.
func (s Spec) commitEvery(every int64, inline int) int64 {
	state, per := int64(s.stateSize()), int64(statePerStep)
	switch {
	case s.apart(inline):
		per = blobPerStep
	case !s.fineTunes():
		return every
	}
	return max(every, (state+per-1)/per)
}

// allWeights are the parameters that full fine-tuning starts from: the model's.
func (j *Job) allWeights(m *checkpoint.Model) ([]float32, error) {
	config, err := t5.ParseConfig(m.Config())
	if err != nil {
		return nil, err
	}
	j.layout = config.Parameters(t5.Tied(m))
	return t5.ReadAll(config, m)
}

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
		for _, p := range o.job.layout {
			tensors = append(tensors, checkpoint.F32(p.Name, p.Shape, params[p.Offset:p.Offset+p.Size()]))
		}
		if err := checkpoint.WriteModel(filepath.Join(o.dir, name), o.job.config, tensors, extra); err != nil {
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
			return nil, fmt.Errorf("copy the tokenizer of model %s: %w", modelName(model), err)
		}
		files[name] = data
	}
	return files, nil
}
