package job

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
)

// How several tasks are mixed (Settings.Mixture).
const (
	mixProportional = "proportional" // by their numbers of examples, none counted with more than MixtureLimit
	mixEqual        = "equal"        // as many examples of each
)

// Mixtures are the values of Settings.Mixture.
var Mixtures = []string{mixProportional, mixEqual}

// defaultMixtureLimit is the one of the DPT authors' code, 2^18.
const defaultMixtureLimit = 1 << 18

// training is what a job trains on: the training split of one task, or several tasks' mixed.
type training struct {
	name     string // the tasks' names, with commas between them
	template dataset.Template
	sizes    []int             // examples of each task
	examples []dataset.Example // of all tasks, after one another
	digest   ids.Digest
	mixture  string // "" for a single task
	limit    int
}

// Tasks are the tasks of a setting such as "rte" or "rte,cb".
func ParseTasks(list string) ([]dataset.Task, error) {
	var out []dataset.Task
	for _, name := range strings.Split(list, ",") {
		task, err := dataset.Lookup(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		if slices.Contains(out, task) {
			return nil, fmt.Errorf("task %s is there twice in %q, want each once", task.Name(), list)
		}
		out = append(out, task)
	}
	return out, nil
}

// loadData reads the tasks' training splits and, where there are any, the evaluation splits.
func (j *Job) loadData(s *Settings, logger *slog.Logger) (*training, error) {
	fsys, err := dataset.OpenDir(s.Data)
	if err != nil {
		return nil, err
	}
	tasks, err := ParseTasks(s.Task)
	if err != nil {
		return nil, err
	}
	t := &training{}
	var splits []*dataset.Split
	var names []string
	for _, task := range tasks {
		train, err := dataset.Load(fsys, task, "train", dataset.Template(s.Template))
		if err != nil {
			return nil, err
		}
		eval, err := loadEval(fsys, task, train.Template, s, logger)
		if err != nil {
			return nil, err
		}
		if s.Shots > 0 {
			if train, err = train.KShot(s.Shots, s.Seed); err != nil {
				return nil, err
			}
		}
		if eval != nil {
			j.EvalSplits = append(j.EvalSplits, eval)
			j.Eval = append(j.Eval, named(eval.Eval, task, len(tasks))...)
		}
		splits, names = append(splits, train), append(names, task.Name())
		t.template = train.Template
		t.sizes = append(t.sizes, len(train.Train))
		t.examples = append(t.examples, named(train.Train, task, len(tasks))...)
	}
	t.name, t.digest = strings.Join(names, ","), digestOf(splits)
	if len(tasks) > 1 {
		if t.mixture = s.Mixture; t.mixture == "" {
			t.mixture = mixProportional
		}
		if t.mixture == mixProportional {
			if t.limit = s.MixtureLimit; t.limit == 0 {
				t.limit = defaultMixtureLimit
			}
		}
	}
	return t, nil
}

// named puts the task before the ids of examples, which in a mixture of tasks do not tell them
// apart.
func named(examples []dataset.Example, task dataset.Task, tasks int) []dataset.Example {
	if tasks == 1 {
		return examples
	}
	out := slices.Clone(examples)
	for i := range out {
		out[i].ID = task.Name() + ":" + out[i].ID
	}
	return out
}

// digestOf identifies the data of one split, or of several in their order.
func digestOf(splits []*dataset.Split) ids.Digest {
	if len(splits) == 1 {
		return splits[0].Digest
	}
	h := sha256.New()
	for _, s := range splits {
		h.Write(s.Digest[:])
	}
	return ids.Digest(h.Sum(nil))
}

func (t *training) sampler(s Settings) (Sampler, error) {
	switch t.mixture {
	case "":
		return dataset.NewSampler(len(t.examples), s.BatchSize, s.MicroBatch, s.Seed)
	case mixEqual:
		return dataset.NewMixture(t.sizes, dataset.Equal, s.BatchSize, s.MicroBatch, s.Seed)
	}
	return dataset.NewMixture(t.sizes, dataset.Proportional(t.limit), s.BatchSize, s.MicroBatch, s.Seed)
}

func loadEval(fsys fs.FS, task dataset.Task, tmpl dataset.Template, s *Settings, logger *slog.Logger) (*dataset.Split, error) {
	if s.EvalEvery < 0 {
		return nil, nil
	}
	name := s.EvalSplit
	if name == "" {
		if !dataset.HasSplit(fsys, task, "val") {
			logger.Warn("no validation split: training goes without evaluation, and the last prompt is the one kept (--eval-split train scores the training examples)", "task", task.Name())
			return nil, nil
		}
		name = "val"
	}
	split, err := dataset.Load(fsys, task, name, tmpl)
	if err != nil {
		return nil, err
	}
	if !split.Labeled {
		return nil, fmt.Errorf("evaluation split %q of %s has no labels, want a labeled one such as val", name, task.Name())
	}
	return split, nil
}

// Score gives the metrics of predictions for Eval, and their score. Of several tasks the names have
// the task in front, as in "rte.accuracy", and the score is the mean of the tasks' scores.
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
