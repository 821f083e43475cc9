package job

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/model/prompt"
)

// Spec is everything that decides a job's result, resolved: two jobs with equal specs end with
// equal bits on one engine build and instruction set. A restart must match it.
type Spec struct {
	Task            string  `json:"task"`
	Template        string  `json:"template"`
	Mixture         string  `json:"mixture,omitempty"`       // of several tasks
	MixtureLimit    int     `json:"mixture_limit,omitempty"` // of a proportional mixture
	Model           string  `json:"model"`                   // absolute; "" is the embedded model
	ModelDigest     string  `json:"model_digest"`
	TokenizerDigest string  `json:"tokenizer_digest"`
	TrainDigest     string  `json:"train_digest"`
	TrainExamples   int     `json:"train_examples"`
	EvalSplit       string  `json:"eval_split"` // "" without evaluation
	EvalDigest      string  `json:"eval_digest,omitempty"`
	EvalExamples    int     `json:"eval_examples"`
	Shots           int     `json:"shots"`
	Method          string  `json:"method"`
	Dim             int     `json:"d_model"`
	PromptLength    int     `json:"prompt_length"` // 0 in full fine-tuning
	Bottleneck      int     `json:"bottleneck"`
	Parameters      int     `json:"trainable_parameters"`
	InitFrom        string  `json:"init_from"` // one of InitFroms, "text", "file" or "model"
	InitStd         float64 `json:"init_std"`
	InitDigest      string  `json:"init_digest"` // of the initial trainer state
	Epochs          int     `json:"epochs"`
	StepsPerEpoch   int64   `json:"steps_per_epoch"`
	Steps           int64   `json:"steps"` // of the whole job
	BatchSize       int     `json:"batch_size"`
	MicroBatch      int     `json:"micro_batch"`
	LR              float64 `json:"lr"`
	WarmupSteps     int64   `json:"warmup_steps"`
	WeightDecay     float64 `json:"weight_decay"`
	Beta1           float64 `json:"adam_beta1"`
	Beta2           float64 `json:"adam_beta2"`
	Epsilon         float64 `json:"adam_epsilon"`
	MaxGradNorm     float64 `json:"max_grad_norm"`
	MaxSourceLength int     `json:"max_source_length"`
	MaxTargetLength int     `json:"max_target_length"`
	Seed            uint64  `json:"seed"`
	EvalEvery       int64   `json:"eval_every"`
	EvalFirst       bool    `json:"eval_first"`
	// Patience is that of early stopping. The learning rate's schedule is that of all Steps.
	Patience int `json:"patience,omitempty"`
}

// Canonical is the spec's one encoding.
func (s Spec) Canonical() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("job: a spec of plain numbers and strings does not marshal: %v", err))
	}
	return b
}

// Prompt is the prompt's parametrization.
func (s Spec) Prompt() prompt.Config {
	return prompt.Config{Method: s.Method, Dim: s.Dim, Length: s.PromptLength, Bottleneck: s.Bottleneck}
}

// TrainSpec is the part of the spec that a worker needs.
func (s Spec) TrainSpec() *coordpb.TrainSpec {
	return &coordpb.TrainSpec{
		Method:       s.Method,
		Dim:          int32(s.Dim),
		Length:       int32(s.PromptLength),
		Bottleneck:   int32(s.Bottleneck),
		LearningRate: s.LR,
		Beta1:        s.Beta1,
		Beta2:        s.Beta2,
		Epsilon:      s.Epsilon,
		WeightDecay:  s.WeightDecay,
		MaxGradNorm:  s.MaxGradNorm,
		WarmupSteps:  s.WarmupSteps,
		TotalSteps:   s.Steps,
	}
}

// DiffSpec names the settings in which the stored spec differs from the wanted one; "" if they
// agree. A model may lie somewhere else: its digest counts.
func DiffSpec(stored []byte, want Spec) (string, error) {
	var have Spec
	dec := json.NewDecoder(bytes.NewReader(stored))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&have); err != nil {
		return "", fmt.Errorf("stored job settings: %w", err)
	}
	have.Model = want.Model
	var diffs []string
	h, w := reflect.ValueOf(have), reflect.ValueOf(want)
	for i := range h.NumField() {
		if a, b := h.Field(i).Interface(), w.Field(i).Interface(); a != b {
			name, _, _ := strings.Cut(h.Type().Field(i).Tag.Get("json"), ",")
			diffs = append(diffs, fmt.Sprintf("%s is %v, want %v", name, a, b))
		}
	}
	return strings.Join(diffs, "; "), nil
}
