package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// stateAfter is the trainer state after step t in the entries below, and blob its name.
func stateAfter(t int64) []byte { return fmt.Appendf(nil, "state %d", t) }

func blob(t int64) ids.Blob {
	return ids.Blob{Digest: ids.Sum(stateAfter(t)), Size: int64(len(stateAfter(t)))}
}

// job starts a job without a queue.
func job(total, perEpoch int64) *fsmpb.Entry {
	d := ids.Sum(stateAfter(0))
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobStarted{JobStarted: &fsmpb.JobStarted{
		JobId:         "job",
		Spec:          []byte(`{}`),
		TotalSteps:    total,
		StepsPerEpoch: perEpoch,
		State:         stateAfter(0),
		StateDigest:   d[:],
	}}}
}

// impatient starts a job that ends after a number of evaluations without an improvement.
func impatient(total, patience int64) *fsmpb.Entry {
	return edit(job(total, 2), (*fsmpb.Entry).GetJobStarted, func(e *fsmpb.JobStarted) { e.Patience = patience })
}

// started starts a job of the queue.
func started(name string, steps int64) *fsmpb.Entry {
	return edit(job(steps, 1), (*fsmpb.Entry).GetJobStarted, func(e *fsmpb.JobStarted) { e.JobId = "id-" + name })
}

func queued(name string) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobQueued{JobQueued: &fsmpb.JobQueued{
		JobId:   "id-" + name,
		Name:    name,
		Request: []byte(`{}`),
	}}}
}

func cancelled(name, reason string) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobCancelled{JobCancelled: &fsmpb.JobCancelled{
		JobId:  "id-" + name,
		Reason: reason,
	}}}
}

func generation(g uint64, resume int64, ids ...string) *fsmpb.Entry {
	e := &fsmpb.GenerationStarted{Generation: g, ResumeStep: resume}
	for _, id := range ids {
		e.Members = append(e.Members, &fsmpb.Member{Id: id, Addr: id + ":1"})
	}
	return &fsmpb.Entry{Body: &fsmpb.Entry_GenerationStarted{GenerationStarted: e}}
}

func offer(g uint64, t int64) *fsmpb.Entry {
	b := blob(t)
	return &fsmpb.Entry{Body: &fsmpb.Entry_StateOffered{StateOffered: &fsmpb.StateOffered{
		Generation: g,
		Step:       t,
		Digest:     b.Digest[:],
		Size:       b.Size,
	}}}
}

func step(g uint64, t int64) *fsmpb.Entry {
	state, batch := ids.Sum(stateAfter(t)), ids.Sum(fmt.Appendf(nil, "batch %d", t))
	return &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: &fsmpb.StepCommitted{
		Generation:  g,
		Step:        t,
		BatchDigest: batch[:],
		StateDigest: state[:],
		State:       stateAfter(t),
		LossSum:     float64(t) * 3,
		Tokens:      6,
		Workers:     2,
	}}}
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

// withBlob makes the state of an entry, if it has one, a blob.
func withBlob(e *fsmpb.Entry) *fsmpb.Entry {
	switch b := e.Body.(type) {
	case *fsmpb.Entry_JobStarted:
		b.JobStarted.StateSize, b.JobStarted.State = int64(len(b.JobStarted.State)), nil
	case *fsmpb.Entry_StepCommitted:
		b.StepCommitted.StateSize, b.StepCommitted.State = int64(len(b.StepCommitted.State)), nil
	}
	return e
}

func evaluation(t int64, score float64) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_EvaluationCommitted{EvaluationCommitted: &fsmpb.EvaluationCommitted{
		Step:     t,
		Split:    "val",
		Loss:     1,
		Metrics:  []byte(`{"accuracy":50}`),
		Score:    score,
		Examples: 4,
	}}}
}

func finish() *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobFinished{JobFinished: &fsmpb.JobFinished{}}}
}

func finishEarly() *fsmpb.Entry {
	return edit(finish(), (*fsmpb.Entry).GetJobFinished, func(e *fsmpb.JobFinished) { e.StoppedEarly = true })
}

func failure(t int64, reason string) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobFailed{JobFailed: &fsmpb.JobFailed{Step: t, Error: reason}}}
}

func coordinatorJoined(id, addr string) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_CoordinatorJoined{CoordinatorJoined: &fsmpb.CoordinatorJoined{
		Id:         id,
		WorkerAddr: addr,
	}}}
}

// edit changes the body of an entry.
func edit[T any](e *fsmpb.Entry, body func(*fsmpb.Entry) T, change func(T)) *fsmpb.Entry {
	change(body(e))
	return e
}

func encode(t *testing.T, e *fsmpb.Entry) []byte {
	t.Helper()
	data, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// apply applies entries up to the first error.
func apply(t *testing.T, m *Machine, entries ...*fsmpb.Entry) error {
	t.Helper()
	for _, e := range entries {
		if _, err := m.Apply(encode(t, e)); err != nil {
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

// mustReject checks that m rejects e with an error that contains want, and does not change.
func mustReject(t *testing.T, m *Machine, what string, e *fsmpb.Entry, want string) {
	t.Helper()
	before := snapshot(t, m)
	if err := apply(t, m, e); !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: error %v, want a rejection with %q", what, err, want)
	}
	if !bytes.Equal(before, snapshot(t, m)) {
		t.Errorf("%s: the rejected entry changed the machine", what)
	}
}

func snapshot(t *testing.T, m *Machine) []byte {
	t.Helper()
	data, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// restored is a machine made from m's snapshot. Its own snapshot must be the same.
func restored(t *testing.T, m *Machine) *Machine {
	t.Helper()
	n := New()
	data := snapshot(t, m)
	if err := n.Restore(data); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, snapshot(t, n)) {
		t.Fatal("the restored machine's snapshot differs")
	}
	return n
}

// edited is m's snapshot after a change.
func edited(t *testing.T, m *Machine, change func(*fsmpb.Snapshot)) []byte {
	t.Helper()
	s := new(fsmpb.Snapshot)
	if err := unseal(snapshot(t, m), s); err != nil {
		t.Fatal(err)
	}
	change(s)
	data, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return seal(data)
}
