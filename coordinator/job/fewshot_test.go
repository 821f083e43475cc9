package job_test

import (
	"testing"

	"github.com/dptune/dpt/coordinator/internal/jobtest"
	"github.com/dptune/dpt/coordinator/job"
)

// TestFewShotDrawsAreTheSameForAllMethods: at one seed and size every method trains on the same
// examples, in the same batches; another seed draws others.
func TestFewShotDrawsAreTheSameForAllMethods(t *testing.T) {
	for _, task := range []string{"cb", "record"} {
		seen := map[string]string{} // the draw that has a train digest
		for _, draw := range []struct {
			shots int
			seed  uint64
			name  string
		}{
			{8, 1, "8 of seed 1"},
			{8, 2, "8 of seed 2"},
			{16, 1, "16 of seed 1"},
		} {
			var first *job.Job
			for _, method := range []string{"dpt", "pt", "respt"} {
				j := jobtest.Load(t, func(s *job.Settings) {
					s.Task, s.Method, s.Shots, s.Seed = task, method, draw.shots, draw.seed
				})
				spec := j.Spec
				if first == nil {
					first = j
					if other, ok := seen[spec.TrainDigest]; ok {
						t.Errorf("%s: %s and %s are the same examples", task, draw.name, other)
					}
					seen[spec.TrainDigest] = draw.name
				}
				if spec.TrainDigest != first.Spec.TrainDigest || spec.EvalDigest != first.Spec.EvalDigest {
					t.Errorf("%s, %s: %s trains on %s and is evaluated on %s, dpt %s and %s", task, draw.name, method,
						spec.TrainDigest, spec.EvalDigest, first.Spec.TrainDigest, first.Spec.EvalDigest)
				}
				if a, b := j.Plan(2).Digest, first.Plan(2).Digest; a != b {
					t.Errorf("%s, %s: step 2 of %s has batch %s, of dpt %s",
						task, draw.name, method, a.Short(), b.Short())
				}
			}
		}
	}
}
