package job

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
)

// How several tasks are mixed (Settings.Mixture).
const (
	// mixProportional draws a task by its number of examples, or MixtureLimit if it has more.
	mixProportional = "proportional"
	// mixEqual draws as many examples of each task.
	mixEqual = "equal"
)

// Mixtures are the values of Settings.Mixture.
var Mixtures = []string{mixProportional, mixEqual}

// defaultMixtureLimit is that of the DPT authors' code.
const defaultMixtureLimit = 1 << 18

// training is what a job trains on: the training split of one task, or a mixture of several.
type training struct {
	name     string // the tasks' names, with commas between them
	template dataset.Template
	sizes    []int             // examples of each task
	examples []dataset.Example // of all tasks, task after task
	digest   ids.Digest
	mixture  string // one of Mixtures; "" for a single task
	limit    int    // of a proportional mixture, else 0
}

// ParseTasks returns the tasks of a setting such as "rte" or "rte,cb".
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

// loadData reads the tasks' training splits, and into j those of the evaluation if there is one.
func (j *Job) loadData(s *Settings, logger *slog.Logger) (*training, error) {
	fsys, err := dataset.OpenDir(s.Data)
	if err != nil {
		return nil, err
	}
	tasks, err := ParseTasks(s.Task)
	if err != nil {
		return nil, err
	}

	// Every task's training split, as large as the settings want it, and its evaluation split in
	// the same template.
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

	// A mixture has defaults of its own, and a single task has none of them.
	if len(tasks) > 1 {
		t.mixture = cmp.Or(s.Mixture, mixProportional)
		if t.mixture == mixProportional {
			t.limit = cmp.Or(s.MixtureLimit, defaultMixtureLimit)
		}
	}
	return t, nil
}

// named puts the task's name in front of the ids of its examples if the job has several tasks,
// whose ids may be equal.
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

// sampler returns what chooses the examples of each step.
func (t *training) sampler(s Settings) (sampler, error) {
	if t.mixture == "" {
		return dataset.NewSampler(len(t.examples), s.BatchSize, s.MicroBatch, s.Seed)
	}
	share := dataset.Proportional(t.limit)
	if t.mixture == mixEqual {
		share = dataset.Equal
	}
	return dataset.NewMixture(t.sizes, share, s.BatchSize, s.MicroBatch, s.Seed)
}
