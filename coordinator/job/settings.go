package job

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
)

// Settings are what a user asks of a job. The zero value of a field that says so means "the
// default".
type Settings struct {
	Model     string // a directory as Transformers writes it; "" is the embedded tiny T5
	Tokenizer string // a file or directory; "" is the model's own
	Data      string // a directory in SuperGLUE's layout; "" is the embedded mini set
	Task      string // or several with commas between them
	Template  string
	EvalSplit string // "" is "val" where the data has one, else no evaluation
	Shots     int    // train on this many examples of each task drawn by the seed; 0 is all

	Mixture      string // how several tasks are mixed, one of Mixtures; "" is proportional
	MixtureLimit int    // examples that a task counts with at most in a proportional mixture; 0 is 2^18

	Method       string
	PromptLength int     // c, virtual tokens
	Bottleneck   int     // b; 0 is the method's own
	Init         string  // a prompt file to start from
	InitText     string  // a text whose tokens' embeddings the prompt starts from
	InitFrom     string  // without these two, one of InitFroms; "" is the method's own
	InitStd      float64 // standard deviation where it is drawn from a Gaussian

	Epochs      int
	Steps       int64 // 0 is by Epochs
	BatchSize   int   // examples of a global batch
	MicroBatch  int   // examples of a micro-batch
	LR          float64
	Warmup      float64 // above 1 a number of steps, else a share of all
	WeightDecay float64
	MaxGradNorm float64 // 0: no clipping

	MaxSourceLength int // tokens, </s> included, prompt not
	MaxTargetLength int
	Seed            uint64
	EvalEvery       int64 // steps; 0 is once an epoch, -1 never
	EvalFirst       bool  // evaluate the initial prompt too
	Patience        int   `json:",omitempty"` // stop after this many evaluations in a row without an improvement; 0: after the last step
}

// DefaultSettings are the paper's (section 4.2), and where it is silent those of the authors' code.
func DefaultSettings() Settings {
	return Settings{
		Task: "rte", Template: "dpt", Method: "dpt", PromptLength: 100, InitStd: 1, Epochs: 100, BatchSize: 16, MicroBatch: 2,
		LR: 0.3, Warmup: 0.1, WeightDecay: 1e-5, MaxGradNorm: 1, MaxSourceLength: 256, MaxTargetLength: 128, Seed: 42, EvalFirst: true,
	}
}

// Validate checks ranges. Each error names the flag that sets the field.
func (s Settings) Validate() error {
	type rule struct {
		ok   bool
		flag string
		got  any
		want string
	}
	fin := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	for _, r := range []rule{
		{(s.PromptLength >= 1 || s.Method == FineTuning) && s.PromptLength <= 1<<16, "prompt-length", s.PromptLength, "1 to 65536"},
		{s.Bottleneck >= 0 && s.Bottleneck <= 1<<20, "bottleneck", s.Bottleneck, "0 (the method's own) to 1048576"},
		{fin(s.InitStd) && s.InitStd > 0, "init-std", s.InitStd, "a positive number"},
		{s.Epochs >= 1, "epochs", s.Epochs, "at least 1"},
		{s.Steps >= 0, "steps", s.Steps, "at least 0"},
		{s.BatchSize >= 1 && s.BatchSize <= 1<<16, "batch-size", s.BatchSize, "1 to 65536"},
		{s.MicroBatch >= 1 && s.MicroBatch <= s.BatchSize, "micro-batch", s.MicroBatch, fmt.Sprintf("1 to the batch size, %d", s.BatchSize)},
		{fin(s.LR) && s.LR >= 0, "lr", s.LR, "a number of at least 0"},
		{fin(s.Warmup) && s.Warmup >= 0, "warmup", s.Warmup, "a number of at least 0"},
		{fin(s.WeightDecay) && s.WeightDecay >= 0, "weight-decay", s.WeightDecay, "a number of at least 0"},
		{fin(s.MaxGradNorm) && s.MaxGradNorm >= 0, "max-grad-norm", s.MaxGradNorm, "a number of at least 0"},
		{s.MaxSourceLength >= 1, "max-source-length", s.MaxSourceLength, "at least 1"},
		{s.MaxTargetLength >= 1, "max-target-length", s.MaxTargetLength, "at least 1"},
		{s.EvalEvery >= -1, "eval-every", s.EvalEvery, "a number of steps, 0 (every epoch) or -1 (never)"},
		{s.Patience >= 0, "patience", s.Patience, "at least 0"},
		{s.Patience == 0 || s.EvalEvery >= 0, "patience", s.Patience, "0 where --eval-every -1 leaves nothing to wait for"},
		{s.Shots >= 0, "shots", s.Shots, "at least 0"},
		{s.Mixture == "" || slices.Contains(Mixtures, s.Mixture), "mixture", s.Mixture, "one of " + strings.Join(Mixtures, ", ")},
		{s.Mixture == "" && s.MixtureLimit == 0 || strings.Contains(s.Task, ","), "mixture", s.Mixture, "several tasks, such as --task rte,cb"},
		{s.MixtureLimit >= 0, "mixture-limit", s.MixtureLimit, "at least 0"},
	} {
		if !r.ok {
			return &SettingError{Flag: r.flag, Found: fmt.Sprint(r.got), Want: r.want}
		}
	}
	return s.validateStart()
}

