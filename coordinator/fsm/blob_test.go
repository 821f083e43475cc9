package fsm

import (
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// The blobs that a replica must keep follow the log: the state, the best state and the offered one,
// and the results of the finished jobs whose archives are kept.
func TestBlobs(t *testing.T) {
	m := New()
	mustKeep := func(want ...ids.Blob) {
		t.Helper()
		if got := m.Blobs(); !slices.Equal(got, want) {
			t.Errorf("at step %d a replica keeps %v, want %v", m.Step(), got, want)
		}
		if got := restored(t, m).Blobs(); !slices.Equal(got, want) {
			t.Errorf("at step %d a replica keeps %v after a snapshot, want %v", m.Step(), got, want)
		}
	}
	mustKeep()
	mustApply(t, m, queued("x"), withBlob(started("x", 4)))
	if m.State() != nil || m.Blob() != blob(0) {
		t.Errorf("the state is %q and the blob %v, want no state and %v", m.State(), m.Blob(), blob(0))
	}
	mustKeep(blob(0))
	mustApply(t, m, generation(1, 0, "a"), evaluation(0, 10), offer(1, 2))
	mustKeep(blob(0), blob(2))
	if o := m.Offered(); o == nil || *o != (Offer{1, 2, blob(2)}) {
		t.Errorf("offered is %+v", m.Offered())
	}
	mustApply(t, m, steps(withBlob(step(1, 2)), step(1, 1)))
	mustKeep(blob(2), blob(0))
	mustApply(t, m, evaluation(2, 30), offer(1, 3))
	mustKeep(blob(2), blob(3))

	// Nobody can commit what the generation before has offered.
	mustApply(t, m, generation(2, 2, "a"))
	mustKeep(blob(2))
	if m.Offered() != nil {
		t.Errorf("%+v is offered after its generation", m.Offered())
	}

	// A small state is no blob, even if the states before it are.
	mustApply(t, m, step(2, 3))
	mustKeep(blob(2))
	mustApply(t, m, withBlob(step(2, 4)))
	mustKeep(blob(4), blob(2))

	// The results of a finished job are kept for replicas that have not written its outputs yet;
	// those of a cancelled job only until the next one starts.
	mustApply(t, m, finish(), queued("y"), started("y", 4))
	mustKeep(blob(4), blob(2))
	mustApply(t, m, cancelled("y", ""))
	for _, id := range []string{"p", "q"} {
		mustApply(t, m, queued(id), withBlob(started(id, 4)))
		mustApply(t, m, cancelled(id, ""))
	}
	mustKeep(blob(0), blob(4), blob(2))
	mustApply(t, m, queued("r"), started("r", 4))
	mustKeep(blob(4), blob(2))

	// Once a fifth job has ended, the archive of the first one is dropped.
	mustApply(t, m, cancelled("r", ""))
	mustKeep()
}

func TestBlobRejections(t *testing.T) {
	editOffer := func(e *fsmpb.Entry, change func(*fsmpb.StateOffered)) *fsmpb.Entry {
		return edit(e, (*fsmpb.Entry).GetStateOffered, change)
	}
	editStep := func(e *fsmpb.Entry, change func(*fsmpb.StepCommitted)) *fsmpb.Entry {
		return edit(e, (*fsmpb.Entry).GetStepCommitted, change)
	}
	running := []*fsmpb.Entry{withBlob(job(3, 2)), generation(1, 0, "a"), withBlob(step(1, 1))}
	offered, failed := append(running[:3:3], offer(1, 2)), append(running[:3:3], failure(2, "why"))
	for _, c := range []struct {
		name   string
		before []*fsmpb.Entry
		entry  *fsmpb.Entry
		want   string // part of the rejection
	}{
		{"offer before the job", nil, offer(0, 1), "before any job"},
		{"offer of another generation", running, offer(2, 2), "generation 2 offered, current is 1"},
		{"offer of a committed step", running, offer(1, 1), "after step 1 offered, want one of 2 to 3"},
		{"offer beyond the end", running, offer(1, 4), "after step 4 offered, want one of 2 to 3"},
		{"offer beside another", offered, offer(1, 3), "after step 3 offered, that after step 2 is"},
		{"offer without a digest", running,
			editOffer(offer(1, 2), func(o *fsmpb.StateOffered) { o.Digest = nil }), "0 bytes, want 32"},
		{"offer of nothing", running,
			editOffer(offer(1, 2), func(o *fsmpb.StateOffered) { o.Size = 0 }), "0 bytes, want at least 1"},
		{"offer after the end", failed, offer(1, 2), "has failed"},
		{"step with a blob and a state", running,
			editStep(step(1, 2), func(s *fsmpb.StepCommitted) { s.StateSize = 5 }),
			"state of 7 bytes in the entry and a blob of 5"},
		{"step with a blob of less than nothing", running,
			editStep(withBlob(step(1, 2)), func(s *fsmpb.StepCommitted) { s.StateSize = -1 }), "a blob of -1"},
		{"step with a blob without a digest", running,
			editStep(withBlob(step(1, 2)), func(s *fsmpb.StepCommitted) { s.StateDigest = nil }), "0 bytes, want 32"},
		{"earlier step with a blob", running,
			editStep(steps(withBlob(step(1, 3)), step(1, 2)),
				func(s *fsmpb.StepCommitted) { s.Earlier[0].StateSize = 7 }),
			"want them of step 3 only"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New()
			mustApply(t, m, c.before...)
			mustReject(t, m, c.name, c.entry, c.want)
		})
	}
}

func TestRestoreRefusesBlobs(t *testing.T) {
	m := New()
	mustApply(t, m, withBlob(job(4, 2)), generation(1, 0, "a"), evaluation(0, 1), withBlob(step(1, 1)), offer(1, 2))
	for _, c := range []struct {
		want   string // part of the error
		change func(*fsmpb.Snapshot)
	}{
		{"best state, a blob of -1 bytes: want at least 1", func(s *fsmpb.Snapshot) { s.BestSize = -1 }},
		{"best state, a blob of 7 bytes: digest of 2 bytes, want 32",
			func(s *fsmpb.Snapshot) { s.BestDigest = []byte("no") }},
		{"state of 3 bytes in the entry and a blob of 7", func(s *fsmpb.Snapshot) { s.State = []byte("yes") }},
		{"state after step 1 offered, want one of 2 to 4", func(s *fsmpb.Snapshot) { s.Offered.Step = 1 }},
		{"state of generation 9 offered, current is 1", func(s *fsmpb.Snapshot) { s.Offered.Generation = 9 }},
		{"state digest of 0 bytes, want 32", func(s *fsmpb.Snapshot) { s.StateDigest = nil }},
	} {
		if err := New().Restore(edited(t, m, c.change)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
}
