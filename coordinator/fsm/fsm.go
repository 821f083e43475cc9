// Package fsm is the job as a replicated state machine.
//
// It is pure: entries in, state out. Time, randomness and I/O come in as log entries, so that every
// replica that applies the same entries holds the same bytes. An entry that does not follow from
// the state (a step of an ended generation, a step out of order, a state that does not match its
// digest) is rejected and changes nothing; the rejection is itself deterministic.
//
//	JobStarted            the resolved settings and the initial trainer state; it comes once and
//	                      first, or for the next job of the queue after the last one has ended
//	GenerationStarted     a new ring of workers, resuming at the committed step
//	StateOffered          a trainer state too large for an entry; the replicas are to fetch it
//	                      as a file before its step is committed
//	StepCommitted         the next step, with the trainer state it led to, or the name of its file
//	EvaluationCommitted   an evaluation of the committed state
//	JobFinished           after the last step, or after the evaluation that exhausts the patience
//	JobFailed             the data cannot be trained on; no further step follows
//	JobQueued             a job that waits for its turn
//	JobCancelled          ends a job that waits or runs
//	CoordinatorJoined     the address at which a replica accepts workers
//
// Any error other than a rejection (an entry whose checksum does not match, a kind or field that
// this build does not know) means that this replica cannot follow the log any further. Its owner
// must stop it: a replica that skips an entry holds another state than the other replicas.
//
// A Machine is not safe for concurrent use; its owner serializes.
package fsm

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// snapshotVersion changes when an older build would misread a snapshot.
const snapshotVersion = 1

// recentSteps is the number of step records that a machine keeps. A process that is killed right
// after a commit writes the step's metrics from them when it starts again.
//
// A replica that falls further behind than this misses the lines between in its metrics, and
// nothing else.
const recentSteps = 4096

// MaxFailureLength bounds the reason of a failure, in bytes.
const MaxFailureLength = 4096

// maxCoordinators bounds the number of replicas whose addresses the machine remembers.
const maxCoordinators = 64

// ErrRejected is what every rejection wraps.
var ErrRejected = errors.New("entry rejected")

func reject(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRejected, fmt.Sprintf(format, args...))
}

// Machine is the replicated state. Only Apply and Restore write its fields; the comment of a field
// names the entries that do. A job that starts leaves nothing of the job before it but what
// dequeueJob carries over.
type Machine struct {
	// Written by JobStarted.
	job     *fsmpb.JobStarted // the settings, without the state; nil before any job
	request Queued            // the job as it was queued; the zero value without a queue

	// Written by GenerationStarted.
	generation      ids.Generation
	members         []Member       // by rank
	numerics        string         // the same for all generations of a job
	firstGeneration ids.Generation // the last generation before the job; JobStarted writes it

	// Written by JobStarted and StepCommitted.
	step        ids.Step
	state       []byte // after step; nil if the state is a blob
	stateDigest ids.Digest
	stateSize   int64        // of a blob, in bytes; 0 if the state is in the entry
	history     ids.Digest   // chain over (step, batch digest, state digest)
	epochs      []EpochStat  // training loss by epoch
	recent      []StepRecord // of the last recentSteps steps, oldest first

	// Written by StateOffered; cleared when the step is committed or the generation or job ends.
	offer *Offer

	// Written by EvaluationCommitted.
	evaluations []Evaluation
	best        *Best   // nil before the first evaluation
	seconds     float64 // of the committed evaluations and, by StepCommitted, steps

	// How the job ended; at most one of them is set.
	finished  bool     // by JobFinished
	failure   *Failure // by JobFailed
	cancelled bool     // by JobCancelled

	// Written by CoordinatorJoined: the address for workers, by replica id.
	replicas map[string]string

	// Written by JobQueued, JobStarted and the entries that end a job.
	queue []Queued
	ended []*Ended // oldest first
}

// New returns the machine before any entry.
func New() *Machine { return &Machine{} }

// Started reports whether a job has been started.
func (m *Machine) Started() bool { return m.job != nil }

// JobID names the job; "" before any job.
func (m *Machine) JobID() string { return m.job.GetJobId() }

// Spec is the job's resolved settings as canonical JSON.
func (m *Machine) Spec() []byte { return m.job.GetSpec() }

// TotalSteps is the number of steps of the job.
func (m *Machine) TotalSteps() ids.Step { return ids.Step(m.job.GetTotalSteps()) }

// Step is the number of committed steps.
func (m *Machine) Step() ids.Step { return m.step }

// State is the trainer state after Step steps, nil if Blob names it. The caller must not change it.
func (m *Machine) State() []byte { return m.state }

// Blob names the trainer state after Step steps if it is too large for the log; otherwise its size
// is 0.
func (m *Machine) Blob() ids.Blob {
	if m.stateSize == 0 {
		return ids.Blob{}
	}
	return ids.Blob{Digest: m.stateDigest, Size: m.stateSize}
}

// Offered is the offer in force; nil if there is none.
func (m *Machine) Offered() *Offer { return m.offer }

// Blobs lists the blobs that a replica must keep: the state, the best state, the offered state, and
// those of the finished jobs whose archives are kept.
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

// StateDigest is the SHA-256 of the trainer state after Step steps.
func (m *Machine) StateDigest() ids.Digest { return m.stateDigest }

// History chains every committed step's batch and state digests: two runs with the same history saw
// the same batches in the same order and held the same state after each.
func (m *Machine) History() ids.Digest { return m.history }

// Generation is the current ring's number and its members by rank.
func (m *Machine) Generation() (ids.Generation, []Member) { return m.generation, m.members }

// FirstGeneration is the number of the last generation before the job: the job's own are greater.
func (m *Machine) FirstGeneration() ids.Generation { return m.firstGeneration }

// Numerics names what decides the bits of the workers' gradients; "" before the first generation.
func (m *Machine) Numerics() string { return m.numerics }

// Best is the best evaluated state, nil before the first evaluation.
func (m *Machine) Best() *Best { return m.best }

// Evaluations are all committed evaluations in order.
func (m *Machine) Evaluations() []Evaluation { return m.evaluations }

// Epochs are the training losses by epoch; the last may be partial.
func (m *Machine) Epochs() []EpochStat { return m.epochs }

// Recent are the records of the last 4096 committed steps, oldest first.
func (m *Machine) Recent() []StepRecord { return m.recent }

// WorkerAddr is the address at which the replica accepts workers; "" if the log does not hold it.
func (m *Machine) WorkerAddr(replica string) string { return m.replicas[replica] }

// WorkerAddrs are the addresses at which replicas accept workers, sorted.
func (m *Machine) WorkerAddrs() []string { return slices.Sorted(maps.Values(m.replicas)) }

// Finished reports whether the job has ended after its last step or by its patience.
func (m *Machine) Finished() bool { return m.finished }

// Failure is why the job has failed; nil if it has not.
func (m *Machine) Failure() *Failure { return m.failure }

// Evaluated reports whether the state after step has been evaluated.
func (m *Machine) Evaluated(step ids.Step) bool {
	n := len(m.evaluations)
	return n > 0 && m.evaluations[n-1].Step == step
}
