package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// apart makes the state of an entry, if it has one, a blob.
func apart(e *fsmpb.Entry) *fsmpb.Entry {
	switch b := e.Body.(type) {
	case *fsmpb.Entry_JobStarted:
		b.JobStarted.StateSize, b.JobStarted.State = int64(len(b.JobStarted.State)), nil
	case *fsmpb.Entry_StepCommitted:
		b.StepCommitted.StateSize, b.StepCommitted.State = int64(len(b.StepCommitted.State)), nil
	}
	return e
}

func offer(g uint64, t int64) *fsmpb.Entry {
	b := blob(t)
	return &fsmpb.Entry{Body: &fsmpb.Entry_StateOffered{StateOffered: &fsmpb.StateOffered{Generation: g, Step: t, Digest: b.Digest[:], Size: b.Size}}}
}

// longer starts a job of the queue of so many steps.
func longer(name string, steps int64) *fsmpb.Entry {
	e := started(name)
	e.GetJobStarted().TotalSteps = steps
	return e
}

// blob is the state after step t.
func blob(t int64) ids.Blob {
	state := fmt.Appendf(nil, "state %d", t)
	return ids.Blob{Digest: ids.Sum(state), Size: int64(len(state))}
}

// What a replica has to keep follows the log: the state, the best one and the offered one, and of jobs that are kept whole the results.
func TestBlobs(t *testing.T) {
	m := New()
	at := func(want ...ids.Blob) {
		t.Helper()
		if got := m.Blobs(); !slices.Equal(got, want) {
			t.Errorf("at step %d a replica keeps %v, want %v", m.Step(), got, want)
		}
		r := New()
		if err := r.Restore(snap(t, m)); err != nil || !slices.Equal(r.Blobs(), want) || !bytes.Equal(snap(t, r), snap(t, m)) {
			t.Errorf("at step %d a snapshot brings back %v (%v), want %v", m.Step(), r.Blobs(), err, want)
		}
	}
	at()
	mustApply(t, m, queued("x"), apart(longer("x", 4)))
	if m.State() != nil || m.Blob() != blob(0) {
		t.Errorf("the state is %q and the blob %v, want no state and %v", m.State(), m.Blob(), blob(0))
	}
	at(blob(0))
	mustApply(t, m, generation(1, 0, "a"), evaluation(0, 10), offer(1, 2))
	at(blob(0), blob(2))
	if o := m.Offered(); o == nil || *o != (Offer{1, 2, blob(2)}) {
		t.Errorf("offered is %+v", m.Offered())
	}
	mustApply(t, m, steps(apart(step(1, 2)), step(1, 1)))
	at(blob(2), blob(0))
	mustApply(t, m, evaluation(2, 30), offer(1, 3))
	at(blob(2), blob(3))
	mustApply(t, m, generation(2, 2, "a"))
	at(blob(2)) // nobody can commit what the generation before has offered
	if m.Offered() != nil {
		t.Errorf("%+v is offered after its generation", m.Offered())
	}
	mustApply(t, m, step(2, 3)) // a small state is no blob, whatever the others are
	at(blob(2))
	mustApply(t, m, apart(step(2, 4)))
	at(blob(4), blob(2))
	mustApply(t, m, finish(), queued("y"), longer("y", 4))
	at(blob(4), blob(2)) // for replicas whose outputs are behind
	mustApply(t, m, cancelled("y", ""))
	for _, id := range []string{"p", "q"} {
		mustApply(t, m, queued(id), apart(longer(id, 4)))
		mustApply(t, m, cancelled(id, ""))
	}
	at(blob(0), blob(4), blob(2)) // a cancelled job's are nobody's once the next one has begun
	mustApply(t, m, queued("r"), longer("r", 4))
	at(blob(4), blob(2))
	mustApply(t, m, cancelled("r", "")) // the fifth that is over: the first is remembered without its results
	at()
}

