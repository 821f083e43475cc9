package outputs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
)

// StepLine is a line of metrics.jsonl.
type StepLine struct {
	Step         int64    `json:"step"`  // from 1
	Epoch        int64    `json:"epoch"` // from 1
	Loss         float64  `json:"loss"`  // mean token loss of the global batch, before the update
	LR           float64  `json:"lr"`
	GradNorm     float64  `json:"grad_norm"`    // before clipping
	TokensPerSec float64  `json:"tokens_per_s"` // source and target tokens
	Seconds      float64  `json:"seconds"`
	Generation   uint64   `json:"generation"` // of the workers that computed the step
	Workers      int      `json:"workers"`    // of that generation
	StateDigest  string   `json:"state_digest"`
	Examples     []string `json:"examples,omitempty"` // ids, in the order of the batch
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
	// Probe holds the counts of method svd's rank probe: see prompt.Probe.
	Probe json.RawMessage `json:"probe,omitempty"`
	// Stale counts the evaluations since the best one. Only jobs with early stopping have it.
	Stale int `json:"without_improvement,omitempty"`
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
	Step          int64    `json:"step"`                    // the last committed one
	StateDigest   string   `json:"state_digest"`            // of the trainer state after Step
	HistoryDigest string   `json:"history_digest"`
	PromptStep    int64    `json:"prompt_step"`          // of prompt.safetensors
	BestScore     float64  `json:"best_score,omitempty"` // of the evaluation at PromptStep
}

// isRecorded reports whether dir has all outputs of a job that is over. job.json says so only after
// the other files are written.
func isRecorded(dir, jobID string) (bool, error) {
	path := filepath.Join(dir, "job.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("output directory: %w", err)
	}
	var f JobFile
	if err := json.Unmarshal(data, &f); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return f.JobID == jobID && f.Status != string(fsm.Running), nil
}
