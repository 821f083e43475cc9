package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/jobflags"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/checkpoint"
)

// evalFlags are the flags of dpt eval.
type evalFlags struct {
	backboneFlags
	task        string
	data        string
	split       string
	template    string
	maxSource   int
	maxTarget   int
	limit       int
	predictions string
}

// runEval prints a task's metrics on a split.
func runEval(ctx context.Context, args []string, std cli.IO) error {
	f := evalFlags{split: "val", maxSource: 256, maxTarget: 128}
	cmd := cli.NewCommand("dpt eval", "--model DIR --prompt FILE --task TASK --data DIR [--split SPLIT]",
		"Decodes a labeled split greedily and prints a JSON object for each task: the task's metrics in percent, as "+
			"SuperGLUE and the T5 code define them, and the mean token loss of the targets.")
	cmd.Examples = []cli.Example{{
		Command: "dpt eval --model ./t5-large --prompt runs/record/prompt.safetensors --task record " +
			"--data ./superglue --split val",
	}}
	f.bind(cmd)
	g := cmd.Group("Data")
	g.String(&f.task, "task", "one of "+commaList(dataset.Tasks())+", or several with commas: `TASK`",
		jobflags.CheckTasks).DefaultText("the prompt's own record")
	g.String(&f.data, "data", "`DIR` with a directory per task, as SuperGLUE is published", cli.ExistingDir).
		DefaultText("the embedded data set")
	g.Choice(&f.split, "split", "`SPLIT` to evaluate, one of train, val, validation and test",
		"train", "val", "validation", "test")
	g.Choice(&f.template, "template", "how examples become text", string(dataset.DPT), string(dataset.T5)).
		DefaultText("the prompt's own record, else dpt")
	g.Int(&f.limit, "limit", "evaluate the first `N` examples only; 0 is all", cli.AtLeast(0))
	g = cmd.Group("Lengths")
	g.Int(&f.maxSource, "max-source-length", "cut sources to `N` tokens, </s> included; 0 does not cut", cli.AtLeast(0))
	g.Int(&f.maxTarget, "max-target-length", "stop answers after `N` tokens", cli.AtLeast(1))
	g = cmd.Group("Output")
	g.String(&f.predictions, "predictions",
		"write a JSON line per example to `FILE`: id, prediction, and target or answers", cli.NewFile)
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	if f.task == "" && f.prompt == "" {
		return cmd.Usagef("--task is missing, want --task TASK, one of %s", commaList(dataset.Tasks()))
	}
	if err := f.fromPrompt(cmd); err != nil {
		return err
	}
	splits, err := f.load()
	if err != nil {
		return err
	}
	b, err := f.open(std.Err)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	var answers []prediction
	for _, split := range splits {
		texts, loss, err := f.decode(ctx, b, split.Eval)
		if err != nil {
			return err
		}
		metrics, err := split.Score(texts)
		if err != nil {
			return err
		}
		line, err := reportLine(metrics, loss, split)
		if err != nil {
			return err
		}
		if _, err := std.Out.Write(line); err != nil {
			return err
		}
		name := ""
		if len(splits) > 1 {
			name = split.Task.Name()
		}
		answers = append(answers, predictionsOf(name, split.Eval, texts)...)
	}
	if f.predictions != "" {
		return writePredictions(f.predictions, answers)
	}
	return nil
}

// fromPrompt fills in the task and the template from the prompt's file where no flag gives them.
func (f *evalFlags) fromPrompt(cmd *cli.Command) error {
	if f.prompt == "" {
		return nil
	}
	p, err := checkpoint.ReadPrompt(f.prompt)
	if err != nil {
		return err
	}
	if f.task == "" {
		if f.task = p.Metadata["task"]; f.task == "" {
			return cmd.Usagef("--task is missing and %s does not say which task it is for, want --task TASK", f.prompt)
		}
	}
	if f.template == "" {
		f.template = p.Metadata["template"]
	}
	return nil
}

