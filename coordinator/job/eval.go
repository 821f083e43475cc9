package job

import (
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
)

// loadEval reads the evaluation split of a task; nil where the settings ask for no evaluation or
// the data has nothing to evaluate on.
func loadEval(
	fsys fs.FS,
	task dataset.Task,
	tmpl dataset.Template,
	s *Settings,
	logger *slog.Logger,
) (*dataset.Split, error) {
	if s.EvalEvery < 0 {
		return nil, nil
	}
	name := s.EvalSplit
	if name == "" {
		if !dataset.HasSplit(fsys, task, "val") {
			logger.Warn("no validation split: training goes without evaluation, and the last prompt is the one kept "+
				"(--eval-split train scores the training examples)", "task", task.Name())
			return nil, nil
		}
		name = "val"
	}
	split, err := dataset.Load(fsys, task, name, tmpl)
	if err != nil {
		return nil, err
	}
	if !split.Labeled {
		return nil, fmt.Errorf("evaluation split %q of %s has no labels, want a labeled one such as val",
			name, task.Name())
	}
	return split, nil
}

// EvalDue reports whether the state after the given number of steps is to be evaluated.
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

// EvalExamples are the evaluation examples [from, to), tokenized. The caller must not change them.
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

// Score returns the metrics of one prediction for each example of Eval, and the score that the best
// state is chosen by. For several tasks each metric's name has its task in front, as in
// "rte.accuracy", and the score is the mean of the tasks' scores.
func (j *Job) Score(texts []string) (dataset.Metrics, float64, error) {
	if len(j.EvalSplits) == 1 {
		metrics, err := j.EvalSplits[0].Score(texts)
		return metrics, metrics.Primary(), err
	}
	var all dataset.Metrics
	var sum float64
	for _, split := range j.EvalSplits {
		n := len(split.Eval)
		metrics, err := split.Score(texts[:n])
		if err != nil {
			return nil, 0, err
		}
		texts = texts[n:]
		for _, m := range metrics {
			all = append(all, dataset.Metric{Name: split.Task.Name() + "." + m.Name, Value: m.Value})
		}
		sum += metrics.Primary()
	}
	return all, sum / float64(len(j.EvalSplits)), nil
}
