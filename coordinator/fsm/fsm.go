// Package fsm is the job as a replicated state machine.
//
// It is pure: entries in, state out. Time, randomness and I/O come in as log entries, so that every replica that
// applies the same entries holds the same bytes. An entry that does not follow from the state (a step of an
// ended generation, a step out of order, a state that does not match its digest) is rejected and changes
// nothing; the rejection is itself deterministic.
//
//	JobStarted            the resolved settings and the initial trainer state: once and first, or of the first job in the queue after the last has ended
//	GenerationStarted     a new ring of workers, resuming at the committed step
//	StateOffered          a trainer state too large for an entry, which the replicas are to take as a file before its step is committed
//	StepCommitted         the next step, with the trainer state it led to, or the name of its file
//	EvaluationCommitted   an evaluation of the committed state
//	JobFinished           after the last step, or after the evaluation with which the job's patience has run out
//	JobFailed             the data cannot be trained on; nothing follows
//	JobQueued             a job that waits for its turn
//	JobCancelled          ends a job that waits or runs
//	CoordinatorJoined     where a replica takes workers
//
// Any other error than a rejection (an entry whose checksum does not hold, a kind or field that this build does not
// know) says that this replica cannot follow the log any more. Its owner must stop it: to skip the entry would be
// to hold another state than the other replicas.
//
// A Machine is not safe for concurrent use; its owner serializes.
package fsm

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// snapshotVersion changes when an older build would misread a snapshot.
const snapshotVersion = 1

// RecentSteps is how many of the last steps' records a machine keeps, so that a process that was killed after a commit
// can still write what it had to say about the step.
//
// A replica that was away for longer than this lacks the lines between in its metrics; it lacks nothing else.
const RecentSteps = 4096

// MaxFailureLength bounds the reason of a failure, in bytes.
const MaxFailureLength = 4096

// maxCoordinators bounds the replicas that the machine remembers.
const maxCoordinators = 64

// ErrRejected is what every rejection wraps.
var ErrRejected = errors.New("entry rejected")

func reject(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRejected, fmt.Sprintf(format, args...))
}

// Machine is the replicated state.
type Machine struct {
	job         *fsmpb.JobStarted // State cleared once a step is committed
	generation  ids.Generation
	members     []Member
	numerics    string
	step        ids.Step
	state       []byte // nil where it is a blob
	stateDigest ids.Digest
	stateSize   int64      // of a blob, else 0
	offer       *Offer     // nil unless one holds
	history     ids.Digest // chain over (step, batch digest, state digest)
	best        *Best
	evaluations []Evaluation
	epochs      []EpochStat
	recent      []StepRecord      // of the last steps, oldest first
	replicas    map[string]string // worker-facing addresses by replica id
	finished    bool
	failure     *Failure // nil unless the job has failed
	cancelled   bool
	first       ids.Generation // the last one before the job
	seconds     float64        // of the committed steps and evaluations
	request     Queued         // the job as it was queued, if it came by the queue
	queue       []Queued
	ended       []*Ended
}

// New returns the machine before any entry.
func New() *Machine { return &Machine{} }

// Started says whether a job has been started.
func (m *Machine) Started() bool { return m.job != nil }

// JobID names the job; "" before it started.
func (m *Machine) JobID() string { return m.job.GetJobId() }

// Spec is the job's resolved settings as canonical JSON.
func (m *Machine) Spec() []byte { return m.job.GetSpec() }

// TotalSteps is the number of steps of the job.
func (m *Machine) TotalSteps() ids.Step { return ids.Step(m.job.GetTotalSteps()) }

// Step is the number of committed steps.
func (m *Machine) Step() ids.Step { return m.step }

// State is the trainer state after Step steps, nil where Blob names it. The caller must not change it.
func (m *Machine) State() []byte { return m.state }

// Blob names the trainer state after Step steps where it is too large for the log; its size is 0 where it is not.
func (m *Machine) Blob() ids.Blob {
	if m.stateSize == 0 {
		return ids.Blob{}
	}
	return ids.Blob{Digest: m.stateDigest, Size: m.stateSize}
}

// Offered is the offer that holds; nil if none does.
func (m *Machine) Offered() *Offer { return m.offer }

