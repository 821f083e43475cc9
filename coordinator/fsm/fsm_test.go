package fsm

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

func TestJobFromStartToFinish(t *testing.T) {
	m := New()
	mustApply(t, m,
		job(4, 2),
		generation(1, 0, "a", "b"), evaluation(0, 10), step(1, 1), step(1, 2), evaluation(2, 30),
		generation(2, 2, "b"), step(2, 3), step(2, 4), evaluation(4, 30),
		finish())
	if m.Step() != 4 || !m.Finished() || string(m.State()) != "state 4" || m.StateDigest() != blob(4).Digest {
		t.Errorf("ended at step %d, finished %v, state %q", m.Step(), m.Finished(), m.State())
	}
	if b := m.Best(); b == nil || b.Step != 2 || string(b.State) != "state 2" {
		t.Errorf("best = %+v, want the earlier of two equals, step 2", b)
	}
	lower := edit(evaluation(4, 30), (*fsmpb.Entry).GetEvaluationCommitted, func(e *fsmpb.EvaluationCommitted) {
		e.Loss = 0.5
	})
	n := New()
	mustApply(t, n,
		job(4, 2),
		generation(1, 0, "a"), step(1, 1), step(1, 2), evaluation(2, 30), step(1, 3), step(1, 4), lower)
	if b := n.Best(); b.Step != 4 || b.Loss != 0.5 {
		t.Errorf("best = %+v, want step 4: of equal scores the lower loss", b)
	}
	if e := m.Epochs(); len(e) != 2 || e[0].Mean() != 9.0/12 || e[1].Mean() != 21.0/12 {
		t.Errorf("epochs = %+v", e)
	}
	if g, members := m.Generation(); g != 2 || len(members) != 1 || members[0] != (Member{"b", "b:1"}) {
		t.Errorf("generation %d of %v", g, members)
	}
	mustReject(t, m, "a step after the end", step(2, 5), "finished")
}

func TestRejectionsChangeNothing(t *testing.T) {
	editJob := func(e *fsmpb.Entry, change func(*fsmpb.JobStarted)) *fsmpb.Entry {
		return edit(e, (*fsmpb.Entry).GetJobStarted, change)
	}
	editStep := func(e *fsmpb.Entry, change func(*fsmpb.StepCommitted)) *fsmpb.Entry {
		return edit(e, (*fsmpb.Entry).GetStepCommitted, change)
	}
	withNumerics := func(e *fsmpb.Entry, numerics string) *fsmpb.Entry {
		return edit(e, (*fsmpb.Entry).GetGenerationStarted, func(g *fsmpb.GenerationStarted) { g.Numerics = numerics })
	}
	running := []*fsmpb.Entry{job(3, 2), generation(1, 0, "a", "b"), step(1, 1)}
	otherNumerics := append(running[:2:2], withNumerics(generation(2, 0, "a"), "x/f32"))
	evaluated := append(running[:3:3], evaluation(1, 1))
	for _, c := range []struct {
		name   string
		before []*fsmpb.Entry
		entry  *fsmpb.Entry
		want   string // part of the rejection
	}{
		{"second job", running, job(3, 2), "already started"},
		{"job without id", nil, editJob(job(3, 2), func(j *fsmpb.JobStarted) { j.JobId = "" }), "without an id"},
		{"job without steps", nil, job(0, 2), "0 steps"},
		{"job with a false digest", nil,
			editJob(job(3, 2), func(j *fsmpb.JobStarted) { j.State = []byte("x") }), "digest"},

		{"generation before the job", nil, generation(1, 0, "a"), "before any job"},
		{"generation skipped", running, generation(3, 1, "a"), "generation 3 after generation 1"},
		{"generation resumes in the past", running, generation(2, 0, "a"), "resumes at step 0, committed is 1"},
		{"generation of nobody", running, generation(2, 1), "without members"},
		{"generation with a member twice", running, generation(2, 1, "a", "a"), "repeated"},
		{"generation with other numerics", otherNumerics, withNumerics(generation(3, 0, "a"), "y/f32"),
			`computes with "y/f32", the job with "x/f32"`},

		{"step before the job", nil, step(0, 1), "before any job"},
		{"step of another generation", running, step(2, 2), "generation 2, current is 1"},
		{"step again", running, step(1, 1), "step 1 after step 1"},
		{"step skipped", running, step(1, 3), "step 3 after step 1"},
		{"step with a false state", running,
			editStep(step(1, 2), func(s *fsmpb.StepCommitted) { s.State = []byte("other") }), "digest"},
		{"step with a short digest", running,
			editStep(step(1, 2), func(s *fsmpb.StepCommitted) { s.StateDigest = s.StateDigest[:5] }),
			"5 bytes, want 32"},
		{"step with a short batch digest", running,
			editStep(step(1, 2), func(s *fsmpb.StepCommitted) { s.BatchDigest = nil }), "0 bytes, want 32"},
		{"step without tokens", running,
			editStep(step(1, 2), func(s *fsmpb.StepCommitted) { s.Tokens = 0 }), "0 tokens"},
		{"step with a NaN loss", running,
			editStep(step(1, 2), func(s *fsmpb.StepCommitted) { s.LossSum = math.NaN() }), "NaN"},
		{"steps with a gap", running, steps(step(1, 3), step(1, 3)), "step 3 after step 1"},
		{"steps of two generations", running, steps(step(1, 3), step(2, 2)), "generation 2, current is 1"},
		{"earlier step with a state", running,
			editStep(steps(step(1, 3), step(1, 2)), func(s *fsmpb.StepCommitted) { s.Earlier[0].State = []byte("x") }),
			"want them of step 3 only"},
		{"steps beyond the end", running, steps(step(1, 4), step(1, 2), step(1, 3)), "step 4 of a job of 3"},

		{"evaluation of another step", running, evaluation(0, 1), "committed is 1"},
		{"evaluation twice", evaluated, evaluation(1, 2), "already evaluated"},
		{"evaluation with a NaN score", running, evaluation(1, math.NaN()), "NaN"},
		{"finish too early", running, finish(), "step 1 of 3"},

		{"replica without a name", running, coordinatorJoined("", "h:1"), "want a name"},
		{"replica without an address", running, coordinatorJoined("a", ""), "want a name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New()
			mustApply(t, m, c.before...)
			mustReject(t, m, c.name, c.entry, c.want)
		})
	}
}