func TestBlobRejections(t *testing.T) {
	stepOf, offerOf := (*fsmpb.Entry).GetStepCommitted, (*fsmpb.Entry).GetStateOffered
	running := []*fsmpb.Entry{apart(job(3, 2)), generation(1, 0, "a"), apart(step(1, 1))}
	for _, c := range []struct {
		name   string
		before []*fsmpb.Entry
		entry  *fsmpb.Entry
		says   string
	}{
		{"offer before the job", nil, offer(0, 1), "before any job"},
		{"offer of another generation", running, offer(2, 2), "generation 2 offered, current is 1"},
		{"offer of a committed step", running, offer(1, 1), "after step 1 offered, want one of 2 to 3"},
		{"offer beyond the end", running, offer(1, 4), "after step 4 offered, want one of 2 to 3"},
		{"offer beside another", append(running[:3:3], offer(1, 2)), offer(1, 3), "after step 3 offered, that after step 2 is"},
		{"offer without a digest", running, edit(offer(1, 2), offerOf, func(o *fsmpb.StateOffered) { o.Digest = nil }), "0 bytes, want 32"},
		{"offer of nothing", running, edit(offer(1, 2), offerOf, func(o *fsmpb.StateOffered) { o.Size = 0 }), "0 bytes, want at least 1"},
		{"offer after the end", append(running[:3:3], failure(2, "why")), offer(1, 2), "has failed"},
		{"step with a blob and a state", running, edit(step(1, 2), stepOf, func(s *fsmpb.StepCommitted) { s.StateSize = 5 }), "state of 7 bytes in the entry and a blob of 5"},
		{"step with a blob of less than nothing", running, edit(apart(step(1, 2)), stepOf, func(s *fsmpb.StepCommitted) { s.StateSize = -1 }), "a blob of -1"},
		{"step with a blob without a digest", running, edit(apart(step(1, 2)), stepOf, func(s *fsmpb.StepCommitted) { s.StateDigest = nil }), "0 bytes, want 32"},
		{"earlier step with a blob", running, edit(steps(apart(step(1, 3)), step(1, 2)), stepOf, func(s *fsmpb.StepCommitted) { s.Earlier[0].StateSize = 7 }), "want that of step 3 only"},
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

func TestRestoreRefusesBlobs(t *testing.T) {
	m := New()
	mustApply(t, m, apart(job(4, 2)), generation(1, 0, "a"), evaluation(0, 1), apart(step(1, 1)), offer(1, 2))
	good := snap(t, m)
	for says, change := range map[string]func(*fsmpb.Snapshot){
		"best state, a blob of -1 bytes: want at least 1":           func(s *fsmpb.Snapshot) { s.BestSize = -1 },
		"best state, a blob of 7 bytes: digest of 2 bytes, want 32": func(s *fsmpb.Snapshot) { s.BestDigest = []byte("no") },
		"state of 3 bytes in the entry and a blob of 7":             func(s *fsmpb.Snapshot) { s.State = []byte("yes") },
		"state after step 1 offered, want one of 2 to 4":            func(s *fsmpb.Snapshot) { s.Offered.Step = 1 },
		"state of generation 9 offered, current is 1":               func(s *fsmpb.Snapshot) { s.Offered.Generation = 9 },
		"state digest of 0 bytes, want 32":                          func(s *fsmpb.Snapshot) { s.StateDigest = nil },
	} {
		s := new(fsmpb.Snapshot)
		if err := unseal(good, s); err != nil {
			t.Fatal(err)
		}
		change(s)
		b, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := New().Restore(seal(b)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
	}
}

func TestParseDigest(t *testing.T) {
	d := ids.Sum([]byte("x"))
	if got, err := ids.ParseDigest(d.String()); err != nil || got != d {
		t.Errorf("%v comes back as %v (%v)", d, got, err)
	}
	for _, bad := range []string{"", d.String()[2:], strings.ToUpper(d.String()), d.String() + ".tmp", "no digest"} {
		if _, err := ids.ParseDigest(bad); err == nil {
			t.Errorf("%q is taken for a digest", bad)
		}
	}
}
