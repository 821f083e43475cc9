package coordinator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
)

// outputs writes what a job leaves in its output directory:
//
//	prompt.safetensors   the prompt and the tensors it is made of (A and B): the best on the evaluation split, or the last where there is none
//	final.safetensors    the same after the last step
//	adapter/             prompt.safetensors as a Hugging Face PEFT adapter
//	model/, final/       instead of these three, in full fine-tuning: see models
//	metrics.jsonl        a line per committed step
//	eval.jsonl           a line per evaluation
//	job.json             the resolved settings, digests and how it ended
//
// All but metrics.jsonl are written aside and renamed; metrics.jsonl grows by whole lines.
type outputs struct {
	dir         string
	job         *job.Job
	states      *states
	logExamples bool
	metrics     *os.File
	size        int64    // of metrics.jsonl, up to its last whole line
	last        ids.Step // of metrics.jsonl
}

// StepLine is a line of metrics.jsonl.
type StepLine struct {
	Step         int64    `json:"step"`
	Epoch        int64    `json:"epoch"`
	Loss         float64  `json:"loss"` // mean token loss of the global batch, before the update
	LR           float64  `json:"lr"`
	GradNorm     float64  `json:"grad_norm"` // before clipping
	TokensPerSec float64  `json:"tokens_per_s"`
	Seconds      float64  `json:"seconds"`
	Generation   uint64   `json:"generation"`
	Workers      int      `json:"workers"`
	StateDigest  string   `json:"state_digest"`
	Examples     []string `json:"examples,omitempty"`
}

// EvalLine is a line of eval.jsonl.
type EvalLine struct {
	Step     int64           `json:"step"`
	Split    string          `json:"split"`
	Examples int64           `json:"examples"`
	Loss     float64         `json:"loss"` // mean token loss
	Score    float64         `json:"score"`
	Metrics  json.RawMessage `json:"metrics"`
	Seconds  float64         `json:"seconds"`
	Probe    json.RawMessage `json:"probe,omitempty"`               // of method svd: see prompt.Probe
	Stale    int             `json:"without_improvement,omitempty"` // with early stopping: evaluations since the best one
}

// JobFile is job.json.
type JobFile struct {
	JobID         string   `json:"job_id"`
	Version       string   `json:"version"`
	Settings      job.Spec `json:"settings"`
	Status        string   `json:"status"` // running, finished, failed or cancelled
	Finished      bool     `json:"finished"`
	Failure       string   `json:"failure,omitempty"`       // why it has failed for good
	StoppedEarly  string   `json:"stopped_early,omitempty"` // when and why it finished before its last step
	Step          int64    `json:"step"`
	StateDigest   string   `json:"state_digest"`
	HistoryDigest string   `json:"history_digest"`
	PromptStep    int64    `json:"prompt_step"` // of prompt.safetensors
	BestScore     float64  `json:"best_score,omitempty"`
}

// openOutputs prepares dir and cuts metrics.jsonl back to what the log has committed: a torn last line and lines of
// steps beyond go. The lines after o.last are for the caller to add.
func openOutputs(dir string, job *job.Job, k *states, logExamples bool, committed ids.Step) (o *outputs, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	path := filepath.Join(dir, "metrics.jsonl")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	o = &outputs{dir: dir, job: job, states: k, logExamples: logExamples, metrics: f}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		var l StepLine
		if err != nil || json.Unmarshal(line, &l) != nil || ids.Step(l.Step) > committed || ids.Step(l.Step) <= o.last {
			break
		}
		o.last = ids.Step(l.Step)
		o.size += int64(len(line))
	}
	if err := f.Truncate(o.size); err != nil {
		return nil, fmt.Errorf("truncate %s: %w", path, err)
	}
	return o, nil
}

func (o *outputs) close() error { return o.metrics.Close() }

// step appends a committed step's line.
func (o *outputs) step(r fsm.StepRecord, p *job.StepPlan) error {
	l := StepLine{
		Step: int64(r.Step), Epoch: p.Epoch, Loss: r.Loss(), LR: r.LearningRate, GradNorm: r.GradNorm,
		TokensPerSec: float64(p.Tokens) / max(r.Seconds, 1e-9), Seconds: r.Seconds, Generation: uint64(r.Generation), Workers: r.Workers,
		StateDigest: r.StateDigest.String(),
	}
	if o.logExamples {
		l.Examples = p.IDs()
	}
	line, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("metrics of step %d: %w", r.Step, err)
	}
	line = append(line, '\n')
	if _, err := o.metrics.WriteAt(line, o.size); err != nil {
		return errors.Join(fmt.Errorf("write metrics of step %d: %w", r.Step, err), o.metrics.Truncate(o.size))
	}
	o.size += int64(len(line))
	o.last = r.Step
	return nil
}

