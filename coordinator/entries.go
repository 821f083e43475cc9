package coordinator

import (
	"fmt"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
)

// jobStarted is the log entry that starts the job. It holds an initial state of up to inline bytes, and the name of a larger one.
func jobStarted(j *job.Job, inline int) (*fsmpb.Entry, error) {
	e := &fsmpb.JobStarted{JobId: j.ID, Spec: j.Spec.Canonical(), TotalSteps: j.Spec.Steps, StepsPerEpoch: j.Spec.StepsPerEpoch, Patience: int64(j.Spec.Patience)}
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
