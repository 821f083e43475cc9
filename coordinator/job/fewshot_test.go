package job

import (
	"log/slog"
	"testing"
)

// TestFewShotDrawsAreTheSameForAllMethods: at one seed and size every method trains on the same
// examples, in the same batches; another seed draws others.
func TestFewShotDrawsAreTheSameForAllMethods(t *testing.T) {
	for _, task := range []string{"cb", "record"} {
		seen := map[string]string{} // by train digest, what draws it
		for _, draw := range []struct {
			shots int
			seed  uint64
			name  string
		}{{8, 1, "8 of seed 1"}, {8, 2, "8 of seed 2"}, {16, 1, "16 of seed 1"}} {
			var first *Job
			for _, method := range []string{"dpt", "pt", "respt"} {
				s := testSettings()
				s.Task, s.Method, s.Shots, s.Seed = task, method, draw.shots, draw.seed
				job, err := Load(s, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = job
					if other, ok := seen[job.Spec.TrainDigest]; ok {
						t.Errorf("%s: %s and %s are the same examples", task, draw.name, other)
					}
					seen[job.Spec.TrainDigest] = draw.name
				}
				if job.Spec.TrainDigest != first.Spec.TrainDigest || job.Spec.EvalDigest != first.Spec.EvalDigest {
					t.Errorf("%s, %s: %s trains on %s and is evaluated on %s, dpt %s and %s", task, draw.name, method,
						job.Spec.TrainDigest, job.Spec.EvalDigest, first.Spec.TrainDigest, first.Spec.EvalDigest)
				}
				if a, b := job.Plan(2).Digest, first.Plan(2).Digest; a != b {
					t.Errorf("%s, %s: step 2 of %s has batch %s, of dpt %s", task, draw.name, method, a.Short(), b.Short())
				}
			}
		}
	}
}