// evaluations rewrites eval.jsonl.
func (o *outputs) evaluations(all []fsm.Evaluation) error {
	var buf bytes.Buffer
	for i, e := range all {
		l := EvalLine{Step: int64(e.Step), Split: e.Split, Examples: e.Examples, Loss: e.Loss, Score: e.Score, Metrics: e.Metrics, Seconds: e.Seconds, Probe: e.Probe}
		if o.job.Spec.Patience > 0 {
			l.Stale = fsm.Stale(all[:i+1])
		}
		line, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("evaluation of step %d: %w", e.Step, err)
		}
		buf.Write(append(line, '\n'))
	}
	return checkpoint.WriteFileAtomic(filepath.Join(o.dir, "eval.jsonl"), buf.Bytes())
}

// describe writes job.json.
func (o *outputs) describe(m *fsm.Machine, version string) error {
	f := JobFile{JobID: m.JobID(), Version: version, Settings: o.job.Spec, Status: string(m.Status()), Finished: m.Finished(), Step: int64(m.Step()),
		StateDigest: m.StateDigest().String(), HistoryDigest: m.History().String(), PromptStep: int64(m.Step())}
	if b := m.Best(); b != nil {
		f.PromptStep, f.BestScore = int64(b.Step), b.Score
	}
	f.StoppedEarly = m.StoppedEarly()
	if e := m.Failure(); e != nil {
		f.Failure = fmt.Sprintf("step %d: %s", e.Step, e.Reason)
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("job.json: %w", err)
	}
	return checkpoint.WriteFileAtomic(filepath.Join(o.dir, "job.json"), append(data, '\n'))
}

// result is a trainer state to write the outputs from.
type result struct {
	step  ids.Step
	state []byte
	blob  ids.Blob // where it is too large for the log
}

// resultsOf are the best state on the evaluation split, or the last where there is none, and the last.
func resultsOf(m *fsm.Machine) (kept, final result) {
	final = result{m.Step(), m.State(), m.Blob()}
	kept = final
	if b := m.Best(); b != nil {
		kept = result{b.Step, b.State, b.Blob}
	}
	return kept, final
}

// results writes what was trained. Blobs are here.
func (o *outputs) results(best, last result) error {
	if o.job.Spec.FineTunes() {
		return o.models(best, last)
	}
	final, err := o.prompt(last)
	if err != nil {
		return err
	}
	kept, err := o.prompt(best)
	if err != nil {
		return err
	}
	if err := checkpoint.WritePrompt(filepath.Join(o.dir, "final.safetensors"), final); err != nil {
		return err
	}
	if err := checkpoint.WritePrompt(filepath.Join(o.dir, "prompt.safetensors"), kept); err != nil {
		return err
	}
	return checkpoint.ExportPEFT(filepath.Join(o.dir, "adapter"), kept, o.job.Spec.Model, o.job.ModelConfig)
}

func (o *outputs) prompt(r result) (checkpoint.Prompt, error) {
	spec := o.job.Spec
	state, err := o.states.bytes(r.state, r.blob)
	if err != nil {
		return checkpoint.Prompt{}, err
	}
	return PromptOf(state, spec.Prompt(), map[string]string{
		"method": spec.Method, "task": spec.Task, "template": spec.Template, "model_digest": spec.ModelDigest, "step": fmt.Sprint(r.step), "seed": fmt.Sprint(spec.Seed),
	})
}

// PromptOf reads the prompt out of a trainer state.
func PromptOf(state []byte, conf prompt.Config, metadata map[string]string) (checkpoint.Prompt, error) {
	var s optim.State
	if err := s.UnmarshalBinary(state); err != nil {
		return checkpoint.Prompt{}, err
	}
	if len(s.Params) != conf.Size() {
		return checkpoint.Prompt{}, fmt.Errorf("trainer state has %d parameters, the prompt wants %d", len(s.Params), conf.Size())
	}
	return conf.File(s.Params, metadata)
}
