package job

import (
	"fmt"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/t5"
)

// FineTuningLR is full fine-tuning's learning rate if the user gives none; a prompt's would destroy
// the weights in a step.
const FineTuningLR = 1e-4

// FineTunes reports whether the job trains all weights.
func (s Spec) FineTunes() bool { return s.Method == FineTuning }

// validateFineTuning refuses the settings that full fine-tuning has no use for.
func (s Settings) validateFineTuning() error {
	for _, r := range []struct{ flag, found string }{
		{"init", s.Init},
		{"init-text", s.InitText},
		{"init-from", s.InitFrom},
	} {
		if r.found != "" {
			return &SettingError{
				Flag:  r.flag,
				Found: r.found,
				Want:  "none with --method ft, which starts from the model's own weights",
			}
		}
	}
	if s.Bottleneck > 0 {
		return &SettingError{Flag: "bottleneck", Found: fmt.Sprint(s.Bottleneck), Want: "none with --method ft"}
	}
	return nil
}

// allWeights are the parameters that full fine-tuning starts from: the model's.
func (j *Job) allWeights(m *checkpoint.Model) ([]float32, error) {
	config, err := t5.ParseConfig(m.Config())
	if err != nil {
		return nil, err
	}
	j.Layout = config.Parameters(t5.Tied(m))
	return t5.ReadAll(config, m)
}