// Blobs are all that a replica has to keep: the state, the best one, the one that is offered, and those of the finished jobs that are kept whole.
func (m *Machine) Blobs() (list []ids.Blob) {
	add := func(b ids.Blob) {
		if b.Size > 0 && !slices.Contains(list, b) {
			list = append(list, b)
		}
	}
	add(m.Blob())
	if m.best != nil {
		add(m.best.Blob)
	}
	if m.offer != nil {
		add(m.offer.Blob)
	}
	for _, e := range m.ended {
		if e.archive != nil && e.Status == Finished {
			for _, b := range e.archive.Blobs() {
				add(b)
			}
		}
	}
	return list
}

// StateDigest is the trainer state's SHA-256.
func (m *Machine) StateDigest() ids.Digest { return m.stateDigest }

// History chains every committed step's batch and state digests: two runs with the same history saw the same
// batches in the same order and held the same state after each.
func (m *Machine) History() ids.Digest { return m.history }

// Generation is the current ring's number and its members by rank.
func (m *Machine) Generation() (ids.Generation, []Member) { return m.generation, m.members }

// FirstGeneration is the number after which the job's own generations begin.
func (m *Machine) FirstGeneration() ids.Generation { return m.first }

// Numerics is what the workers compute with, as it decides the bits of a gradient; "" before the first generation.
func (m *Machine) Numerics() string { return m.numerics }

// Best is the best evaluated state, nil before the first evaluation.
func (m *Machine) Best() *Best { return m.best }

// Evaluations are all committed evaluations in order.
func (m *Machine) Evaluations() []Evaluation { return m.evaluations }

// Epochs are the training losses by epoch; the last may be partial.
func (m *Machine) Epochs() []EpochStat { return m.epochs }

// Recent are the records of the last committed steps, oldest first, at most RecentSteps.
func (m *Machine) Recent() []StepRecord { return m.recent }

// WorkerAddr is where the replica takes workers; "" when it has not said.
func (m *Machine) WorkerAddr(replica string) string { return m.replicas[replica] }

// WorkerAddrs are where all replicas that have said so take workers, in order.
func (m *Machine) WorkerAddrs() []string { return slices.Sorted(maps.Values(m.replicas)) }

// Finished says whether the job has done all its steps, or stopped early, and ended.
func (m *Machine) Finished() bool { return m.finished }

// Failure is why the job has ended without an end; nil if it has not.
func (m *Machine) Failure() *Failure { return m.failure }

// Evaluated says whether the state after step has been evaluated.
func (m *Machine) Evaluated(step ids.Step) bool {
	n := len(m.evaluations)
	return n > 0 && m.evaluations[n-1].Step == step
}

// Apply applies one entry as Encode made it. An error that wraps ErrRejected leaves the machine as it was; so does
// any other, after which no further entry may be applied.
func (m *Machine) Apply(data []byte) (*fsmpb.Entry, error) {
	e, err := decode(data)
	if err != nil {
		return nil, err
	}
	if b, ok := e.Body.(*fsmpb.Entry_CoordinatorJoined); ok {
		return e, m.joinCoordinator(b.CoordinatorJoined)
	}
	switch b := e.Body.(type) {
	case *fsmpb.Entry_JobQueued:
		return e, m.enqueue(b.JobQueued)
	case *fsmpb.Entry_JobCancelled:
		return e, m.cancel(b.JobCancelled)
	case *fsmpb.Entry_JobStarted:
		return e, m.startJob(b.JobStarted)
	}
	switch {
	case m.finished:
		return e, reject("the job is finished")
	case m.cancelled:
		return e, reject("the job is cancelled")
	case m.failure != nil:
		return e, reject("the job has failed at step %d", m.failure.Step)
	}
	switch b := e.Body.(type) {
	case *fsmpb.Entry_GenerationStarted:
		err = m.startGeneration(b.GenerationStarted)
	case *fsmpb.Entry_StateOffered:
		err = m.offerState(b.StateOffered)
	case *fsmpb.Entry_StepCommitted:
		err = m.commitStep(b.StepCommitted)
	case *fsmpb.Entry_EvaluationCommitted:
		err = m.commitEvaluation(b.EvaluationCommitted)
	case *fsmpb.Entry_JobFinished:
		err = m.finish(b.JobFinished)
	case *fsmpb.Entry_JobFailed:
		err = m.failJob(b.JobFailed)
	default:
		err = fmt.Errorf("log entry of %d bytes: unknown kind of entry; was it written by a newer version?", len(data))
	}
	return e, err
}

func (m *Machine) joinCoordinator(e *fsmpb.CoordinatorJoined) error {
	_, known := m.replicas[e.Id]
	switch {
	case e.Id == "" || e.WorkerAddr == "":
		return reject("replica %q takes workers at %q, want a name and an address", e.Id, e.WorkerAddr)
	case !known && len(m.replicas) == maxCoordinators:
		return reject("replica %s is one more than %d", e.Id, maxCoordinators)
	}
	if m.replicas == nil {
		m.replicas = map[string]string{}
	}
	m.replicas[e.Id] = e.WorkerAddr
	return nil
}

