// Package joboutputs reads what a finished job has written and checks that it is complete. It is
// for tests, of real clusters and of simulated ones.
package joboutputs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/outputs"
)

// Outputs are a job's outputs.
type Outputs struct {
	Job    outputs.JobFile    // job.json
	Prompt []byte             // prompt.safetensors
	Steps  []outputs.StepLine // metrics.jsonl, by step from 1
}

// Read reads the outputs in a job's directory. It returns an error unless the job has finished,
// metrics.jsonl has every step once, and in every epoch every example once.
func Read(dir string) (*Outputs, error) {
	o := new(Outputs)
	data, err := os.ReadFile(filepath.Join(dir, "job.json"))
	if err == nil {
		err = json.Unmarshal(data, &o.Job)
	}
	if err != nil {
		return nil, err
	}
	if !o.Job.Finished {
		return nil, fmt.Errorf("job.json: the job has status %q, want it finished", o.Job.Status)
	}
	if o.Prompt, err = os.ReadFile(filepath.Join(dir, "prompt.safetensors")); err != nil {
		return nil, err
	}
	if data, err = os.ReadFile(filepath.Join(dir, "metrics.jsonl")); err != nil {
		return nil, err
	}
	for i, raw := range bytes.Split(bytes.TrimSpace(data), []byte("\n")) {
		var l outputs.StepLine
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, fmt.Errorf("metrics.jsonl, line %d: %w", i+1, err)
		}
		o.Steps = append(o.Steps, l)
	}
	return o, o.checkSteps()
}

// checkSteps checks that no step and no example is missing or applied twice.
func (o *Outputs) checkSteps() error {
	type use struct {
		epoch   int
		example string
	}
	seen := map[use]int64{} // the step that applied the example
	for i, l := range o.Steps {
		if l.Step != int64(i+1) {
			return fmt.Errorf("metrics.jsonl, line %d is of step %d, want step %d", i+1, l.Step, i+1)
		}
		for _, id := range l.Examples {
			u := use{int(l.Epoch), id}
			if before, again := seen[u]; again {
				return fmt.Errorf("example %s of epoch %d is applied in steps %d and %d, want once",
					id, l.Epoch, before, l.Step)
			}
			seen[u] = l.Step
		}
	}
	s := o.Job.Settings
	steps, examples := s.Steps, s.Epochs*s.TrainExamples
	if o.Job.StoppedEarly != "" {
		steps, examples = o.Job.Step, int(o.Job.Step)*s.BatchSize
	}
	if int64(len(o.Steps)) != steps {
		return fmt.Errorf("metrics.jsonl has %d lines, want %d", len(o.Steps), steps)
	}
	if len(seen) != examples {
		return fmt.Errorf("%d examples are applied in all epochs together, want %d", len(seen), examples)
	}
	return nil
}
