package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

func queued(name string) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobQueued{JobQueued: &fsmpb.JobQueued{JobId: "id-" + name, Name: name, Request: []byte(`{}`)}}}
}

func cancelled(name, reason string) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobCancelled{JobCancelled: &fsmpb.JobCancelled{JobId: "id-" + name, Reason: reason}}}
}

func started(name string) *fsmpb.Entry {
	e := job(1, 1)
	e.GetJobStarted().JobId = "id-" + name
	return e
}

// waiting lists the names of the jobs that wait, ended those of the others with how they ended.
func waiting(m *Machine) (names []string) {
	for _, q := range m.Queue() {
		names = append(names, q.Name)
	}
	return names
}

func over(m *Machine) (names []string) {
	for _, e := range m.Ended() {
		names = append(names, e.Name+" "+string(e.Status))
	}
	return names
}

// restored is m after a snapshot, which must be the same.
func restored(t *testing.T, m *Machine) *Machine {
	t.Helper()
	n := New()
	data := snap(t, m)
	if err := n.Restore(data); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, snap(t, n)) {
		t.Fatal("a restored machine gives another snapshot")
	}
	return n
}

func TestQueue(t *testing.T) {
	m := New()
	mustApply(t, m, queued("a"), queued("b"), queued("c"), queued("d"), queued("e"))
	rejected := func(what string, e *fsmpb.Entry) {
		t.Helper()
		before := snap(t, m)
		if err := apply(t, m, e); !errors.Is(err, ErrRejected) {
			t.Errorf("%s: %v, want it rejected", what, err)
		}
		if !bytes.Equal(before, snap(t, m)) {
			t.Errorf("%s: the rejected entry changed the machine", what)
		}
	}
	rejected("a name that is taken", queued("c"))
	rejected("not the first", started("b"))
	rejected("a job that nobody queued", started("x"))
	mustApply(t, m, started("a"))
	rejected("a second job beside the first", started("b"))
	rejected("the running job's name", queued("a"))
	mustApply(t, m, generation(1, 0, "w"), step(1, 1))
	if q := m.Request(); q.Name != "a" || m.Status() != Running || m.Over() {
		t.Errorf("job %+v is %s", q, m.Status())
	}
	mustApply(t, m, finish())
	rejected("a step after the end", step(1, 2))
	rejected("cancel a finished job", cancelled("a", ""))
	digest := m.StateDigest()
	mustApply(t, m, cancelled("c", ""), started("b"))
	if m.Step() != 0 || m.Numerics() != "" || len(m.Epochs()) != 0 || m.Over() {
		t.Errorf("job b starts at step %d with %d epochs, over: %v", m.Step(), len(m.Epochs()), m.Over())
	}
	rejected("a generation's number of before", generation(1, 0, "w"))
	mustApply(t, m, generation(2, 0, "w"), cancelled("b", ""))
	rejected("a step of a cancelled job", step(2, 1))
	rejected("why a job that has run cannot start", cancelled("b", "no such file"))
	mustApply(t, m, cancelled("d", "no such file"), started("e"))
	for _, n := range []*Machine{m, restored(t, m)} {
		if n.FirstGeneration() != 2 {
			t.Errorf("job e's generations begin after %d, want 2", n.FirstGeneration())
		}
		if got, want := over(n), []string{"a finished", "c cancelled", "b cancelled", "d failed"}; !slices.Equal(got, want) {
			t.Errorf("over: %q, want %q", got, want)
		}
		if got := waiting(n); len(got) != 0 {
			t.Errorf("waiting: %q, want none", got)
		}
		a := n.Ended()[0]
		if a.StateDigest != digest || a.Step != 1 || a.Archive() == nil || a.Archive().StateDigest() != digest || !a.Archive().Finished() {
			t.Errorf("job a is remembered as %+v", a)
		}
		if d := n.Ended()[3]; d.Reason != "no such file" || d.Archive() != nil {
			t.Errorf("job d is remembered as %+v", d)
		}
		if n.JobID() != "id-e" || n.Request().Name != "e" {
			t.Errorf("job %s runs, want id-e", n.JobID())
		}
	}
}

func TestQueueRemembersAFewWhole(t *testing.T) {
	m := New()
	const jobs = keptArchives + 3
	for i := range jobs {
		name := fmt.Sprint("job", i)
		timed := edit(step(uint64(i+1), 1), (*fsmpb.Entry).GetStepCommitted, func(e *fsmpb.StepCommitted) { e.Seconds = 2 })
		mustApply(t, m, queued(name), started(name), generation(uint64(i+1), 0, "w"), timed, finish())
	}
	for _, n := range []*Machine{m, restored(t, m)} {
		if len(n.Ended()) != jobs {
			t.Fatalf("%d jobs remembered, want %d", len(n.Ended()), jobs)
		}
		for i, e := range n.Ended() {
			if whole := e.Archive() != nil; whole != (i >= jobs-keptArchives) {
				t.Errorf("job %d of %d is whole: %v", i, jobs, whole)
			}
			if e.Step != 1 || e.Seconds != 2 {
				t.Errorf("job %d remembered with %d steps in %v s", i, e.Step, e.Seconds)
			}
		}
	}
}

func TestQueueBounds(t *testing.T) {
	m := New()
	for name, e := range map[string]*fsmpb.JobQueued{
		"no id": {Name: "a", Request: []byte("{}")}, "no name": {JobId: "a", Request: []byte("{}")}, "no settings": {JobId: "a", Name: "a"},
		"a long name":   {JobId: "a", Name: strings.Repeat("x", MaxNameLength+1), Request: []byte("{}")},
		"long settings": {JobId: "a", Name: "a", Request: make([]byte, maxRequest+1)},
	} {
		if err := apply(t, m, &fsmpb.Entry{Body: &fsmpb.Entry_JobQueued{JobQueued: e}}); !errors.Is(err, ErrRejected) {
			t.Errorf("%s: %v, want it rejected", name, err)
		}
	}
	for i := range MaxQueued {
		mustApply(t, m, queued(fmt.Sprint(i)))
	}
	if err := apply(t, m, queued("more")); !errors.Is(err, ErrRejected) {
		t.Errorf("one job too many: %v, want it rejected", err)
	}
	own := New()
	mustApply(t, own, job(1, 1))
	if err := apply(t, own, queued("a")); !errors.Is(err, ErrRejected) {
		t.Errorf("a queue behind a job of the replicas' own: %v, want it rejected", err)
	}
}
