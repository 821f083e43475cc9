package job_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/internal/jobtest"
	"github.com/dptune/dpt/coordinator/job"
)

func TestJobWithoutValidationSplitTrainsWithoutEvaluation(t *testing.T) {
	data := jobtest.RTE(t, rteLine)
	j := jobtest.Load(t, func(s *job.Settings) { s.Data = data })
	for _, step := range []ids.Step{0, 1, ids.Step(j.Spec.Steps)} {
		if j.EvalDue(step) {
			t.Errorf("evaluation is due at step %d without a split to evaluate", step)
		}
	}
	_, err := jobtest.TryLoad(func(s *job.Settings) { s.Data, s.Patience = data, 2 })
	want := "--patience: 2, want 0, as the data has no split to evaluate"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("patience without evaluations: error %v, want one with %q", err, want)
	}
	j = jobtest.Load(t, func(s *job.Settings) { s.Data, s.Patience, s.EvalSplit = data, 2, "train" })
	if !j.EvalDue(0) || !j.EvalDue(ids.Step(j.Spec.Steps)) || j.Spec.EvalExamples != 1 {
		t.Errorf("--eval-split train: spec %+v, want one with evaluations of 1 example", j.Spec)
	}
}

func TestEvalDue(t *testing.T) {
	for _, c := range []struct {
		every int64
		first bool
		due   []ids.Step
	}{
		{0, true, []ids.Step{0, 4, 8, 10}},
		{0, false, []ids.Step{4, 8, 10}},
		{3, false, []ids.Step{3, 6, 9, 10}},
		{100, true, []ids.Step{0, 10}},
		{-1, false, nil},
	} {
		j := &job.Job{Spec: job.Spec{EvalEvery: c.every, EvalFirst: c.first, StepsPerEpoch: 4, Steps: 10}}
		var due []ids.Step
		for step := range ids.Step(11) {
			if j.EvalDue(step) {
				due = append(due, step)
			}
		}
		if !slices.Equal(due, c.due) {
			t.Errorf("every %d: due at %v, want %v", c.every, due, c.due)
		}
	}
}
