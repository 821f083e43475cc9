package job

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Settings are what a user asks of a job. The zero value of a field means a default where the
// field's comment says so.
type Settings struct {
	Model     string // a directory as Transformers writes it; "" is the embedded tiny T5
	Tokenizer string // a file or directory; "" is the model's own
	Data      string // a directory in SuperGLUE's layout; "" is the embedded mini set
	Task      string // or several with commas between them
	Template  string // how an example becomes text: a dataset.Template
	EvalSplit string // "" is "val" where the data has one, else no evaluation
	Shots     int    // train on this many examples of each task, drawn by the seed; 0 is all

	Mixture      string // how several tasks are mixed, one of Mixtures; "" is proportional
	MixtureLimit int    // a proportional mixture counts no more examples of a task; 0 is 2^18

	Method       string  // one of Methods
	PromptLength int     // c, virtual tokens
	Bottleneck   int     // b; 0 is the method's own
	Init         string  // a prompt file to start from
	InitText     string  // a text whose tokens' embeddings the prompt starts from
	InitFrom     string  // without Init and InitText, one of InitFroms; "" is the method's own
	InitStd      float64 // standard deviation where the prompt is drawn from a Gaussian

	Epochs      int     // passes over the training examples
	Steps       int64   // 0 is by Epochs
	BatchSize   int     // examples of a global batch
	MicroBatch  int     // examples of a micro-batch
	LR          float64 // the peak learning rate
	Warmup      float64 // above 1 a number of steps, else a share of all
	WeightDecay float64
	MaxGradNorm float64 // of the global gradient; 0 is no clipping

	MaxSourceLength int // tokens, </s> included, prompt not
	MaxTargetLength int // tokens, </s> included
	Seed            uint64
	EvalEvery       int64 // steps; 0 is once an epoch, -1 never
	EvalFirst       bool  // evaluate the initial prompt too
	// Patience stops the job after this many evaluations in a row without an improvement; 0 is
	// after the last step.
	Patience int `json:",omitempty"`
}

// DefaultSettings are the paper's (section 4.2), and where it is silent those of the authors' code.
func DefaultSettings() Settings {
	return Settings{
		Task:            "rte",
		Template:        "dpt",
		Method:          "dpt",
		PromptLength:    100,
		InitStd:         1,
		Epochs:          100,
		BatchSize:       16,
		MicroBatch:      2,
		LR:              0.3,
		Warmup:          0.1,
		WeightDecay:     1e-5,
		MaxGradNorm:     1,
		MaxSourceLength: 256,
		MaxTargetLength: 128,
		Seed:            42,
		EvalFirst:       true,
	}
}

// SettingError is a setting that is out of its range.
type SettingError struct {
	Flag  string // that sets it, without the dashes
	Found string
	Want  string
}

func (e *SettingError) Error() string {
	return fmt.Sprintf("--%s: %s, want %s", e.Flag, e.Found, e.Want)
}

// Validate checks ranges. It returns the first violation, a *SettingError.
func (s Settings) Validate() error {
	type rule struct {
		ok    bool
		flag  string
		found any
		want  string
	}
	several := strings.Contains(s.Task, ",")
	for _, r := range []rule{
		// The prompt.
		{
			s.PromptLength <= 1<<16 && (s.PromptLength >= 1 || s.Method == FineTuning),
			"prompt-length", s.PromptLength, "1 to 65536",
		},
		{
			s.Bottleneck >= 0 && s.Bottleneck <= 1<<20,
			"bottleneck", s.Bottleneck, "0 (the method's own) to 1048576",
		},
		{isFinite(s.InitStd) && s.InitStd > 0, "init-std", s.InitStd, "a positive number"},

		// Training.
		{s.Epochs >= 1, "epochs", s.Epochs, "at least 1"},
		{s.Steps >= 0, "steps", s.Steps, "at least 0"},
		{s.BatchSize >= 1 && s.BatchSize <= 1<<16, "batch-size", s.BatchSize, "1 to 65536"},
		{
			s.MicroBatch >= 1 && s.MicroBatch <= s.BatchSize,
			"micro-batch", s.MicroBatch, fmt.Sprintf("1 to the batch size, %d", s.BatchSize),
		},
		{isNotNegative(s.LR), "lr", s.LR, "a number of at least 0"},
		{isNotNegative(s.Warmup), "warmup", s.Warmup, "a number of at least 0"},
		{isNotNegative(s.WeightDecay), "weight-decay", s.WeightDecay, "a number of at least 0"},
		{isNotNegative(s.MaxGradNorm), "max-grad-norm", s.MaxGradNorm, "a number of at least 0"},
		{s.MaxSourceLength >= 1, "max-source-length", s.MaxSourceLength, "at least 1"},
		{s.MaxTargetLength >= 1, "max-target-length", s.MaxTargetLength, "at least 1"},

		// Evaluation.
		{
			s.EvalEvery >= -1,
			"eval-every", s.EvalEvery, "a number of steps, 0 (every epoch) or -1 (never)",
		},
		{s.Patience >= 0, "patience", s.Patience, "at least 0"},
		{
			s.Patience == 0 || s.EvalEvery >= 0,
			"patience", s.Patience, "0 where --eval-every -1 leaves nothing to wait for",
		},

		// The data.
		{s.Shots >= 0, "shots", s.Shots, "at least 0"},
		{
			s.Mixture == "" || slices.Contains(Mixtures, s.Mixture),
			"mixture", s.Mixture, "one of " + strings.Join(Mixtures, ", "),
		},
		{
			several || s.Mixture == "" && s.MixtureLimit == 0,
			"mixture", s.Mixture, "several tasks, such as --task rte,cb",
		},
		{s.MixtureLimit >= 0, "mixture-limit", s.MixtureLimit, "at least 0"},
	} {
		if !r.ok {
			return &SettingError{Flag: r.flag, Found: fmt.Sprint(r.found), Want: r.want}
		}
	}
	return s.validateStart()
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func isNotNegative(v float64) bool { return isFinite(v) && v >= 0 }
