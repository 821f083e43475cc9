package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// chainHistory extends the history digest by one committed step.
func chainHistory(history ids.Digest, step ids.Step, batch, state ids.Digest) ids.Digest {
	h := sha256.New()
	h.Write(history[:])
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(step)))
	h.Write(batch[:])
	h.Write(state[:])
	return ids.Digest(h.Sum(nil))
}

// Snapshot encodes the whole machine. The same state gives the same bytes.
func (m *Machine) Snapshot() ([]byte, error) {
	s := &fsmpb.Snapshot{
		Version:         snapshotVersion,
		Job:             m.job,
		Request:         m.request.proto(),
		Generation:      uint64(m.generation),
		FirstGeneration: uint64(m.firstGeneration),
		Numerics:        m.numerics,
		Step:            int64(m.step),
		State:           m.state,
		StateDigest:     m.stateDigest[:],
		StateSize:       m.stateSize,
		HistoryDigest:   m.history[:],
		Seconds:         m.seconds,
		Finished:        m.finished,
		Cancelled:       m.cancelled,
	}
	for _, p := range m.members {
		s.Members = append(s.Members, &fsmpb.Member{Id: p.ID, Addr: p.Addr})
	}
	if m.best != nil {
		s.HasBest, s.BestStep, s.BestState = true, int64(m.best.Step), m.best.State
		s.BestScore, s.BestLoss = m.best.Score, m.best.Loss
		if b := m.best.Blob; b.Size > 0 {
			s.BestDigest, s.BestSize = b.Digest[:], b.Size
		}
	}
	if o := m.offer; o != nil {
		s.Offered = &fsmpb.StateOffered{
			Generation: uint64(o.Generation),
			Step:       int64(o.Step),
			Digest:     o.Digest[:],
			Size:       o.Size,
		}
	}
	for _, e := range m.evaluations {
		s.Evaluations = append(s.Evaluations, e.Proto())
	}
	for _, e := range m.epochs {
		s.Epochs = append(s.Epochs, &fsmpb.EpochStat{LossSum: e.LossSum, Tokens: e.Tokens})
	}
	for _, r := range m.recent {
		s.Recent = append(s.Recent, r.proto())
	}
	for _, id := range slices.Sorted(maps.Keys(m.replicas)) {
		s.Coordinators = append(s.Coordinators, &fsmpb.CoordinatorJoined{Id: id, WorkerAddr: m.replicas[id]})
	}
	if m.failure != nil {
		s.Failed = &fsmpb.JobFailed{Step: int64(m.failure.Step), Error: m.failure.Reason}
	}
	for _, q := range m.queue {
		s.Queue = append(s.Queue, q.proto())
	}
	for _, e := range m.ended {
		p, err := e.proto()
		if err != nil {
			return nil, fmt.Errorf("job %s: %w", e.ID, err)
		}
		s.Ended = append(s.Ended, p)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
	if err != nil {
		return nil, err
	}
	return seal(data), nil
}

// Restore replaces the machine by a snapshot. If the snapshot is damaged, of another version or
// inconsistent, Restore returns an error and leaves the machine as it was.
func (m *Machine) Restore(data []byte) error {
	s := new(fsmpb.Snapshot)
	if err := unseal(data, s); err != nil {
		return fmt.Errorf("snapshot of %d bytes: %w", len(data), err)
	}
	if s.Version != snapshotVersion {
		return fmt.Errorf("snapshot has version %d, this build reads %d", s.Version, snapshotVersion)
	}
	n := &Machine{
		job:             s.Job,
		generation:      ids.Generation(s.Generation),
		firstGeneration: ids.Generation(s.FirstGeneration),
		numerics:        s.Numerics,
		step:            ids.Step(s.Step),
		state:           s.State,
		seconds:         s.Seconds,
		finished:        s.Finished,
		cancelled:       s.Cancelled,
	}
	if n.job != nil {
		d, err := checkState(s.State, s.StateDigest, s.StateSize)
		if err != nil {
			return fmt.Errorf("snapshot at step %d: %w", s.Step, err)
		}
		n.stateDigest, n.stateSize = d, s.StateSize
		if n.history, err = ids.DigestOf(s.HistoryDigest); err != nil {
			return fmt.Errorf("snapshot at step %d: history %w", s.Step, err)
		}
		if s.Step < 0 || n.step > n.TotalSteps() {
			return fmt.Errorf("snapshot at step %d of a job of %d steps", s.Step, n.TotalSteps())
		}
	}
	for _, p := range s.Members {
		n.members = append(n.members, Member{ID: p.Id, Addr: p.Addr})
	}
	if s.HasBest {
		n.best = &Best{Step: ids.Step(s.BestStep), Score: s.BestScore, Loss: s.BestLoss, State: s.BestState}
		if s.BestSize != 0 {
			d, err := ids.DigestOf(s.BestDigest)
			if err == nil && s.BestSize < 0 {
				err = errors.New("want at least 1")
			}
			if err != nil {
				return fmt.Errorf("snapshot at step %d: best state, a blob of %d bytes: %w", s.Step, s.BestSize, err)
			}
			n.best.Blob = ids.Blob{Digest: d, Size: s.BestSize}
		}
	}
	if s.Offered != nil {
		if err := n.offerState(s.Offered); err != nil {
			return fmt.Errorf("snapshot at step %d: %w", s.Step, err)
		}
	}
	for _, e := range s.Evaluations {
		n.evaluations = append(n.evaluations, evaluationOf(e))
	}
	for _, e := range s.Epochs {
		n.epochs = append(n.epochs, EpochStat{LossSum: e.LossSum, Tokens: e.Tokens})
	}
	for _, r := range s.Recent[max(0, len(s.Recent)-recentSteps):] {
		n.addRecord(recordOf(r))
	}
	for _, c := range s.Coordinators {
		if err := n.joinCoordinator(c); err != nil {
			return fmt.Errorf("snapshot at step %d: %w", s.Step, err)
		}
	}
	if s.Failed != nil {
		if err := n.failJob(s.Failed); err != nil {
			return fmt.Errorf("snapshot at step %d: %w", s.Step, err)
		}
	}
	// Only after failJob, which archives a job that has a request: the ended jobs below hold it
	// already.
	n.request = queuedOf(s.Request)
	for _, q := range s.Queue {
		n.queue = append(n.queue, queuedOf(q))
	}
	for _, p := range s.Ended {
		e, err := endedOf(p)
		if err != nil {
			return fmt.Errorf("snapshot at step %d: %w", s.Step, err)
		}
		n.ended = append(n.ended, e)
	}
	*m = *n
	return nil
}

// Proto is the evaluation as the body of a log entry.
func (e Evaluation) Proto() *fsmpb.EvaluationCommitted {
	return &fsmpb.EvaluationCommitted{
		Step:     int64(e.Step),
		Split:    e.Split,
		Loss:     e.Loss,
		Metrics:  e.Metrics,
		Score:    e.Score,
		Examples: e.Examples,
		Seconds:  e.Seconds,
		Probe:    e.Probe,
	}
}

func evaluationOf(e *fsmpb.EvaluationCommitted) Evaluation {
	return Evaluation{
		Step:     ids.Step(e.Step),
		Split:    e.Split,
		Loss:     e.Loss,
		Metrics:  e.Metrics,
		Score:    e.Score,
		Examples: e.Examples,
		Seconds:  e.Seconds,
		Probe:    e.Probe,
	}
}

func (r StepRecord) proto() *fsmpb.StepCommitted {
	return &fsmpb.StepCommitted{
		Generation:   uint64(r.Generation),
		Step:         int64(r.Step),
		BatchDigest:  r.BatchDigest[:],
		StateDigest:  r.StateDigest[:],
		LossSum:      r.LossSum,
		Tokens:       r.Tokens,
		LearningRate: r.LearningRate,
		GradNorm:     r.GradNorm,
		Seconds:      r.Seconds,
		Workers:      int32(r.Workers),
	}
}

// recordOf is a committed step's record: its entry without the state.
func recordOf(e *fsmpb.StepCommitted) StepRecord {
	r := StepRecord{
		Generation:   ids.Generation(e.Generation),
		Step:         ids.Step(e.Step),
		LossSum:      e.LossSum,
		Tokens:       e.Tokens,
		LearningRate: e.LearningRate,
		GradNorm:     e.GradNorm,
		Seconds:      e.Seconds,
		Workers:      int(e.Workers),
	}
	copy(r.BatchDigest[:], e.BatchDigest)
	copy(r.StateDigest[:], e.StateDigest)
	return r
}
