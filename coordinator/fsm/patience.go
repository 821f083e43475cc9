package fsm

import (
	"fmt"

	"github.com/dptune/dpt/coordinator/ids"
)

// Early stopping is a pure function of the committed evaluations: the leader only puts into the log what every replica sees, and any leader sees the same.

// Stale counts the evaluations since the best one, as Best compares; 0 of none.
func Stale(evaluations []Evaluation) int {
	var best *Best
	stale := 0
	for _, e := range evaluations {
		if stale++; best.BeatenBy(e) {
			best, stale = &Best{Step: e.Step, Score: e.Score, Loss: e.Loss}, 0
		}
	}
	return stale
}

// Patience is the number of evaluations in a row without an improvement after which the job ends; 0: it does all its steps.
func (m *Machine) Patience() int { return int(m.job.GetPatience()) }

// Exhausted says whether the job's patience has run out: no step follows, and the job is to finish.
func (m *Machine) Exhausted() bool {
	return m.Patience() > 0 && Stale(m.evaluations) >= m.Patience()
}

func (m *Machine) patienceText() string {
	return fmt.Sprintf("%d evaluations in a row without an improvement with a patience of %d", Stale(m.evaluations), m.Patience())
}

// StoppedEarly says when and why the job has finished before its last step; "" if it has not.
func (m *Machine) StoppedEarly() string {
	return stoppedEarly(m.Status(), m.step, m.TotalSteps(), m.evaluations)
}

// StoppedEarly says when and why the job finished before its last step; "" if it did not.
func (e *Ended) StoppedEarly() string {
	return stoppedEarly(e.Status, e.Step, e.TotalSteps, e.Evaluations)
}

func stoppedEarly(status Status, step, total ids.Step, evaluations []Evaluation) string {
	if status != Finished || step == total {
		return ""
	}
	return fmt.Sprintf("stopped early at step %d of %d: %d evaluations in a row without an improvement", step, total, Stale(evaluations))
}
