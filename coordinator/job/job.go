package job

import (
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
	"github.com/dptune/dpt/model/t5"
	"github.com/dptune/dpt/model/tiny"
)

// Job is a job's settings resolved against its files: the data, the tokenizer, the initial state.
// The coordinator holds the data set; workers get tokenized examples.
type Job struct {
	ID          string // for the log, if it does not hold the job yet
	Spec        Spec
	ModelPath   string // absolute; "" is the embedded model
	ModelDigest ids.Digest
	Tokenizer   tokenizer.Tokenizer
	Planner     *Planner
	EvalSplits  []*dataset.Split  // one a task; none without evaluation
	Eval        []dataset.Example // of all of them
	Initial     *optim.State

	Layout      []t5.Parameter     // of the trained weights, in full fine-tuning
	ModelConfig []byte             // the model's config.json
	vocabulary  int                // rows of the model's table of embeddings
	evalTokens  []*coordpb.Example // of Eval, as far as asked for

	InitialBlob ids.Blob // what Initial is as a blob

	mu    sync.Mutex
	plans map[ids.Step]*StepPlan // the last few asked for; under mu, with Planner
}

// keptPlans bounds the plans kept: those under way, for a generation that has to deal them again
// and for the metrics.
const keptPlans = 64

// Plan is the plan of step t. It may be called from any goroutine; the plan must not be changed.
func (j *Job) Plan(t ids.Step) *StepPlan {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.plans[t]
	if p == nil {
		if j.plans == nil {
			j.plans = map[ids.Step]*StepPlan{}
		}
		p = j.Planner.Plan(t)
		j.plans[t] = p
		if len(j.plans) > keptPlans {
			delete(j.plans, slices.Min(slices.Collect(maps.Keys(j.plans))))
		}
	}
	return p
}

// LoadJob reads and checks everything that the settings name.
func Load(s Settings, logger *slog.Logger) (*Job, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Method == FineTuning {
		s.PromptLength = 0
	}
	job := &Job{}
	m, err := openModel(s.Model)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	config, err := t5.ParseConfig(m.Config())
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", ModelName(s.Model), err)
	}
	if err := t5.Check(config, m); err != nil {
		return nil, fmt.Errorf("model %s: %w", ModelName(s.Model), err)
	}
	job.ModelConfig, job.vocabulary = m.Config(), config.VocabSize
	digest, err := m.Digest()
	if err != nil {
		return nil, err
	}
	job.ModelDigest = digest
	if s.Model != "" {
		if job.ModelPath, err = filepath.Abs(s.Model); err != nil {
			return nil, fmt.Errorf("model %s: %w", s.Model, err)
		}
	}
	if job.Tokenizer, err = openTokenizer(s); err != nil {
		return nil, err
	}
	if have, room := job.Tokenizer.VocabSize(), config.VocabSize; have > room {
		return nil, fmt.Errorf("tokenizer has %d ids, model %s embeds %d: they do not belong together", have, ModelName(s.Model), room)
	}
	train, err := job.loadData(&s, logger)
	if err != nil {
		return nil, err
	}
	sampler, err := train.sampler(s)
	if err != nil {
		return nil, err
	}
	job.Planner = &Planner{Examples: train.examples, Tokenizer: job.Tokenizer, Sampler: sampler, MaxSource: s.MaxSourceLength, MaxTarget: s.MaxTargetLength, PromptLength: s.PromptLength}

	total := s.Steps
	if total == 0 {
		total = sampler.StepsPerEpoch() * int64(s.Epochs)
	}
	adam := optim.NewAdamW(s.LR, s.WeightDecay)
	tokDigest := job.Tokenizer.Digest()
	job.Spec = Spec{
		Task: train.name, Template: string(train.template), Mixture: train.mixture, MixtureLimit: train.limit, Model: job.ModelPath, ModelDigest: job.ModelDigest.String(),
		TokenizerDigest: ids.Digest(tokDigest).String(), TrainDigest: train.digest.String(), TrainExamples: len(train.examples), Shots: s.Shots,
		Method: s.Method, Dim: config.DModel, PromptLength: s.PromptLength, Bottleneck: s.Bottleneck, InitFrom: s.initFrom(), InitStd: s.InitStd,
		Epochs: s.Epochs, StepsPerEpoch: sampler.StepsPerEpoch(), Steps: total, BatchSize: s.BatchSize, MicroBatch: s.MicroBatch,
		LR: adam.LR, WarmupSteps: optim.WarmupSteps(s.Warmup, total), WeightDecay: adam.WeightDecay, Beta1: adam.Beta1, Beta2: adam.Beta2, Epsilon: adam.Eps,
		MaxGradNorm: s.MaxGradNorm, MaxSourceLength: s.MaxSourceLength, MaxTargetLength: s.MaxTargetLength, Seed: s.Seed, EvalEvery: s.EvalEvery, EvalFirst: s.EvalFirst, Patience: s.Patience,
	}
	if job.evalTokens = make([]*coordpb.Example, len(job.Eval)); len(job.EvalSplits) > 0 {
		job.Spec.EvalSplit, job.Spec.EvalExamples = job.EvalSplits[0].Name, len(job.Eval)
		job.Spec.EvalDigest = digestOf(job.EvalSplits).String()
	} else {
		if s.Patience > 0 {
			return nil, &SettingError{Flag: "patience", Found: fmt.Sprint(s.Patience), Want: "0, as the data has no split to evaluate"}
		}
		job.Spec.EvalEvery, job.Spec.EvalFirst = -1, false
	}
	if s.Bottleneck == 0 && !job.Spec.FineTunes() {
		job.Spec.Bottleneck = prompt.DefaultBottleneck(s.Method, config.DModel, s.PromptLength)
	}
	return job, job.initialize(s, m)
}

func openModel(dir string) (*checkpoint.Model, error) {
	if dir == "" {
		return tiny.Open()
	}
	return checkpoint.OpenModel(dir)
}

func openTokenizer(s Settings) (tokenizer.Tokenizer, error) {
	switch {
	case s.Tokenizer != "":
		return tokenizer.OpenPath(s.Tokenizer)
	case s.Model != "":
		return tokenizer.Open(s.Model)
	}
	return tokenizer.OpenFS(tiny.FS(), "embedded model")
}

// EvalDue says whether the state after `step` steps is to be evaluated.
func (j *Job) EvalDue(step ids.Step) bool {
	t, every := int64(step), j.Spec.EvalEvery
	if every == 0 {
		every = j.Spec.StepsPerEpoch
	}
	switch {
	case every < 0:
		return false
	case t == 0:
		return j.Spec.EvalFirst
	}
	return t%every == 0 || t == j.Spec.Steps
}

// EvalExamples are the evaluation examples [from, to), tokenized.
func (j *Job) EvalExamples(from, to int) []*coordpb.Example {
	for i := from; i < to; i++ {
		if j.evalTokens[i] == nil {
			e := j.Eval[i]
			j.evalTokens[i] = &coordpb.Example{
				Id:     e.ID,
				Source: tokenizer.EncodeTruncated(j.Tokenizer, e.Source, j.Spec.MaxSourceLength),
				Target: tokenizer.EncodeTruncated(j.Tokenizer, e.Target, j.Spec.MaxTargetLength),
			}
		}
	}
	return j.evalTokens[from:to]
}

// ModelName is how messages to people name a model directory; "" is the embedded model.
func ModelName(name string) string {
	if name == "" {
		return "embedded"
	}
	return name
}