// An entry that cannot be read is no rejection: the replica must stop.
func TestUnreadableEntriesAreNotRejected(t *testing.T) {
	good := encode(t, step(1, 2))
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 4
	newer := step(1, 2)
	newer.GetStepCommitted().ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 1}) // field 127, varint 1
	for _, c := range []struct {
		name string
		data []byte
		want string // part of the error
	}{
		{"flipped", flipped, "damaged"},
		{"cut", good[:len(good)-1], "damaged"},
		{"nothing", nil, "cut short"},
		{"other format", append([]byte{9}, good[1:]...), "format 9, this build reads 1"},
		{"unknown kind", encode(t, &fsmpb.Entry{}), "newer version"},
		{"unknown field", encode(t, newer), "newer version"},
		{"not a message", seal([]byte{0xff}), "log entry of 6 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New()
			mustApply(t, m, job(3, 2), generation(1, 0, "a"), step(1, 1))
			before := snapshot(t, m)
			_, err := m.Apply(c.data)
			if err == nil || errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q that is no rejection", err, c.want)
			}
			if !bytes.Equal(before, snapshot(t, m)) {
				t.Error("the entry changed the machine")
			}
		})
	}
}

func TestStepsTogetherAreStepsOneByOne(t *testing.T) {
	one, three := New(), New()
	mustApply(t, one, job(4, 2), generation(1, 0, "a"), step(1, 1), step(1, 2), step(1, 3))
	mustApply(t, three, job(4, 2), generation(1, 0, "a"), steps(step(1, 3), step(1, 1), step(1, 2)))
	if !bytes.Equal(snapshot(t, one), snapshot(t, three)) {
		t.Error("three steps in one entry leave another machine than three entries")
	}
}

func TestReplicasAreRemembered(t *testing.T) {
	m := New()
	mustApply(t, m,
		coordinatorJoined("b", "h:1"),
		job(1, 1), generation(1, 0, "a"), step(1, 1), finish(),
		coordinatorJoined("b", "h:2"), coordinatorJoined("a", "h:3"))
	if a, b, c := m.WorkerAddr("a"), m.WorkerAddr("b"), m.WorkerAddr("c"); a != "h:3" || b != "h:2" || c != "" {
		t.Errorf("replicas at %q, %q and %q, want h:3, h:2 and none", a, b, c)
	}
}

func TestSnapshotRestoresEverything(t *testing.T) {
	m := New()
	mustApply(t, m,
		coordinatorJoined("r", "h:1"),
		job(4, 2), generation(1, 0, "a", "b"), step(1, 1), evaluation(1, 5), step(1, 2))
	r := restored(t, m)
	rest := []*fsmpb.Entry{generation(2, 2, "a"), step(2, 3), evaluation(3, 9), step(2, 4), finish()}
	mustApply(t, m, rest...)
	mustApply(t, r, rest...)
	if !bytes.Equal(snapshot(t, m), snapshot(t, r)) || m.History() != r.History() {
		t.Error("the restored machine goes on differently")
	}
}

