package fsm

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

func impatient(total, patience int64) *fsmpb.Entry {
	return edit(job(total, 2), (*fsmpb.Entry).GetJobStarted, func(e *fsmpb.JobStarted) { e.Patience = patience })
}

func stoppedEarlyEntry() *fsmpb.Entry {
	return edit(finish(), (*fsmpb.Entry).GetJobFinished, func(e *fsmpb.JobFinished) { e.StoppedEarly = true })
}

func TestStale(t *testing.T) {
	for _, c := range []struct {
		scores []float64
		want   int
	}{
		{nil, 0}, {[]float64{5}, 0}, {[]float64{5, 4}, 1}, {[]float64{5, 6}, 0}, {[]float64{5, 5, 5}, 2}, {[]float64{5, 6, 5, 6, 1}, 3}, {[]float64{3, 1, 2}, 2},
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
	rejected := func(what string, e *fsmpb.Entry, says string) {
		t.Helper()
		before := snap(t, m)
		if err := apply(t, m, e); !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want it rejected with %q", what, err, says)
		}
		if !bytes.Equal(before, snap(t, m)) {
			t.Errorf("%s: the rejected entry changed the machine", what)
		}
	}
	mustApply(t, m, impatient(10, 2), generation(1, 0, "w"), evaluation(0, 30), step(1, 1), evaluation(1, 20))
	rejected("stop with patience left", stoppedEarlyEntry(), "1 evaluations in a row without an improvement with a patience of 2")
	mustApply(t, m, step(1, 2))
	if m.Exhausted() {
		t.Error("a step alone has used up the patience")
	}
	mustApply(t, m, evaluation(2, 40), step(1, 3), evaluation(3, 40), step(1, 4), evaluation(4, 10))
	for _, n := range []*Machine{m, restored(t, m)} { // a new leader decides the same
		if !n.Exhausted() || n.StoppedEarly() != "" || n.Over() {
			t.Errorf("exhausted %v, stopped %q, over %v; want the patience used up and the end to come", n.Exhausted(), n.StoppedEarly(), n.Over())
		}
	}
	rejected("a step when the patience has run out", step(1, 5), "step 5 after 2 evaluations in a row")
	rejected("an end as if all steps were done", finish(), "finish at step 4 of 10")
	mustApply(t, m, generation(2, 4, "v"), stoppedEarlyEntry())
	for _, n := range []*Machine{m, restored(t, m)} {
		if !n.Finished() || n.Status() != Finished || n.Best().Step != 2 || n.Step() != 4 {
			t.Errorf("%s at step %d with the best of step %d", n.Status(), n.Step(), n.Best().Step)
		}
		if got, want := n.StoppedEarly(), "stopped early at step 4 of 10: 2 evaluations in a row without an improvement"; got != want {
			t.Errorf("ended because %q, want %q", got, want)
		}
	}
	rejected("a second end", stoppedEarlyEntry(), "finished")
}

// TestEarlyStopWhereNoneIs: no patience, or one that runs out with the last step.
func TestEarlyStopWhereNoneIs(t *testing.T) {
	for name, patience := range map[string]int64{"off": 0, "runs out at the end": 2} {
		m := New()
		mustApply(t, m, impatient(2, patience), generation(1, 0, "w"), evaluation(0, 30), step(1, 1), evaluation(1, 30), step(1, 2), evaluation(2, 30))
		if err := apply(t, m, stoppedEarlyEntry()); !errors.Is(err, ErrRejected) {
			t.Errorf("%s: stop early after the last step: %v, want it rejected", name, err)
		}
		mustApply(t, m, finish())
		if got := m.StoppedEarly(); got != "" {
			t.Errorf("%s: stopped early: %s", name, got)
		}
	}
	if err := apply(t, New(), impatient(2, -1)); !errors.Is(err, ErrRejected) {
		t.Errorf("negative patience: %v, want it rejected", err)
	}
}

func TestEarlyStopInAQueue(t *testing.T) {
	m := New()
	first := edit(impatient(9, 1), (*fsmpb.Entry).GetJobStarted, func(e *fsmpb.JobStarted) { e.JobId = "id-a" })
	mustApply(t, m, queued("a"), queued("b"), first, generation(1, 0, "w"), evaluation(0, 2), step(1, 1), evaluation(1, 1), stoppedEarlyEntry(), started("b"))
	for _, n := range []*Machine{m, restored(t, m)} {
		if n.Patience() != 0 || n.Exhausted() {
			t.Errorf("job b has job a's patience, %d", n.Patience())
		}
		if got := over(n); !slices.Equal(got, []string{"a finished"}) || !strings.HasPrefix(n.Ended()[0].StoppedEarly(), "stopped early at step 1 of 9: 1 ") {
			t.Errorf("over: %q, %q", got, n.Ended()[0].StoppedEarly())
		}
	}
}
