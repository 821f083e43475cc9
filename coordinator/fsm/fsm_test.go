package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

func job(total, perEpoch int64) *fsmpb.Entry {
	state := []byte("state 0")
	d := ids.Sum(state)
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobStarted{JobStarted: &fsmpb.JobStarted{
		JobId: "job", Spec: []byte(`{}`), TotalSteps: total, StepsPerEpoch: perEpoch, State: state, StateDigest: d[:]}}}
}

func generation(g uint64, resume int64, ids ...string) *fsmpb.Entry {
	e := &fsmpb.GenerationStarted{Generation: g, ResumeStep: resume}
	for _, id := range ids {
		e.Members = append(e.Members, &fsmpb.Member{Id: id, Addr: id + ":1"})
	}
	return &fsmpb.Entry{Body: &fsmpb.Entry_GenerationStarted{GenerationStarted: e}}
}

func step(g uint64, t int64) *fsmpb.Entry {
	state := fmt.Appendf(nil, "state %d", t)
	d, b := ids.Sum(state), ids.Sum(fmt.Appendf(nil, "batch %d", t))
	return &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: &fsmpb.StepCommitted{
		Generation: g, Step: t, BatchDigest: b[:], StateDigest: d[:], State: state, LossSum: float64(t) * 3, Tokens: 6, Workers: 2}}}
}

func evaluation(t int64, score float64) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_EvaluationCommitted{EvaluationCommitted: &fsmpb.EvaluationCommitted{
		Step: t, Split: "val", Loss: 1, Metrics: []byte(`{"accuracy":50}`), Score: score, Examples: 4}}}
}

func finish() *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobFinished{JobFinished: &fsmpb.JobFinished{}}}
}

// steps puts earlier steps into last's entry.
func steps(last *fsmpb.Entry, earlier ...*fsmpb.Entry) *fsmpb.Entry {
	for _, e := range earlier {
		s := e.GetStepCommitted()
		s.State = nil
		last.GetStepCommitted().Earlier = append(last.GetStepCommitted().Earlier, s)
	}
	return last
}

func coordinatorJoined(id, addr string) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_CoordinatorJoined{CoordinatorJoined: &fsmpb.CoordinatorJoined{Id: id, WorkerAddr: addr}}}
}

func edit[T any](e *fsmpb.Entry, body func(*fsmpb.Entry) T, change func(T)) *fsmpb.Entry {
	change(body(e))
	return e
}

func apply(t *testing.T, m *Machine, entries ...*fsmpb.Entry) error {
	t.Helper()
	for _, e := range entries {
		data, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Apply(data); err != nil {
			return err
		}
	}
	return nil
}

func mustApply(t *testing.T, m *Machine, entries ...*fsmpb.Entry) {
	t.Helper()
	if err := apply(t, m, entries...); err != nil {
		t.Fatal(err)
	}
}