func (m *Machine) startJob(e *fsmpb.JobStarted) error {
	switch {
	case e.JobId == "":
		return reject("job without an id")
	case e.TotalSteps < 1 || e.StepsPerEpoch < 1:
		return reject("job of %d steps, %d an epoch; both must be at least 1", e.TotalSteps, e.StepsPerEpoch)
	case e.Patience < 0:
		return reject("job with a patience of %d evaluations, want at least 0", e.Patience)
	}
	d, err := checkState(e.State, e.StateDigest, e.StateSize)
	if err != nil {
		return err
	}
	if err := m.next(e.JobId); err != nil {
		return err
	}
	m.job = &fsmpb.JobStarted{JobId: e.JobId, Spec: e.Spec, TotalSteps: e.TotalSteps, StepsPerEpoch: e.StepsPerEpoch, Patience: e.Patience}
	m.state, m.stateDigest, m.stateSize, m.history = e.State, d, e.StateSize, ids.Sum(e.Spec)
	return nil
}

func (m *Machine) startGeneration(e *fsmpb.GenerationStarted) error {
	switch {
	case m.job == nil:
		return reject("generation %d before any job", e.Generation)
	case ids.Generation(e.Generation) != m.generation+1:
		return reject("generation %d after generation %d", e.Generation, m.generation)
	case ids.Step(e.ResumeStep) != m.step:
		return reject("generation %d resumes at step %d, committed is %d", e.Generation, e.ResumeStep, m.step)
	case len(e.Members) == 0:
		return reject("generation %d without members", e.Generation)
	case m.numerics != "" && e.Numerics != m.numerics:
		return reject("generation %d computes with %q, the job with %q", e.Generation, e.Numerics, m.numerics)
	}
	members := make([]Member, len(e.Members))
	seen := make(map[string]bool, len(e.Members))
	for i, p := range e.Members {
		if p.Id == "" || seen[p.Id] {
			return reject("generation %d: member %d has the empty or repeated id %q", e.Generation, i, p.Id)
		}
		seen[p.Id] = true
		members[i] = Member{ID: p.Id, Addr: p.Addr}
	}
	m.generation, m.members, m.numerics, m.offer = ids.Generation(e.Generation), members, e.Numerics, nil
	return nil
}

func (m *Machine) offerState(e *fsmpb.StateOffered) error {
	d, err := ids.DigestOf(e.Digest)
	switch {
	case m.job == nil:
		return reject("state offered before any job")
	case ids.Generation(e.Generation) != m.generation:
		return reject("state of generation %d offered, current is %d", e.Generation, m.generation)
	case ids.Step(e.Step) <= m.step || ids.Step(e.Step) > m.TotalSteps():
		return reject("state after step %d offered, want one of %d to %d", e.Step, m.step+1, m.TotalSteps())
	case m.offer != nil:
		return reject("state after step %d offered, that after step %d is", e.Step, m.offer.Step)
	case err != nil:
		return reject("state after step %d offered: %v", e.Step, err)
	case e.Size < 1:
		return reject("state after step %d offered with %d bytes, want at least 1", e.Step, e.Size)
	}
	m.offer = &Offer{ids.Generation(e.Generation), ids.Step(e.Step), ids.Blob{Digest: d, Size: e.Size}}
	return nil
}

