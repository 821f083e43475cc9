package coordinator

import (
	"fmt"
	"strings"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
)

// Constructors for the messages to workers and for the entries of the log.

func heartbeatMessage() *coordpb.CoordinatorMessage {
	m := &coordpb.Heartbeat{}
	return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Heartbeat{Heartbeat: m}}
}

// idleMessage tells a worker that there is no job now.
func idleMessage(cfg *Config) *coordpb.CoordinatorMessage {
	m := &coordpb.Idle{
		HeartbeatIntervalMs: cfg.heartbeatInterval().Milliseconds(),
		HeartbeatTimeoutMs:  cfg.HeartbeatTimeout.Milliseconds(),
	}
	return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Idle{Idle: m}}
}

// welcomeMessage tells a worker about the job.
func welcomeMessage(cfg *Config, jobID string, j *job.Job) *coordpb.CoordinatorMessage {
	m := &coordpb.Welcome{
		JobId:               jobID,
		Version:             cfg.Version,
		ModelName:           j.ModelPath,
		ModelDigest:         j.ModelDigest[:],
		Train:               j.Spec.TrainSpec(),
		HeartbeatIntervalMs: cfg.heartbeatInterval().Milliseconds(),
		HeartbeatTimeoutMs:  cfg.HeartbeatTimeout.Milliseconds(),
		StepTimeoutMs:       cfg.StepTimeout.Milliseconds(),
	}
	return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Welcome{Welcome: m}}
}

// startGenerationMessages tell each member of a generation about it, in the order of their ranks.
// They hold the trainer state after step resume, or the digest and size of the blob that it is.
func startGenerationMessages(number ids.Generation, ranks []*session, resume ids.Step,
	state []byte, blob ids.Blob) []*coordpb.CoordinatorMessage {
	members := make([]*coordpb.Member, len(ranks))
	for r, s := range ranks {
		members[r] = &coordpb.Member{Id: s.id, RingAddr: s.addr}
	}
	list := make([]*coordpb.CoordinatorMessage, len(ranks))
	for r := range ranks {
		m := &coordpb.StartGeneration{
			Generation: uint64(number),
			Rank:       int32(r),
			Members:    members,
			ResumeStep: int64(resume),
			State:      state,
		}
		if blob.Size > 0 {
			m.StateSize, m.StateDigest = blob.Size, blob.Digest[:]
		}
		list[r] = &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_StartGeneration{StartGeneration: m}}
	}
	return list
}

func planMessage(m *coordpb.Plan) *coordpb.CoordinatorMessage {
	return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Plan{Plan: m}}
}

func evaluateMessage(m *coordpb.Evaluate) *coordpb.CoordinatorMessage {
	return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Evaluate{Evaluate: m}}
}

// standDownMessage takes a straggler out of its generation until it answers.
func standDownMessage(number ids.Generation) *coordpb.CoordinatorMessage {
	m := &coordpb.StandDown{Generation: uint64(number)}
	return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_StandDown{StandDown: m}}
}

// finishMessage tells a worker that the job is finished after a number of steps.
func finishMessage(steps ids.Step) *coordpb.CoordinatorMessage {
	m := &coordpb.Finish{Steps: int64(steps)}
	return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Finish{Finish: m}}
}

// jobStarted is the log entry that starts the job. It holds an initial state of up to inline bytes,
// and the name of a larger one.
func jobStarted(j *job.Job, inline int) (*fsmpb.Entry, error) {
	e := &fsmpb.JobStarted{
		JobId:         j.ID,
		Spec:          j.Spec.Canonical(),
		TotalSteps:    j.Spec.Steps,
		StepsPerEpoch: j.Spec.StepsPerEpoch,
		Patience:      int64(j.Spec.Patience),
	}
	if j.Spec.NeedsBlobs(inline) {
		e.StateSize, e.StateDigest = j.InitialBlob.Size, j.InitialBlob.Digest[:]
	} else {
		state, err := j.Initial.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("initial state: %w", err)
		}
		d := ids.Sum(state)
		e.State, e.StateDigest = state, d[:]
	}
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobStarted{JobStarted: e}}, nil
}

func jobQueued(id, name string, request []byte) *fsmpb.Entry {
	e := &fsmpb.JobQueued{JobId: id, Name: name, Request: request}
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobQueued{JobQueued: e}}
}

// jobCancelled ends a queued job: by a user's wish, or because it cannot start for a reason.
func jobCancelled(id, reason string) *fsmpb.Entry {
	e := &fsmpb.JobCancelled{JobId: id, Reason: clipReason(reason)}
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobCancelled{JobCancelled: e}}
}

func jobFinished(stoppedEarly bool) *fsmpb.Entry {
	e := &fsmpb.JobFinished{StoppedEarly: stoppedEarly}
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobFinished{JobFinished: e}}
}

func jobFailed(step ids.Step, reason string) *fsmpb.Entry {
	e := &fsmpb.JobFailed{Step: int64(step), Error: clipReason(reason)}
	return &fsmpb.Entry{Body: &fsmpb.Entry_JobFailed{JobFailed: e}}
}

// clipReason shortens a reason to what the log takes.
func clipReason(reason string) string {
	if len(reason) > fsm.MaxFailureLength {
		return strings.ToValidUTF8(reason[:fsm.MaxFailureLength], "")
	}
	return reason
}

func coordinatorJoined(id, workerAddr string) *fsmpb.Entry {
	e := &fsmpb.CoordinatorJoined{Id: id, WorkerAddr: workerAddr}
	return &fsmpb.Entry{Body: &fsmpb.Entry_CoordinatorJoined{CoordinatorJoined: e}}
}

func generationStarted(number ids.Generation, resume ids.Step, members []*session) *fsmpb.Entry {
	e := &fsmpb.GenerationStarted{
		Generation: uint64(number),
		ResumeStep: int64(resume),
		Numerics:   members[0].numerics,
	}
	for _, s := range members {
		e.Members = append(e.Members, &fsmpb.Member{Id: s.id, Addr: s.addr})
	}
	return &fsmpb.Entry{Body: &fsmpb.Entry_GenerationStarted{GenerationStarted: e}}
}

// stateOffered asks the replicas to take the state of a step, which is a blob.
func stateOffered(step *fsmpb.StepCommitted) *fsmpb.Entry {
	e := &fsmpb.StateOffered{
		Generation: step.Generation,
		Step:       step.Step,
		Digest:     step.StateDigest,
		Size:       step.StateSize,
	}
	return &fsmpb.Entry{Body: &fsmpb.Entry_StateOffered{StateOffered: e}}
}

func stepCommitted(e *fsmpb.StepCommitted) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: e}}
}

func evaluationCommitted(e fsm.Evaluation) *fsmpb.Entry {
	return &fsmpb.Entry{Body: &fsmpb.Entry_EvaluationCommitted{EvaluationCommitted: e.Proto()}}
}
