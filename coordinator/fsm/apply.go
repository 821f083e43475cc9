package fsm

import (
	"fmt"
	"math"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// Apply applies one entry as Encode made it and returns it decoded. No error changes the machine.
// After one that wraps ErrRejected the caller goes on with the next entry; after any other it must
// not apply further entries.
func (m *Machine) Apply(data []byte) (*fsmpb.Entry, error) {
	e, err := decode(data)
	if err != nil {
		return nil, err
	}
	// These entries are valid whether or not a job runs.
	switch b := e.Body.(type) {
	case *fsmpb.Entry_CoordinatorJoined:
		return e, m.joinCoordinator(b.CoordinatorJoined)
	case *fsmpb.Entry_JobQueued:
		return e, m.enqueueJob(b.JobQueued)
	case *fsmpb.Entry_JobCancelled:
		return e, m.cancelJob(b.JobCancelled)
	case *fsmpb.Entry_JobStarted:
		return e, m.startJob(b.JobStarted)
	}
	// All others belong to a job that has not ended.
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
		err = m.finishJob(b.JobFinished)
	case *fsmpb.Entry_JobFailed:
		err = m.failJob(b.JobFailed)
	default:
		err = fmt.Errorf("log entry of %d bytes: unknown kind of entry; was it written by a newer version?", len(data))
	}
	return e, err
}

// joinCoordinator adds a replica or replaces its address.
func (m *Machine) joinCoordinator(e *fsmpb.CoordinatorJoined) error {
	_, known := m.replicas[e.Id]
	switch {
	case e.Id == "" || e.WorkerAddr == "":
		return reject("replica %q accepts workers at %q, want a name and an address", e.Id, e.WorkerAddr)
	case !known && len(m.replicas) == maxCoordinators:
		return reject("replica %s is one more than the %d that are remembered", e.Id, maxCoordinators)
	}
	if m.replicas == nil {
		m.replicas = map[string]string{}
	}
	m.replicas[e.Id] = e.WorkerAddr
	return nil
}

// startJob starts the only job, or the first one of the queue.
func (m *Machine) startJob(e *fsmpb.JobStarted) error {
	switch {
	case e.JobId == "":
		return reject("job without an id")
	case e.TotalSteps < 1 || e.StepsPerEpoch < 1:
		return reject("job of %d steps, %d an epoch, want at least 1 of each", e.TotalSteps, e.StepsPerEpoch)
	case e.Patience < 0:
		return reject("job with a patience of %d evaluations, want at least 0", e.Patience)
	}
	d, err := checkState(e.State, e.StateDigest, e.StateSize)
	if err != nil {
		return err
	}
	if err := m.dequeueJob(e.JobId); err != nil {
		return err
	}
	m.job = &fsmpb.JobStarted{
		JobId:         e.JobId,
		Spec:          e.Spec,
		TotalSteps:    e.TotalSteps,
		StepsPerEpoch: e.StepsPerEpoch,
		Patience:      e.Patience,
	}
	m.state, m.stateDigest, m.stateSize, m.history = e.State, d, e.StateSize, ids.Sum(e.Spec)
	return nil
}

// startGeneration replaces the ring. It ends an offer: the new generation computes the step again.
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

// offerState records an offer of the current generation; there is at most one at a time.
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
		return reject("state after step %d offered, that after step %d is in force", e.Step, m.offer.Step)
	case err != nil:
		return reject("state after step %d offered: %v", e.Step, err)
	case e.Size < 1:
		return reject("state after step %d offered with %d bytes, want at least 1", e.Step, e.Size)
	}
	m.offer = &Offer{ids.Generation(e.Generation), ids.Step(e.Step), ids.Blob{Digest: d, Size: e.Size}}
	return nil
}

// commitStep commits a step and the earlier ones that its entry carries: all of them or none. The
// entry holds the state after the last step only.
func (m *Machine) commitStep(e *fsmpb.StepCommitted) error {
	if m.job == nil {
		return reject("step %d before any job", e.Step)
	}
	if m.Exhausted() {
		return reject("step %d after %s", e.Step, m.patienceText())
	}
	// Check all steps before the first one changes the machine.
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
			return reject("step %d carries a state or earlier steps, want them of step %d only", s.Step, e.Step)
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

	// Nothing fails from here on.
	for i, s := range all {
		m.history = chainHistory(m.history, ids.Step(s.Step), batches[i], states[i])
		m.addRecord(recordOf(s))
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

// addRecord adds a record and drops the oldest one beyond recentSteps. It does not change records
// that a caller of Recent holds.
func (m *Machine) addRecord(r StepRecord) {
	if len(m.recent) == recentSteps {
		m.recent = m.recent[1:]
	}
	m.recent = append(m.recent, r)
}

// commitEvaluation records the evaluation of the committed state, which may become the best one.
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

// finishJob ends the job after its last step, or earlier once its patience is exhausted.
func (m *Machine) finishJob(e *fsmpb.JobFinished) error {
	switch {
	case m.job == nil:
		return reject("finish before any job")
	case e.StoppedEarly && (!m.Exhausted() || m.step == m.TotalSteps()):
		return reject("stop early at step %d of %d, after %s", m.step, m.TotalSteps(), m.patienceText())
	case !e.StoppedEarly && m.step != m.TotalSteps():
		return reject("finish at step %d of %d", m.step, m.TotalSteps())
	}
	m.finished = true
	m.archiveJob()
	return nil
}

// failJob ends the job without a result.
func (m *Machine) failJob(e *fsmpb.JobFailed) error {
	switch {
	case m.job == nil:
		return reject("failure before any job")
	case e.Error == "" || len(e.Error) > MaxFailureLength:
		return reject("failure at step %d with a reason of %d bytes, want 1 to %d",
			e.Step, len(e.Error), MaxFailureLength)
	case ids.Step(e.Step) < m.step || ids.Step(e.Step) > m.TotalSteps():
		return reject("failure at step %d, want %d to %d", e.Step, m.step, m.TotalSteps())
	}
	m.failure = &Failure{Step: ids.Step(e.Step), Reason: e.Error}
	m.archiveJob()
	return nil
}

// checkState checks a trainer state against its digest. If size is not 0, the state is a blob of
// that many bytes, which the entry names and does not hold.
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
		return d, reject("state of %d bytes has digest %s, want the entry's %s", len(state), got.Short(), d.Short())
	}
	return d, nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
