// Package jobflags has the flags that determine what a job trains and how. The programs that start
// jobs share them.
package jobflags

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
)

// Flags are a job's flags bound to its settings.
type Flags struct {
	cmd      *cli.Command
	settings *job.Settings
	groups   []*cli.Group
}

// Bind adds all of a job's flags to cmd. The values of s are their defaults, and Parse writes to s.
func Bind(cmd *cli.Command, s *job.Settings) *Flags {
	f := &Flags{cmd: cmd, settings: s}
	g := f.group("Job")
	g.String(&s.Model, "model",
		"backbone, a `DIR` as Transformers writes it (config.json, model.safetensors, tokenizer)").
		DefaultText("an embedded tiny T5")
	f.bindData(g)
	g.String(&s.Task, "task", "`TASK`: "+strings.Join(dataset.Tasks(), ", ")+
		"; several with commas between them train one prompt for all", CheckTasks)
	g.Choice(&s.Mixture, "mixture",
		"how several tasks are mixed: by their numbers of examples (proportional), or with equal shares (equal)",
		job.Mixtures...).DefaultText("proportional")
	g.Int(&s.MixtureLimit, "mixture-limit", "count no task with more than `K` examples in a proportional mixture",
		cli.AtLeast(1)).DefaultText("262144")
	g.Int(&s.Shots, "shots", "train on `K` examples drawn by the seed (the paper takes 8, 16, 32); 0 is all",
		cli.AtLeast(0))
	g.Uint64(&s.Seed, "seed", "seed of the initial prompt and of the order of examples")

	g = f.group("Prompt")
	g.Choice(&s.Method, "method", methodHelp(), job.MethodNames()...)
	g.Int(&s.PromptLength, "prompt-length", "virtual tokens, c", cli.Between(1, 1<<16))
	bottleneck, bottleneckDefault := bottleneckHelp()
	g.Int(&s.Bottleneck, "bottleneck", bottleneck, cli.Between(1, 1<<20)).DefaultText(bottleneckDefault)
	g.Choice(&s.InitFrom, "init-from", "start from random numbers, normally distributed (gaussian) or uniform in "+
		"±0.5 as in the paper's code (uniform), from the embeddings of tokens drawn from the 5,000 most frequent "+
		"(vocabulary), or from those of the task's labels and then of such tokens (labels)", job.InitFroms...).
		DefaultText(initFromDefault())
	g.Float(&s.InitStd, "init-std", "standard deviation of the Gaussian", cli.MoreThan(0.0))
	g.String(&s.InitText, "init-text", "start from the embeddings of the tokens of `TEXT`, repeated to the length",
		cli.NotEmpty).DefaultText("--init-from")
	g.String(&s.Init, "init", "start from the prompt in `FILE`").DefaultText("--init-from")
	f.bindTraining()
	return f
}

// BindShared adds the flags that all jobs of an experiment share: the data, the training and the
// evaluation.
func BindShared(cmd *cli.Command, s *job.Settings) *Flags {
	f := &Flags{cmd: cmd, settings: s}
	f.bindData(f.group("Data"))
	f.bindTraining()
	return f
}

func (f *Flags) group(title string) *cli.Group {
	g := f.cmd.Group(title)
	f.groups = append(f.groups, g)
	return g
}

func (f *Flags) bindData(g *cli.Group) {
	s := f.settings
	g.String(&s.Tokenizer, "tokenizer", "tokenizer, a `FILE` or directory").DefaultText("the model's")
	g.String(&s.Data, "data", "SuperGLUE, a `DIR` of TASK/train.jsonl, val.jsonl, test.jsonl").
		DefaultText("an embedded tiny set")
	g.Choice(&s.Template, "template", "how examples become text: dpt (the paper's code) or t5 (T5's own)", "dpt", "t5")
}