// SettingError is a setting out of its range.
type SettingError struct{ Flag, Found, Want string }

func (e *SettingError) Error() string {
	return fmt.Sprintf("--%s: %s, want %s", e.Flag, e.Found, e.Want)
}

// Spec is everything that decides a job's result, resolved: two jobs with equal specs end with
// equal bits on one engine build and instruction set. It is what a restart must match.
type Spec struct {
	Task            string  `json:"task"`
	Template        string  `json:"template"`
	Mixture         string  `json:"mixture,omitempty"`       // of several tasks
	MixtureLimit    int     `json:"mixture_limit,omitempty"` // of a proportional mixture
	Model           string  `json:"model"`
	ModelDigest     string  `json:"model_digest"`
	TokenizerDigest string  `json:"tokenizer_digest"`
	TrainDigest     string  `json:"train_digest"`
	TrainExamples   int     `json:"train_examples"`
	EvalSplit       string  `json:"eval_split"`
	EvalDigest      string  `json:"eval_digest,omitempty"`
	EvalExamples    int     `json:"eval_examples"`
	Shots           int     `json:"shots"`
	Method          string  `json:"method"`
	Dim             int     `json:"d_model"`
	PromptLength    int     `json:"prompt_length"`
	Bottleneck      int     `json:"bottleneck"`
	Parameters      int     `json:"trainable_parameters"`
	InitFrom        string  `json:"init_from"` // one of InitFroms, "text" or "file"
	InitStd         float64 `json:"init_std"`
	InitDigest      string  `json:"init_digest"`
	Epochs          int     `json:"epochs"`
	StepsPerEpoch   int64   `json:"steps_per_epoch"`
	Steps           int64   `json:"steps"`
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
	Patience        int     `json:"patience,omitempty"` // of early stopping; the learning rate's schedule is that of all Steps
}

// Canonical is the spec's one encoding.
func (s Spec) Canonical() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("coordinator: a spec of plain numbers and strings does not marshal: %v", err))
	}
	return b
}

// Prompt is the prompt's parametrization.
func (s Spec) Prompt() prompt.Config {
	return prompt.Config{Method: s.Method, Dim: s.Dim, Length: s.PromptLength, Bottleneck: s.Bottleneck}
}

// AdamW is the optimizer.
func (s Spec) AdamW() optim.AdamW {
	return optim.AdamW{LR: s.LR, Beta1: s.Beta1, Beta2: s.Beta2, Eps: s.Epsilon, WeightDecay: s.WeightDecay}
}

// train is the part of the spec that a worker needs.
func (s Spec) TrainSpec() *coordpb.TrainSpec {
	return &coordpb.TrainSpec{
		Method: s.Method, Dim: int32(s.Dim), Length: int32(s.PromptLength), Bottleneck: int32(s.Bottleneck),
		LearningRate: s.LR, Beta1: s.Beta1, Beta2: s.Beta2, Epsilon: s.Epsilon, WeightDecay: s.WeightDecay,
		MaxGradNorm: s.MaxGradNorm, WarmupSteps: s.WarmupSteps, TotalSteps: s.Steps,
	}
}

// diffSpec names the settings in which the stored spec differs from the wanted one; "" when they
// agree. Where the model lies does not matter, its digest does.
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
			diffs = append(diffs, fmt.Sprintf("%s is %v, want %v", h.Type().Field(i).Tag.Get("json"), a, b))
		}
	}
	return strings.ReplaceAll(strings.Join(diffs, "; "), ",omitempty", ""), nil
}