func TestRecentIsBoundedAndRestored(t *testing.T) {
	m := New()
	const total = recentSteps + 10
	mustApply(t, m, job(total, 2), generation(1, 0, "a"))
	for s := int64(1); s <= total; s++ {
		mustApply(t, m, step(1, s))
	}
	for _, n := range []*Machine{m, restored(t, m)} {
		list := n.Recent()
		if len(list) != recentSteps || list[0].Step != 11 || list[recentSteps-1].Step != total ||
			list[0].Loss() != 33.0/6 {
			t.Errorf("%d records from step %d, want %d from 11", len(list), list[0].Step, recentSteps)
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	m := New()
	mustApply(t, m, job(4, 2), generation(1, 0, "a"), step(1, 1))
	good := snapshot(t, m)
	for _, c := range []struct {
		name string
		data []byte
		want string // part of the error
	}{
		{"truncated", good[:len(good)-3], "snapshot of"},
		{"newer version", edited(t, m, func(s *fsmpb.Snapshot) { s.Version = 99 }), "version 99, this build reads 1"},
		{"flipped state", edited(t, m, func(s *fsmpb.Snapshot) { s.State[0] ^= 1 }), "digest"},
		{"step too far", edited(t, m, func(s *fsmpb.Snapshot) { s.Step = 5 }), "step 5 of a job of 4"},
		{"no history", edited(t, m, func(s *fsmpb.Snapshot) { s.HistoryDigest = nil }), "history"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := New()
			if err := n.Restore(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if n.Started() {
				t.Error("the refused snapshot was restored")
			}
		})
	}
}

func TestHistoryTellsBatchesApart(t *testing.T) {
	a, b := New(), New()
	otherBatch := edit(step(1, 1), (*fsmpb.Entry).GetStepCommitted, func(s *fsmpb.StepCommitted) {
		s.BatchDigest[0] ^= 1
	})
	mustApply(t, a, job(4, 2), generation(1, 0, "a"), step(1, 1))
	mustApply(t, b, job(4, 2), generation(1, 0, "x", "y"), otherBatch)
	if a.History() == b.History() {
		t.Error("another batch left the same history")
	}
}

func TestFailedJobTakesNothingMore(t *testing.T) {
	m := New()
	mustReject(t, m, "failure before any job", failure(1, "why"), "before any job")
	mustApply(t, m, job(4, 2), generation(1, 0, "a"), step(1, 1))
	mustReject(t, m, "no reason", failure(2, ""), "reason of 0 bytes")
	mustReject(t, m, "a long reason", failure(2, strings.Repeat("x", MaxFailureLength+1)), "reason of 4097 bytes")
	mustReject(t, m, "a step of the past", failure(0, "why"), "failure at step 0, want 1 to 4")
	mustReject(t, m, "no step of the job", failure(5, "why"), "failure at step 5, want 1 to 4")
	if m.Failure() != nil {
		t.Errorf("failure %v after rejected entries", m.Failure())
	}
	mustApply(t, m, failure(2, "example 7"))
	if f := m.Failure(); f == nil || *f != (Failure{Step: 2, Reason: "example 7"}) || m.Finished() {
		t.Errorf("failure %v, finished %v", f, m.Finished())
	}
	for _, e := range []*fsmpb.Entry{
		step(1, 2), generation(2, 1, "a"), evaluation(1, 1), finish(), failure(3, "again"),
	} {
		mustReject(t, m, "after the failure", e, "the job has failed at step 2")
	}
	if f := restored(t, m).Failure(); f == nil || *f != *m.Failure() {
		t.Errorf("restored: failure %v, want %v", f, m.Failure())
	}
	mustApply(t, m, coordinatorJoined("b", "b:1")) // replicas still come and go
}

// FuzzApply feeds arbitrary bytes to a running machine: it never panics, and an error changes
// nothing.
func FuzzApply(f *testing.F) {
	for _, e := range []*fsmpb.Entry{
		job(3, 2), generation(2, 1, "a"), step(1, 2), evaluation(1, 3), finish(), failure(2, "why"), offer(1, 2),
		withBlob(step(1, 2)),
	} {
		data, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New()
		mustApply(t, m, job(3, 2), generation(1, 0, "a", "b"), step(1, 1))
		before := snapshot(t, m)
		for _, entry := range [][]byte{data, seal(data)} { // as it is, and past the checksum
			if _, err := m.Apply(entry); err != nil && !bytes.Equal(before, snapshot(t, m)) {
				t.Errorf("error %v changed the machine", err)
			}
		}
	})
}

// FuzzRestore: an accepted snapshot encodes to one that is accepted again, with the same content.
func FuzzRestore(f *testing.F) {
	m := New()
	for _, e := range []*fsmpb.Entry{job(3, 2), generation(1, 0, "a"), step(1, 1), evaluation(1, 3)} {
		data, err := Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := m.Apply(data); err != nil {
			f.Fatal(err)
		}
	}
	good, err := m.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[sealSize:])
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := New(), New()
		if a.Restore(seal(data)) != nil {
			return
		}
		first := snapshot(t, a)
		if err := b.Restore(first); err != nil {
			t.Fatalf("own snapshot refused: %v", err)
		}
		if !bytes.Equal(first, snapshot(t, b)) {
			t.Error("snapshot of a restored snapshot differs")
		}
	})
}