func snap(t *testing.T, m *Machine) []byte {
	t.Helper()
	b, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestJobFromStartToFinish(t *testing.T) {
	m := New()
	mustApply(t, m, job(4, 2), generation(1, 0, "a", "b"), evaluation(0, 10), step(1, 1), step(1, 2), evaluation(2, 30),
		generation(2, 2, "b"), step(2, 3), step(2, 4), evaluation(4, 30), finish())
	if m.Step() != 4 || !m.Finished() || string(m.State()) != "state 4" || m.StateDigest() != ids.Sum([]byte("state 4")) {
		t.Errorf("ended at step %d, finished %v, state %q", m.Step(), m.Finished(), m.State())
	}
	if b := m.Best(); b == nil || b.Step != 2 || string(b.State) != "state 2" {
		t.Errorf("best = %+v, want the earlier of two equals, step 2", b)
	}
	lower := edit(evaluation(4, 30), (*fsmpb.Entry).GetEvaluationCommitted, func(e *fsmpb.EvaluationCommitted) { e.Loss = 0.5 })
	n := New()
	mustApply(t, n, job(4, 2), generation(1, 0, "a"), step(1, 1), step(1, 2), evaluation(2, 30), step(1, 3), step(1, 4), lower)
	if b := n.Best(); b.Step != 4 || b.Loss != 0.5 {
		t.Errorf("best = %+v, want step 4: of equal scores the lower loss", b)
	}
	if e := m.Epochs(); len(e) != 2 || e[0].Mean() != 9.0/12 || e[1].Mean() != 21.0/12 {
		t.Errorf("epochs = %+v", e)
	}
	if g, members := m.Generation(); g != 2 || len(members) != 1 || members[0] != (Member{"b", "b:1"}) {
		t.Errorf("generation %d of %v", g, members)
	}
	if err := apply(t, m, step(2, 5)); !errors.Is(err, ErrRejected) {
		t.Errorf("a step after the end: %v", err)
	}
}

func TestRejectionsChangeNothing(t *testing.T) {
	stepOf := (*fsmpb.Entry).GetStepCommitted
	running := []*fsmpb.Entry{job(3, 2), generation(1, 0, "a", "b"), step(1, 1)}
	for _, c := range []struct {
		name   string
		before []*fsmpb.Entry
		entry  *fsmpb.Entry
		says   string
	}{
		{"second job", running, job(3, 2), "already started"},
		{"job without id", nil, edit(job(3, 2), (*fsmpb.Entry).GetJobStarted, func(j *fsmpb.JobStarted) { j.JobId = "" }), "without an id"},
		{"job without steps", nil, job(0, 2), "0 steps"},
		{"job with a false digest", nil, edit(job(3, 2), (*fsmpb.Entry).GetJobStarted, func(j *fsmpb.JobStarted) { j.State = []byte("x") }), "digest"},
		{"generation before the job", nil, generation(1, 0, "a"), "before any job"},
		{"generation skipped", running, generation(3, 1, "a"), "generation 3 after generation 1"},
		{"generation resumes in the past", running, generation(2, 0, "a"), "resumes at step 0, committed is 1"},
		{"generation of nobody", running, generation(2, 1), "without members"},
		{"generation with a member twice", running, generation(2, 1, "a", "a"), "repeated"},
		{"generation that computes otherwise", append(running[:2:2], edit(generation(2, 0, "a"), (*fsmpb.Entry).GetGenerationStarted, func(g *fsmpb.GenerationStarted) { g.Numerics = "x/f32" })),
			edit(generation(3, 0, "a"), (*fsmpb.Entry).GetGenerationStarted, func(g *fsmpb.GenerationStarted) { g.Numerics = "y/f32" }), `computes with "y/f32", the job with "x/f32"`},
		{"step before the job", nil, step(0, 1), "before any job"},
		{"step of another generation", running, step(2, 2), "generation 2, current is 1"},
		{"step again", running, step(1, 1), "step 1 after step 1"},
		{"step skipped", running, step(1, 3), "step 3 after step 1"},
		{"step with a false state", running, edit(step(1, 2), stepOf, func(s *fsmpb.StepCommitted) { s.State = []byte("other") }), "digest"},
		{"step with a short digest", running, edit(step(1, 2), stepOf, func(s *fsmpb.StepCommitted) { s.StateDigest = s.StateDigest[:5] }), "5 bytes, want 32"},
		{"step with a short batch digest", running, edit(step(1, 2), stepOf, func(s *fsmpb.StepCommitted) { s.BatchDigest = nil }), "0 bytes, want 32"},
		{"step without tokens", running, edit(step(1, 2), stepOf, func(s *fsmpb.StepCommitted) { s.Tokens = 0 }), "0 tokens"},
		{"step with a NaN loss", running, edit(step(1, 2), stepOf, func(s *fsmpb.StepCommitted) { s.LossSum = math.NaN() }), "NaN"},
		{"evaluation of another step", running, evaluation(0, 1), "committed is 1"},
		{"evaluation twice", append(running[:3:3], evaluation(1, 1)), evaluation(1, 2), "already evaluated"},
		{"evaluation with a NaN score", running, evaluation(1, math.NaN()), "NaN"},
		{"finish too early", running, finish(), "step 1 of 3"},
		{"replica without a name", running, coordinatorJoined("", "h:1"), "want a name"},
		{"replica without an address", running, coordinatorJoined("a", ""), "want a name"},
		{"steps with a gap", running, steps(step(1, 3), step(1, 3)), "step 3 after step 1"},
		{"steps of two generations", running, steps(step(1, 3), step(2, 2)), "generation 2, current is 1"},
		{"earlier step with a state", running, edit(steps(step(1, 3), step(1, 2)), stepOf, func(s *fsmpb.StepCommitted) { s.Earlier[0].State = []byte("x") }), "want that of step 3 only"},
		{"steps beyond the end", running, steps(step(1, 4), step(1, 2), step(1, 3)), "step 4 of a job of 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New()
			mustApply(t, m, c.before...)
			was := snap(t, m)
			err := apply(t, m, c.entry)
			if !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want a rejection that says %q", err, c.says)
			}
			if !bytes.Equal(was, snap(t, m)) {
				t.Error("the rejected entry changed the machine")
			}
		})
	}
}