// load reads each task's split and cuts it to --limit.
func (f *evalFlags) load() (splits []*dataset.Split, err error) {
	tasks, err := job.ParseTasks(f.task)
	if err != nil {
		return nil, err
	}
	template, err := dataset.ParseTemplate(f.template)
	if err != nil {
		return nil, err
	}
	fsys, err := dataset.OpenDir(f.data)
	if err != nil {
		return nil, err
	}
	for _, task := range tasks {
		split, err := dataset.Load(fsys, task, f.split, template)
		if err != nil {
			return nil, err
		}
		if !split.Labeled {
			return nil, fmt.Errorf("split %s of %s has no labels to compare with, want a labeled split "+
				"(dpt predict answers without labels)", split.Name, task.Name())
		}
		if f.limit > 0 && f.limit < len(split.Eval) {
			first := *split
			first.Eval = split.Eval[:f.limit]
			split = &first
		}
		splits = append(splits, split)
	}
	return splits, nil
}

// decode decodes every example and scores its target. loss is the mean over all target tokens.
func (f *evalFlags) decode(
	ctx context.Context, b *backbone, examples []dataset.Example,
) (texts []string, loss float64, err error) {
	texts = make([]string, 0, len(examples))
	tokens := 0
	for len(texts) < len(examples) {
		if ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
		var pairs []model.Pair
		for _, e := range examples[len(texts):min(len(texts)+passPairs, len(examples))] {
			pairs = append(pairs, model.Pair{
				Source: encode(b.tok, e.Source, f.maxSource),
				Target: encode(b.tok, e.Target, f.maxTarget),
			})
		}
		outputs, result, err := b.Evaluate(b.prompt.Embeddings, pairs, f.maxTarget)
		if err != nil {
			first, last := examples[len(texts)], examples[len(texts)+len(pairs)-1]
			return nil, 0, fmt.Errorf("examples %s to %s: %w", first.ID, last.ID, err)
		}
		for _, ids := range outputs {
			texts = append(texts, b.tok.Decode(ids))
		}
		loss += result.Loss
		tokens += result.Tokens
	}
	return texts, loss / float64(max(tokens, 1)), nil
}

// reportLine is one JSON object: the metrics in their order, then what they were measured on.
func reportLine(metrics dataset.Metrics, loss float64, split *dataset.Split) ([]byte, error) {
	values, err := json.Marshal(metrics)
	if err != nil {
		return nil, err
	}
	about, err := json.Marshal(struct {
		Loss     float64 `json:"loss"`
		Task     string  `json:"task"`
		Split    string  `json:"split"`
		Template string  `json:"template"`
		Examples int     `json:"examples"`
	}{loss, split.Task.Name(), split.Name, string(split.Template), len(split.Eval)})
	if err != nil { // JSON has no NaN
		return nil, fmt.Errorf("loss %v, want a finite number", loss)
	}
	// Both are objects: {"a":1} and {"loss":2} become {"a":1,"loss":2}.
	return bytes.Join([][]byte{bytes.TrimSuffix(values, []byte("}")), append(about[1:], '\n')}, []byte(",")), nil
}

// prediction is a line of --predictions.
type prediction struct {
	Task       string   `json:"task,omitempty"` // only where there are several
	ID         string   `json:"id"`
	Prediction string   `json:"prediction"`
	Target     string   `json:"target,omitempty"`
	Answers    []string `json:"answers,omitempty"`
}

func predictionsOf(task string, examples []dataset.Example, texts []string) []prediction {
	out := make([]prediction, len(examples))
	for i, e := range examples {
		out[i] = prediction{Task: task, ID: e.ID, Prediction: texts[i], Target: e.Target}
		if len(e.Answers) > 0 {
			out[i].Target, out[i].Answers = "", e.Answers
		}
	}
	return out
}

func writePredictions(path string, predictions []prediction) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, p := range predictions {
		if err := enc.Encode(p); err != nil {
			return err
		}
	}
	return checkpoint.WriteFileAtomic(path, b.Bytes())
}
