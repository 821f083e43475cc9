package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

// waitingNames lists the names of the jobs that wait.
func waitingNames(m *Machine) (names []string) {
	for _, q := range m.Queue() {
		names = append(names, q.Name)
	}
	return names
}

// endedNames lists the names and statuses of the jobs that have ended.
func endedNames(m *Machine) (names []string) {
	for _, e := range m.Ended() {
		names = append(names, e.Name+" "+string(e.Status))
	}
	return names
}

func TestQueue(t *testing.T) {
	m := New()
	mustApply(t, m, queued("a"), queued("b"), queued("c"), queued("d"), queued("e"))
	mustReject(t, m, "a name that is taken", queued("c"), "there is one of that name")
	mustReject(t, m, "not the first", started("b", 1), "job id-a is next")
	mustReject(t, m, "a job that nobody queued", started("x", 1), "job id-a is next")
	mustApply(t, m, started("a", 1))
	mustReject(t, m, "a second job beside the first", started("b", 1), "already started")
	mustReject(t, m, "the running job's name", queued("a"), "there is one of that name")
	mustApply(t, m, generation(1, 0, "w"), step(1, 1))
	if q := m.Request(); q.Name != "a" || m.Status() != Running || m.Over() {
		t.Errorf("job %+v is %s", q, m.Status())
	}
	mustApply(t, m, finish())
	mustReject(t, m, "a step after the end", step(1, 2), "the job is finished")
	mustReject(t, m, "cancel a finished job", cancelled("a", ""), "it is finished")
	digest := m.StateDigest()

	// The next job starts from nothing, but its generations go on from the last one's.
	mustApply(t, m, cancelled("c", ""), started("b", 1))
	if m.Step() != 0 || m.Numerics() != "" || len(m.Epochs()) != 0 || m.Over() {
		t.Errorf("job b starts at step %d with %d epochs, over: %v", m.Step(), len(m.Epochs()), m.Over())
	}
	mustReject(t, m, "the number of an earlier generation", generation(1, 0, "w"), "generation 1 after generation 1")
	mustApply(t, m, generation(2, 0, "w"), cancelled("b", ""))
	mustReject(t, m, "a step of a cancelled job", step(2, 1), "the job is cancelled")
	mustReject(t, m, "why a job that has run cannot start", cancelled("b", "no such file"), "no job of this id")
	mustApply(t, m, cancelled("d", "no such file"), started("e", 1))
	for _, n := range []*Machine{m, restored(t, m)} {
		if n.FirstGeneration() != 2 {
			t.Errorf("job e's generations begin after %d, want 2", n.FirstGeneration())
		}
		want := []string{"a finished", "c cancelled", "b cancelled", "d failed"}
		if got := endedNames(n); !slices.Equal(got, want) {
			t.Errorf("ended: %q, want %q", got, want)
		}
		if got := waitingNames(n); len(got) != 0 {
			t.Errorf("waiting: %q, want none", got)
		}
		a := n.Ended()[0]
		archive := a.Archive()
		if a.StateDigest != digest || a.Step != 1 ||
			archive == nil || archive.StateDigest() != digest || !archive.Finished() {
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

func TestArchivesAreKeptOfTheLastJobs(t *testing.T) {
	m := New()
	const jobs = keptArchives + 3
	for i := range jobs {
		name := fmt.Sprint("job", i)
		timed := step(uint64(i+1), 1)
		timed.GetStepCommitted().Seconds = 2
		mustApply(t, m, queued(name), started(name, 1), generation(uint64(i+1), 0, "w"), timed, finish())
	}
	for _, n := range []*Machine{m, restored(t, m)} {
		if len(n.Ended()) != jobs {
			t.Fatalf("%d jobs remembered, want %d", len(n.Ended()), jobs)
		}
		for i, e := range n.Ended() {
			if archived := e.Archive() != nil; archived != (i >= jobs-keptArchives) {
				t.Errorf("job %d of %d has an archive: %v", i, jobs, archived)
			}
			if e.Step != 1 || e.Seconds != 2 {
				t.Errorf("job %d remembered with %d steps in %v s", i, e.Step, e.Seconds)
			}
		}
	}
}

func TestQueueBounds(t *testing.T) {
	m := New()
	for _, c := range []struct {
		name string
		job  *fsmpb.JobQueued
		want string // part of the rejection
	}{
		{"no id", &fsmpb.JobQueued{Name: "a", Request: []byte("{}")}, "want names of 1 to 256 bytes"},
		{"no name", &fsmpb.JobQueued{JobId: "a", Request: []byte("{}")}, "want names of 1 to 256 bytes"},
		{"no settings", &fsmpb.JobQueued{JobId: "a", Name: "a"}, "settings of 0 bytes"},
		{"a long name", &fsmpb.JobQueued{JobId: "a", Name: strings.Repeat("x", maxNameLength+1), Request: []byte("{}")},
			"want names of 1 to 256 bytes"},
		{"long settings", &fsmpb.JobQueued{JobId: "a", Name: "a", Request: make([]byte, maxRequest+1)},
			"settings of 65537 bytes"},
	} {
		mustReject(t, m, c.name, &fsmpb.Entry{Body: &fsmpb.Entry_JobQueued{JobQueued: c.job}}, c.want)
	}

	// One job is queued by an entry, all others come by a snapshot, which is much faster.
	almostFull := edited(t, m, func(s *fsmpb.Snapshot) {
		for i := range maxQueued - 1 {
			s.Queue = append(s.Queue, queued(fmt.Sprint(i)).GetJobQueued())
		}
	})
	if err := m.Restore(almostFull); err != nil {
		t.Fatal(err)
	}
	mustApply(t, m, queued("last"))
	if got := len(m.Queue()); got != maxQueued {
		t.Fatalf("%d jobs wait, want %d", got, maxQueued)
	}
	mustReject(t, m, "one job too many", queued("more"), "4096 jobs wait")

	alone := New()
	mustApply(t, alone, job(1, 1))
	mustReject(t, alone, "a queue behind a job that did not come from one", queued("a"), "one job of its own")
}