// An entry that cannot be read is no rejection: the replica must stop.
func TestUnreadableEntriesAreNotRejected(t *testing.T) {
	encode := func(e *fsmpb.Entry) []byte {
		b, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := encode(step(1, 2))
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 4
	newer := step(1, 2)
	newer.GetStepCommitted().ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 1}) // field 127, varint 1
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"flipped":       {flipped, "damaged"},
		"cut":           {good[:len(good)-1], "damaged"},
		"nothing":       {nil, "cut short"},
		"other format":  {append([]byte{9}, good[1:]...), "format 9, this build reads 1"},
		"unknown kind":  {encode(&fsmpb.Entry{}), "newer version"},
		"unknown field": {encode(newer), "newer version"},
		"not a message": {seal([]byte{0xff}), "log entry of 6 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := New()
			mustApply(t, m, job(3, 2), generation(1, 0, "a"), step(1, 1))
			was := snap(t, m)
			_, err := m.Apply(c.data)
			if err == nil || errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that is no rejection and says %q", err, c.says)
			}
			if !bytes.Equal(was, snap(t, m)) {
				t.Error("the entry changed the machine")
			}
		})
	}
}

func TestStepsTogetherAreStepsOneByOne(t *testing.T) {
	one, three := New(), New()
	mustApply(t, one, job(4, 2), generation(1, 0, "a"), step(1, 1), step(1, 2), step(1, 3))
	mustApply(t, three, job(4, 2), generation(1, 0, "a"), steps(step(1, 3), step(1, 1), step(1, 2)))
	if !bytes.Equal(snap(t, one), snap(t, three)) {
		t.Error("three steps in one entry leave another machine than three entries")
	}
}

func TestReplicasAreRemembered(t *testing.T) {
	m := New()
	mustApply(t, m, coordinatorJoined("b", "h:1"), job(1, 1), generation(1, 0, "a"), step(1, 1), finish(), coordinatorJoined("b", "h:2"), coordinatorJoined("a", "h:3"))
	if a, b, c := m.WorkerAddr("a"), m.WorkerAddr("b"), m.WorkerAddr("c"); a != "h:3" || b != "h:2" || c != "" {
		t.Errorf("replicas at %q, %q and %q, want h:3, h:2 and none", a, b, c)
	}
}

func TestSnapshotRestoresEverything(t *testing.T) {
	m := New()
	mustApply(t, m, coordinatorJoined("r", "h:1"), job(4, 2), generation(1, 0, "a", "b"), step(1, 1), evaluation(1, 5), step(1, 2))
	r := New()
	if err := r.Restore(snap(t, m)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snap(t, m), snap(t, r)) {
		t.Fatal("the restored machine's snapshot differs")
	}
	rest := []*fsmpb.Entry{generation(2, 2, "a"), step(2, 3), evaluation(3, 9), step(2, 4), finish()}
	mustApply(t, m, rest...)
	mustApply(t, r, rest...)
	if !bytes.Equal(snap(t, m), snap(t, r)) || m.History() != r.History() {
		t.Error("the restored machine goes on differently")
	}
}

func TestRecentIsBoundedAndRestored(t *testing.T) {
	m := New()
	const total = RecentSteps + 10
	mustApply(t, m, job(total, 2), generation(1, 0, "a"))
	for s := int64(1); s <= total; s++ {
		mustApply(t, m, step(1, s))
	}
	check := func(recent []StepRecord) {
		t.Helper()
		if len(recent) != RecentSteps || recent[0].Step != 11 || recent[RecentSteps-1].Step != total || recent[0].Loss() != 33.0/6 {
			t.Errorf("%d records from step %d, want %d from 11", len(recent), recent[0].Step, RecentSteps)
		}
	}
	check(m.Recent())
	r := New()
	if err := r.Restore(snap(t, m)); err != nil {
		t.Fatal(err)
	}
	check(r.Recent())
}

func TestRestoreRefuses(t *testing.T) {
	m := New()
	mustApply(t, m, job(4, 2), generation(1, 0, "a"), step(1, 1))
	good := snap(t, m)
	change := func(f func(*fsmpb.Snapshot)) []byte {
		s := new(fsmpb.Snapshot)
		if err := unseal(good, s); err != nil {
			t.Fatal(err)
		}
		f(s)
		b, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return seal(b)
	}
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"truncated":     {good[:len(good)-3], "snapshot of"},
		"newer version": {change(func(s *fsmpb.Snapshot) { s.Version = 99 }), "version 99, this build reads 1"},
		"flipped state": {change(func(s *fsmpb.Snapshot) { s.State[0] ^= 1 }), "digest"},
		"step too far":  {change(func(s *fsmpb.Snapshot) { s.Step = 5 }), "step 5 of a job of 4"},
		"no history":    {change(func(s *fsmpb.Snapshot) { s.HistoryDigest = nil }), "history"},
	} {
		t.Run(name, func(t *testing.T) {
			n := New()
			if err := n.Restore(c.data); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
			if n.Started() {
				t.Error("the refused snapshot was taken")
			}
		})
	}
}