// commitStep commits a step and the earlier ones that its entry carries: all of them or none.
func (m *Machine) commitStep(e *fsmpb.StepCommitted) error {
	if m.job == nil {
		return reject("step %d before any job", e.Step)
	}
	if m.Exhausted() {
		return reject("step %d after %s", e.Step, m.patienceText())
	}
	next := m.step
	batches := make([]ids.Digest, 0, len(e.Earlier)+1)
	states := make([]ids.Digest, 0, len(e.Earlier)+1)
	all := append(e.Earlier[:len(e.Earlier):len(e.Earlier)], e)
	for i, s := range all {
		switch next++; {
		case ids.Generation(s.Generation) != m.generation:
			return reject("step %d of generation %d, current is %d", s.Step, s.Generation, m.generation)
		case ids.Step(s.Step) != next:
			return reject("step %d after step %d", s.Step, next-1)
		case next > m.TotalSteps():
			return reject("step %d of a job of %d steps", s.Step, m.TotalSteps())
		case s.Tokens < 1 || !finite(s.LossSum):
			return reject("step %d has loss sum %v over %d tokens", s.Step, s.LossSum, s.Tokens)
		case i < len(all)-1 && (len(s.State) > 0 || s.StateSize != 0 || len(s.Earlier) > 0):
			return reject("step %d carries a state or steps of its own, want that of step %d only", s.Step, e.Step)
		}
		batch, err := ids.DigestOf(s.BatchDigest)
		if err != nil {
			return reject("step %d: batch %v", s.Step, err)
		}
		state, err := ids.DigestOf(s.StateDigest)
		if err != nil {
			return reject("step %d: state %v", s.Step, err)
		}
		batches, states = append(batches, batch), append(states, state)
	}
	d, err := checkState(e.State, e.StateDigest, e.StateSize)
	if err != nil {
		return err
	}
	for i, s := range all {
		m.history = chain(m.history, ids.Step(s.Step), batches[i], states[i])
		m.keep(RecordOf(s))
		epoch := int((s.Step - 1) / m.job.StepsPerEpoch)
		for len(m.epochs) <= epoch {
			m.epochs = append(m.epochs, EpochStat{})
		}
		m.epochs[epoch].LossSum += s.LossSum
		m.epochs[epoch].Tokens += s.Tokens
		m.seconds += s.Seconds
	}
	m.step, m.state, m.stateDigest, m.stateSize, m.offer = next, e.State, d, e.StateSize, nil
	return nil
}

// keep keeps a record and drops the oldest beyond RecentSteps. Records that a caller holds stay as they are.
func (m *Machine) keep(r StepRecord) {
	if len(m.recent) == RecentSteps {
		m.recent = m.recent[1:]
	}
	m.recent = append(m.recent, r)
}

func (m *Machine) commitEvaluation(e *fsmpb.EvaluationCommitted) error {
	switch {
	case m.job == nil:
		return reject("evaluation before any job")
	case ids.Step(e.Step) != m.step:
		return reject("evaluation of step %d, committed is %d", e.Step, m.step)
	case m.Evaluated(m.step):
		return reject("step %d is already evaluated", e.Step)
	case !finite(e.Score) || !finite(e.Loss):
		return reject("evaluation of step %d has score %v and loss %v", e.Step, e.Score, e.Loss)
	}
	v := evaluationOf(e)
	m.evaluations = append(m.evaluations, v)
	m.seconds += v.Seconds
	if m.best.BeatenBy(v) {
		m.best = &Best{Step: m.step, Score: v.Score, Loss: v.Loss, State: m.state, Blob: m.Blob()}
	}
	return nil
}

func (m *Machine) finish(e *fsmpb.JobFinished) error {
	switch {
	case m.job == nil:
		return reject("finish before any job")
	case e.StoppedEarly && (!m.Exhausted() || m.step == m.TotalSteps()):
		return reject("stop early at step %d of %d, after %s", m.step, m.TotalSteps(), m.patienceText())
	case !e.StoppedEarly && m.step != m.TotalSteps():
		return reject("finish at step %d of %d", m.step, m.TotalSteps())
	}
	m.finished = true
	m.end()
	return nil
}

func (m *Machine) failJob(e *fsmpb.JobFailed) error {
	switch {
	case m.job == nil:
		return reject("failure before any job")
	case e.Error == "" || len(e.Error) > MaxFailureLength:
		return reject("failure at step %d with a reason of %d bytes, want 1 to %d", e.Step, len(e.Error), MaxFailureLength)
	case ids.Step(e.Step) < m.step || ids.Step(e.Step) > m.TotalSteps():
		return reject("failure at step %d, want %d to %d", e.Step, m.step, m.TotalSteps())
	}
	m.failure = &Failure{Step: ids.Step(e.Step), Reason: e.Error}
	m.end()
	return nil
}

// checkState checks a state, or of one that is a blob of so many bytes its name.
func checkState(state, digest []byte, size int64) (ids.Digest, error) {
	d, err := ids.DigestOf(digest)
	if err != nil {
		return d, reject("state %v", err)
	}
	if size < 0 || size > 0 && len(state) > 0 {
		return d, reject("state of %d bytes in the entry and a blob of %d, want one of them", len(state), size)
	}
	if size > 0 {
		return d, nil
	}
	if got := ids.Sum(state); got != d {
		return d, reject("state of %d bytes has digest %s, the entry says %s", len(state), got.Short(), d.Short())
	}
	return d, nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
