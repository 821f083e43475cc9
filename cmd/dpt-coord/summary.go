package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
)

// summary is the result of a job, as --log-format json prints it at the end.
type summary struct {
	Steps           int64           `json:"steps"`
	StoppedEarly    string          `json:"stopped_early,omitempty"`
	TrainLossBefore float64         `json:"train_loss_first_epoch"`
	TrainLossAfter  float64         `json:"train_loss_last_epoch"`
	EvalSplit       string          `json:"eval_split,omitempty"`
	EvalBefore      json.RawMessage `json:"eval_before,omitempty"`
	EvalAfter       json.RawMessage `json:"eval_after,omitempty"`
	EvalMajority    dataset.Metrics `json:"eval_majority,omitempty"`
	PromptStep      int64           `json:"prompt_step"`
	Prompt          string          `json:"prompt,omitempty"`
	Adapter         string          `json:"adapter,omitempty"`
	Model           string          `json:"model,omitempty"` // in place of both, after full fine-tuning
	StateDigest     string          `json:"state_digest"`
}

// summarize prints how the job ended: losses and metrics before and after, and where the prompt is.
func summarize(w io.Writer, s job.Settings, res *coordinator.Result, asJSON bool) error {
	first, last := res.Epochs[0], res.Epochs[len(res.Epochs)-1]
	sum := summary{
		Steps:           int64(res.Steps),
		StoppedEarly:    res.StoppedEarly,
		TrainLossBefore: first.Mean(),
		TrainLossAfter:  last.Mean(),
		PromptStep:      int64(res.PromptStep),
		Prompt:          filepath.Join(res.Out, "prompt.safetensors"),
		Adapter:         filepath.Join(res.Out, "adapter"),
		StateDigest:     res.StateDigest.String(),
	}
	what := "prompt"
	if s.Method == job.FineTuning {
		what, sum.Prompt, sum.Adapter, sum.Model = "model", "", "", filepath.Join(res.Out, "model")
	}
	var before, after *fsm.Evaluation
	if n := len(res.Evaluations); n > 0 {
		before = &res.Evaluations[0]
		for i := range res.Evaluations {
			if res.Evaluations[i].Step == res.PromptStep {
				after = &res.Evaluations[i]
			}
		}
		sum.EvalSplit, sum.EvalMajority = before.Split, res.Majority
		sum.EvalBefore, sum.EvalAfter = before.Metrics, after.Metrics
	}
	if asJSON {
		return json.NewEncoder(w).Encode(sum)
	}
	var b strings.Builder
	if res.AlreadyDone {
		b.WriteString("This job was finished before; its outputs are written again. Another --out starts another " +
			"job.\n")
	}
	if res.StoppedEarly != "" {
		fmt.Fprintf(&b, "The job %s.\n", res.StoppedEarly)
	}
	fmt.Fprintf(&b, "Done: step %d, epoch %d. On the examples each epoch trained on, before each update:\n",
		res.Steps, len(res.Epochs))
	fmt.Fprintf(&b, "  training loss    %.4f in the first epoch, %.4f in the last\n", first.Mean(), last.Mean())
	if before != nil {
		fmt.Fprintf(&b, "On the %d examples of %s, before training and with the best %s (step %d):\n",
			before.Examples, before.Split, what, res.PromptStep)
		fmt.Fprintf(&b, "  loss             %.4f -> %.4f\n", before.Loss, after.Loss)
		var from, to dataset.Metrics
		if err := errors.Join(json.Unmarshal(before.Metrics, &from), json.Unmarshal(after.Metrics, &to)); err != nil {
			return fmt.Errorf("read the committed metrics: %w", err)
		}
		for _, m := range from {
			now, _ := to.Get(m.Name)
			fmt.Fprintf(&b, "  %-16s %.2f -> %.2f", m.Name, m.Value, now)
			if v, ok := res.Majority.Get(m.Name); ok {
				fmt.Fprintf(&b, "  (%.2f for a constant answer)", v)
			}
			b.WriteByte('\n')
		}
	}
	if sum.Model != "" {
		fmt.Fprintf(&b, "Model:   %s (for Transformers)\n", sum.Model)
	} else {
		fmt.Fprintf(&b, "Prompt:  %s\nAdapter: %s (for Hugging Face PEFT)\n", sum.Prompt, sum.Adapter)
	}
	fmt.Fprintf(&b, "Details: %s\n", filepath.Join(res.Out, "{job.json,metrics.jsonl,eval.jsonl}"))
	fmt.Fprintf(&b, "Next:    %s\n", nextCommand(s, sum))
	_, err := io.WriteString(w, b.String())
	return err
}

// nextCommand is a dpt command that evaluates the prompt again. It assumes that dpt is beside this
// program.
func nextCommand(s job.Settings, sum summary) string {
	command := []string{filepath.Join(filepath.Dir(os.Args[0]), "dpt"), "eval"}
	if sum.Model != "" {
		command = append(command, "--model", sum.Model)
	} else if s.Model != "" {
		command = append(command, "--model", s.Model)
	}
	if s.Data != "" {
		command = append(command, "--data", s.Data)
	}
	split := sum.EvalSplit
	if split == "" {
		split = "train"
	}
	if sum.Prompt != "" {
		command = append(command, "--prompt", sum.Prompt)
	} else {
		command = append(command, "--task", s.Task)
	}
	return strings.Join(append(command, "--split", split), " ")
}