func TestHistoryTellsBatchesApart(t *testing.T) {
	a, b := New(), New()
	mustApply(t, a, job(4, 2), generation(1, 0, "a"), step(1, 1))
	mustApply(t, b, job(4, 2), generation(1, 0, "x", "y"), edit(step(1, 1), (*fsmpb.Entry).GetStepCommitted, func(s *fsmpb.StepCommitted) { s.BatchDigest[0] ^= 1 }))
	if a.History() == b.History() {
		t.Error("another batch left the same history")
	}
}

// FuzzApply feeds arbitrary bytes to a running machine: never a panic, and an error changes nothing.
func FuzzApply(f *testing.F) {
	for _, e := range []*fsmpb.Entry{job(3, 2), generation(2, 1, "a"), step(1, 2), evaluation(1, 3), finish(), failure(2, "why"), offer(1, 2), apart(step(1, 2))} {
		b, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New()
		mustApply(t, m, job(3, 2), generation(1, 0, "a", "b"), step(1, 1))
		was := snap(t, m)
		for _, entry := range [][]byte{data, seal(data)} { // as it is, and past the checksum
			if _, err := m.Apply(entry); err != nil && !bytes.Equal(was, snap(t, m)) {
				t.Errorf("error %v changed the machine", err)
			}
		}
	})
}

// FuzzRestore: a snapshot that is accepted encodes to one that is accepted again with the same content.
func FuzzRestore(f *testing.F) {
	m := New()
	for _, e := range []*fsmpb.Entry{job(3, 2), generation(1, 0, "a"), step(1, 1), evaluation(1, 3)} {
		b, err := Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := m.Apply(b); err != nil {
			f.Fatal(err)
		}
	}
	b, err := m.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[sealSize:])
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := New(), New()
		if a.Restore(seal(data)) != nil {
			return
		}
		first := snap(t, a)
		if err := b.Restore(first); err != nil {
			t.Fatalf("own snapshot refused: %v", err)
		}
		if !bytes.Equal(first, snap(t, b)) {
			t.Error("snapshot of a restored snapshot differs")
		}
	})
}

func failure(t int64, text string) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobFailed{JobFailed: &fsmpb.JobFailed{Step: t, Error: text}}}
}

func TestFailedJobTakesNothingMore(t *testing.T) {
	m := New()
	if err := apply(t, m, failure(1, "why")); !errors.Is(err, ErrRejected) {
		t.Errorf("failure before any job: %v", err)
	}
	mustApply(t, m, job(4, 2), generation(1, 0, "a"), step(1, 1))
	for name, e := range map[string]*fsmpb.Entry{
		"no reason": failure(2, ""), "a long reason": failure(2, strings.Repeat("x", MaxFailureLength+1)), "a step of the past": failure(0, "why"), "no step of the job": failure(5, "why"),
	} {
		if err := apply(t, m, e); !errors.Is(err, ErrRejected) || m.Failure() != nil {
			t.Errorf("%s: %v, failure %v", name, err, m.Failure())
		}
	}
	mustApply(t, m, failure(2, "example 7"))
	if f := m.Failure(); f == nil || *f != (Failure{Step: 2, Reason: "example 7"}) || m.Finished() {
		t.Errorf("failure %v, finished %v", f, m.Finished())
	}
	before := snap(t, m)
	for _, e := range []*fsmpb.Entry{step(1, 2), generation(2, 1, "a"), evaluation(1, 1), finish(), failure(3, "again")} {
		if err := apply(t, m, e); !errors.Is(err, ErrRejected) {
			t.Errorf("%T after the failure: %v", e.Body, err)
		}
	}
	if !bytes.Equal(before, snap(t, m)) {
		t.Error("a rejected entry changed the machine")
	}
	n := New()
	if err := n.Restore(before); err != nil {
		t.Fatal(err)
	}
	if f := n.Failure(); f == nil || *f != *m.Failure() || !bytes.Equal(before, snap(t, n)) {
		t.Errorf("restored: failure %v, want %v", f, m.Failure())
	}
	mustApply(t, m, coordinatorJoined("b", "b:1")) // replicas still come and go
}
