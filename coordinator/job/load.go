package job

import (
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
	"github.com/dptune/dpt/model/t5"
	"github.com/dptune/dpt/model/tiny"
)

// Load reads and checks everything that the settings name: the model, its tokenizer, the data, and
// where training starts from.
func Load(s Settings, logger *slog.Logger) (*Job, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Method == FineTuning {
		s.PromptLength = 0
	}

	m, err := tiny.OpenModel(s.Model)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	job := &Job{}
	config, err := job.checkModel(s, m)
	if err != nil {
		return nil, err
	}
	if err := job.loadTokenizer(s); err != nil {
		return nil, err
	}

	train, err := job.loadData(&s, logger)
	if err != nil {
		return nil, err
	}
	sampler, err := train.sampler(s)
	if err != nil {
		return nil, err
	}
	job.planner = &planner{
		examples:     train.examples,
		tokenizer:    job.Tokenizer,
		sampler:      sampler,
		maxSource:    s.MaxSourceLength,
		maxTarget:    s.MaxTargetLength,
		promptLength: s.PromptLength,
	}

	job.Spec = resolveSpec(s, train, sampler.StepsPerEpoch())
	job.Spec.Model, job.Spec.ModelDigest = job.ModelPath, job.ModelDigest.String()
	job.Spec.TokenizerDigest = ids.Digest(job.Tokenizer.Digest()).String()
	job.Spec.Dim = config.DModel
	if err := job.specifyEvaluation(s); err != nil {
		return nil, err
	}
	if s.Bottleneck == 0 && !job.Spec.FineTunes() {
		job.Spec.Bottleneck = prompt.DefaultBottleneck(s.Method, config.DModel, s.PromptLength)
	}
	return job, job.initialize(s, m)
}

// checkModel checks the model's files against its configuration, and fills in the job's fields
// about the model.
func (j *Job) checkModel(s Settings, m *checkpoint.Model) (config t5.Config, err error) {
	if config, err = t5.ParseConfig(m.Config()); err != nil {
		return config, fmt.Errorf("model %s: %w", tiny.NameOf(s.Model), err)
	}
	if err := t5.Check(config, m); err != nil {
		return config, fmt.Errorf("model %s: %w", tiny.NameOf(s.Model), err)
	}
	j.ModelConfig, j.vocabulary = m.Config(), config.VocabSize
	digest, err := m.Digest()
	if err != nil {
		return config, err
	}
	j.ModelDigest = digest
	if s.Model != "" {
		if j.ModelPath, err = filepath.Abs(s.Model); err != nil {
			return config, fmt.Errorf("model %s: %w", s.Model, err)
		}
	}
	return config, nil
}

// loadTokenizer opens the tokenizer, and refuses one whose ids the model does not embed.
func (j *Job) loadTokenizer(s Settings) (err error) {
	if j.Tokenizer, err = openTokenizer(s); err != nil {
		return err
	}
	if have, room := j.Tokenizer.VocabSize(), j.vocabulary; have > room {
		return fmt.Errorf("tokenizer has %d ids, model %s embeds %d: they do not belong together",
			have, tiny.NameOf(s.Model), room)
	}
	return nil
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

// resolveSpec is what the settings and the training data decide of the spec.
func resolveSpec(s Settings, train *training, stepsPerEpoch int64) Spec {
	total := s.Steps
	if total == 0 {
		total = stepsPerEpoch * int64(s.Epochs)
	}
	adam := optim.NewAdamW(s.LR, s.WeightDecay)
	return Spec{
		Task:            train.name,
		Template:        string(train.template),
		Mixture:         train.mixture,
		MixtureLimit:    train.limit,
		TrainDigest:     train.digest.String(),
		TrainExamples:   len(train.examples),
		Shots:           s.Shots,
		Method:          s.Method,
		PromptLength:    s.PromptLength,
		Bottleneck:      s.Bottleneck,
		InitFrom:        s.initFrom(),
		InitStd:         s.InitStd,
		Epochs:          s.Epochs,
		StepsPerEpoch:   stepsPerEpoch,
		Steps:           total,
		BatchSize:       s.BatchSize,
		MicroBatch:      s.MicroBatch,
		LR:              adam.LR,
		WarmupSteps:     optim.WarmupSteps(s.Warmup, total),
		WeightDecay:     adam.WeightDecay,
		Beta1:           adam.Beta1,
		Beta2:           adam.Beta2,
		Epsilon:         adam.Eps,
		MaxGradNorm:     s.MaxGradNorm,
		MaxSourceLength: s.MaxSourceLength,
		MaxTargetLength: s.MaxTargetLength,
		Seed:            s.Seed,
		EvalEvery:       s.EvalEvery,
		EvalFirst:       s.EvalFirst,
		Patience:        s.Patience,
	}
}

// specifyEvaluation completes the spec with what is evaluated. Without an evaluation split nothing
// is, and the spec says so, whatever the settings ask for.
func (j *Job) specifyEvaluation(s Settings) error {
	j.evalTokens = make([]*coordpb.Example, len(j.Eval))
	if len(j.EvalSplits) > 0 {
		j.Spec.EvalSplit = j.EvalSplits[0].Name
		j.Spec.EvalExamples = len(j.Eval)
		j.Spec.EvalDigest = digestOf(j.EvalSplits).String()
		return nil
	}
	if s.Patience > 0 {
		return &SettingError{
			Flag:  "patience",
			Found: fmt.Sprint(s.Patience),
			Want:  "0, as the data has no split to evaluate",
		}
	}
	j.Spec.EvalEvery, j.Spec.EvalFirst = -1, false
	return nil
}
