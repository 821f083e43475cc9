package fsm

import (
	"fmt"

	"github.com/dptune/dpt/coordinator/ids"
)

// Early stopping is a pure function of the committed evaluations. The leader only puts into the log
// what every replica computes for itself, and every leader computes the same.

// Stale counts the evaluations after the best one, in the order of Best; 0 if there are none.
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

// patience is the number of evaluations in a row without an improvement that end the job; 0 never
// does.
func (m *Machine) patience() int { return int(m.job.GetPatience()) }

// Exhausted reports whether the job's patience is exhausted: no step follows, and the job must
// finish.
func (m *Machine) Exhausted() bool {
	return m.patience() > 0 && Stale(m.evaluations) >= m.patience()
}

// patienceText describes the evaluations since the best one, for rejections.
func (m *Machine) patienceText() string {
	return fmt.Sprintf("%d evaluations in a row without an improvement with a patience of %d",
		Stale(m.evaluations), m.patience())
}

// StoppedEarly describes when and why the job finished before its last step; "" if it did not.
func (m *Machine) StoppedEarly() string {
	return stoppedEarly(m.Status(), m.step, m.TotalSteps(), m.evaluations)
}

// StoppedEarly describes when and why the job finished before its last step; "" if it did not.
func (e *Ended) StoppedEarly() string {
	return stoppedEarly(e.Status, e.Step, e.TotalSteps, e.Evaluations)
}

func stoppedEarly(status Status, step, total ids.Step, evaluations []Evaluation) string {
	if status != Finished || step == total {
		return ""
	}
	return fmt.Sprintf("stopped early at step %d of %d: %d evaluations in a row without an improvement",
		step, total, Stale(evaluations))
}
