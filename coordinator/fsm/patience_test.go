package fsm

import (
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

func TestStale(t *testing.T) {
	for _, c := range []struct {
		scores []float64
		want   int
	}{
		{nil, 0},
		{[]float64{5}, 0},
		{[]float64{5, 4}, 1},
		{[]float64{5, 6}, 0},
		{[]float64{5, 5, 5}, 2},
		{[]float64{5, 6, 5, 6, 1}, 3},
		{[]float64{3, 1, 2}, 2},
	} {
		var list []Evaluation
		for i, s := range c.scores {
			list = append(list, Evaluation{Step: ids.Step(i), Score: s, Loss: 1})
		}
		if got := Stale(list); got != c.want {
			t.Errorf("scores %v: %d evaluations since the best, want %d", c.scores, got, c.want)
		}
	}
	if got := Stale([]Evaluation{{Score: 5, Loss: 1}, {Score: 5, Loss: 0.5}}); got != 0 {
		t.Errorf("an equal score with a lower loss: %d since the best, want 0", got)
	}
}

func TestEarlyStop(t *testing.T) {
	m := New()
	mustApply(t, m, impatient(10, 2), generation(1, 0, "w"), evaluation(0, 30), step(1, 1), evaluation(1, 20))
	mustReject(t, m, "stop with patience left", finishEarly(),
		"1 evaluations in a row without an improvement with a patience of 2")
	mustApply(t, m, step(1, 2))
	if m.Exhausted() {
		t.Error("a step alone has exhausted the patience")
	}
	mustApply(t, m, evaluation(2, 40), step(1, 3), evaluation(3, 40), step(1, 4), evaluation(4, 10))
	for _, n := range []*Machine{m, restored(t, m)} { // a new leader decides the same
		if !n.Exhausted() || n.StoppedEarly() != "" || n.Over() {
			t.Errorf("exhausted %v, stopped %q, over %v; want the patience exhausted and the end still to come",
				n.Exhausted(), n.StoppedEarly(), n.Over())
		}
	}
	mustReject(t, m, "a step when the patience is exhausted", step(1, 5), "step 5 after 2 evaluations in a row")
	mustReject(t, m, "an end as if all steps were done", finish(), "finish at step 4 of 10")
	mustApply(t, m, generation(2, 4, "v"), finishEarly())
	for _, n := range []*Machine{m, restored(t, m)} {
		if !n.Finished() || n.Status() != Finished || n.Best().Step != 2 || n.Step() != 4 {
			t.Errorf("%s at step %d with the best of step %d", n.Status(), n.Step(), n.Best().Step)
		}
		want := "stopped early at step 4 of 10: 2 evaluations in a row without an improvement"
		if got := n.StoppedEarly(); got != want {
			t.Errorf("ended because %q, want %q", got, want)
		}
	}
	mustReject(t, m, "a second end", finishEarly(), "finished")
}

// TestNoEarlyStop: a job has no patience, or exhausts it at its last step.
func TestNoEarlyStop(t *testing.T) {
	for _, c := range []struct {
		name     string
		patience int64
	}{{"off", 0}, {"exhausted at the end", 2}} {
		m := New()
		mustApply(t, m,
			impatient(2, c.patience), generation(1, 0, "w"),
			evaluation(0, 30), step(1, 1), evaluation(1, 30), step(1, 2), evaluation(2, 30))
		mustReject(t, m, c.name+": stop early after the last step", finishEarly(), "stop early at step 2 of 2")
		mustApply(t, m, finish())
		if got := m.StoppedEarly(); got != "" {
			t.Errorf("%s: stopped early: %s", c.name, got)
		}
	}
	mustReject(t, New(), "negative patience", impatient(2, -1), "a patience of -1 evaluations")
}

func TestEarlyStopInAQueue(t *testing.T) {
	m := New()
	first := edit(impatient(9, 1), (*fsmpb.Entry).GetJobStarted, func(e *fsmpb.JobStarted) { e.JobId = "id-a" })
	mustApply(t, m,
		queued("a"), queued("b"),
		first, generation(1, 0, "w"), evaluation(0, 2), step(1, 1), evaluation(1, 1), finishEarly(),
		started("b", 1))
	for _, n := range []*Machine{m, restored(t, m)} {
		if n.patience() != 0 || n.Exhausted() {
			t.Errorf("job b has job a's patience, %d", n.patience())
		}
		if got := endedNames(n); !slices.Equal(got, []string{"a finished"}) {
			t.Errorf("ended: %q, want job a, finished", got)
		}
		if got := n.Ended()[0].StoppedEarly(); !strings.HasPrefix(got, "stopped early at step 1 of 9: 1 ") {
			t.Errorf("job a ended because %q, want it stopped early", got)
		}
	}
}