func (f *Flags) bindTraining() {
	s := f.settings
	g := f.group("Training")
	g.Int(&s.Epochs, "epochs", "passes over the training examples", cli.AtLeast(1))
	g.Int64(&s.Steps, "steps", "optimizer steps; 0 leaves it to --epochs", cli.AtLeast(int64(0)))
	g.Int(&s.BatchSize, "batch-size", "examples of a global batch, over all workers", cli.Between(1, 1<<16))
	g.Int(&s.MicroBatch, "micro-batch", "examples that a worker computes at a time, at most --batch-size",
		cli.AtLeast(1))
	g.Float(&s.LR, "lr", "learning rate after warm-up; with --method ft the default is 0.0001", cli.AtLeast(0.0))
	g.Float(&s.Warmup, "warmup", "warm-up: above 1 a number of steps, else a share of all; the rate then falls "+
		"linearly to 0", cli.AtLeast(0.0))
	g.Float(&s.WeightDecay, "weight-decay", "AdamW's decoupled weight decay", cli.AtLeast(0.0))
	g.Float(&s.MaxGradNorm, "max-grad-norm", "clip the gradient's global norm; 0 does not clip", cli.AtLeast(0.0))
	g.Int(&s.MaxSourceLength, "max-source-length", "source tokens kept, including </s>, without the prompt",
		cli.AtLeast(1))
	g.Int(&s.MaxTargetLength, "max-target-length", "target tokens kept, and the longest output in evaluation",
		cli.AtLeast(1))

	g = f.group("Evaluation")
	g.Int64(&s.EvalEvery, "eval-every", "evaluate every `N` steps; 0 is after every epoch, -1 never",
		cli.AtLeast(int64(-1)))
	g.Choice(&s.EvalSplit, "eval-split", "`SPLIT` to evaluate and to choose the best prompt on: val or train",
		"val", "validation", "train").DefaultText("val where the data has it")
	g.Bool(&s.EvalFirst, "eval-first", "evaluate the initial prompt too")
	g.Int(&s.Patience, "patience", "stop early, after `N` evaluations in a row without an improvement; 0 does all "+
		"steps. The learning rate's schedule stays that of all steps", cli.AtLeast(0))
}

// Check completes the settings and checks them. Call it after cmd.Parse.
func (f *Flags) Check() error {
	if !f.cmd.Changed("micro-batch") {
		f.settings.MicroBatch = min(f.settings.MicroBatch, f.settings.BatchSize)
	}
	if f.settings.Method == job.FineTuning && !f.cmd.Changed("lr") {
		f.settings.LR = job.FineTuningLR
	}
	var bad *job.SettingError
	if err := f.settings.Validate(); errors.As(err, &bad) {
		return f.cmd.Usagef("%s", err)
	} else if err != nil {
		return err
	}
	return nil
}

// FirstChanged is the name of the first of the flags that the user gave; "" if there is none.
func (f *Flags) FirstChanged() string {
	for _, g := range f.groups {
		for _, name := range g.Names() {
			if f.cmd.Changed(name) {
				return name
			}
		}
	}
	return ""
}

// Absolute makes the settings' paths absolute, since a coordinator has another working directory
// than the program that asks it.
func Absolute(s *job.Settings) error {
	for _, path := range []*string{&s.Model, &s.Tokenizer, &s.Data, &s.Init} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("%s: %w", *path, err)
		}
		*path = abs
	}
	return nil
}

// CheckTasks checks for a task's name, or several with commas, in any case.
func CheckTasks(list string) error {
	if _, err := job.ParseTasks(list); err != nil {
		return fmt.Errorf("want one of %s, or several of them with commas, each once",
			strings.Join(dataset.Tasks(), ", "))
	}
	return nil
}

// CheckTask checks for a task's name, in any case.
func CheckTask(name string) error {
	if _, err := dataset.Lookup(name); err != nil {
		return fmt.Errorf("want one of %s", strings.Join(dataset.Tasks(), ", "))
	}
	return nil
}
