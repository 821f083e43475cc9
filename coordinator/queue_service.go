package coordinator

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
)

// jobName is what a job's name must be: it names a directory too.
var jobName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)

// refuseUnlessLeader refuses what only the leader can do, and with queue what only a coordinator
// that serves a queue can do.
func (f *service) refuseUnlessLeader(queue bool) error {
	switch {
	case !f.node.IsLeader():
		return f.redirect()
	case queue && !f.serve:
		return status.Error(codes.FailedPrecondition,
			"this coordinator runs the one job that it was started with; one started with --serve takes others")
	}
	return nil
}

// Submit implements coordpb.JobsServer.
func (f *service) Submit(ctx context.Context, m *coordpb.SubmitJob) (*coordpb.Job, error) {
	if err := f.refuseUnlessLeader(true); err != nil {
		return nil, err
	}
	if !jobName.MatchString(m.Name) {
		return nil, status.Errorf(codes.InvalidArgument, "job name %q, want 1 to 200 letters, digits, dots, hyphens "+
			"and underscores, the first no dot or hyphen", m.Name)
	}
	s, err := job.ParseRequest(m.Settings)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "job %s: %v", m.Name, err)
	}
	request, err := s.Request()
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "job %s: %v", m.Name, err)
	}
	if have := f.job(m.Name); have != nil {
		return f.resubmitted(have, m.Name, request)
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, status.Errorf(codes.Internal, "name the job: %v", err)
	}
	err = f.node.Propose(jobQueued(hex.EncodeToString(id[:]), m.Name, request)).Wait()
	have := f.job(m.Name)
	switch {
	case errors.Is(err, fsm.ErrRejected) && have != nil: // another call came first
		return f.resubmitted(have, m.Name, request)
	case errors.Is(err, fsm.ErrRejected):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	case have == nil:
		return nil, status.Errorf(codes.Internal, "job %s is in the log and in no queue", m.Name)
	}
	f.logger.Info("job queued", "job", m.Name, "id", have.Id)
	return have, nil
}

// resubmitted answers a job that is submitted for the second time.
func (f *service) resubmitted(have *coordpb.Job, name string, request []byte) (*coordpb.Job, error) {
	same := false
	f.node.View(func(m *fsm.Machine) {
		for _, q := range append(slices.Clone(m.Queue()), m.Request()) {
			same = same || q.Name == name && string(q.Request) == string(request)
		}
		for _, e := range m.Ended() {
			same = same || e.Name == name && string(e.Request) == string(request)
		}
	})
	if !same {
		return nil, status.Errorf(codes.AlreadyExists, "job %s is %s with other settings, want another name",
			name, have.Status)
	}
	return have, nil
}

// List implements coordpb.JobsServer.
func (f *service) List(ctx context.Context, m *coordpb.ListJobs) (*coordpb.JobList, error) {
	if err := f.refuseUnlessLeader(false); err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, n := range m.Names {
		wanted[n] = true
	}
	all := len(wanted) == 0
	return &coordpb.JobList{
		Workers: f.readyWorkers.Load(),
		Leader:  f.node.ID(),
		Jobs:    f.jobs(m.Evaluations, func(id, name string) bool { return all || wanted[name] }),
	}, nil
}

// Cancel implements coordpb.JobsServer.
func (f *service) Cancel(ctx context.Context, m *coordpb.CancelJob) (*coordpb.Job, error) {
	if err := f.refuseUnlessLeader(true); err != nil {
		return nil, err
	}
	have := f.job(m.Job)
	if have == nil {
		return nil, status.Errorf(codes.NotFound, "no job has the name or id %q", m.Job)
	}
	err := f.node.Propose(jobCancelled(have.Id, "")).Wait()
	switch {
	case errors.Is(err, fsm.ErrRejected):
		return nil, status.Errorf(codes.FailedPrecondition, "job %s is %s, want one that waits or runs",
			have.Name, f.job(have.Id).GetStatus())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	f.logger.Info("job cancelled", "job", have.Name, "id", have.Id)
	return f.job(have.Id), nil
}

// job returns the job of a name or id, without its evaluations; nil if there is none.
func (f *service) job(of string) *coordpb.Job {
	found := f.jobs(false, func(id, name string) bool { return id == of || name == of })
	if len(found) == 0 {
		return nil
	}
	return found[len(found)-1]
}

// jobs lists the wanted jobs: those that are over, the one that runs, those that wait.
func (f *service) jobs(evaluations bool, wanted func(id, name string) bool) (list []*coordpb.Job) {
	f.node.View(func(m *fsm.Machine) {
		for _, e := range m.Ended() {
			if !wanted(e.ID, e.Name) {
				continue
			}
			j := &coordpb.Job{
				Id:         e.ID,
				Name:       e.Name,
				Status:     string(e.Status),
				Reason:     e.Reason,
				Step:       int64(e.Step),
				TotalSteps: int64(e.TotalSteps),
				Spec:       e.Spec,
				Seconds:    e.Seconds,
			}
			if j.Reason == "" {
				j.Reason = e.StoppedEarly()
			}
			if len(e.Spec) > 0 {
				j.StateDigest = e.StateDigest.String()
			}
			addEvaluations(j, e.Evaluations, evaluations)
			list = append(list, j)
		}
		id, name := m.JobID(), m.Request().Name
		// A job that came by no queue stands nowhere else once it is over.
		own := m.Started() && name == ""
		if own {
			name = id
		}
		if (own || m.Status() == fsm.Running) && wanted(id, name) {
			j := &coordpb.Job{
				Id:          id,
				Name:        name,
				Status:      string(m.Status()),
				Reason:      m.StoppedEarly(),
				Step:        int64(m.Step()),
				TotalSteps:  int64(m.TotalSteps()),
				Spec:        m.Spec(),
				StateDigest: m.StateDigest().String(),
				Seconds:     m.Seconds(),
			}
			if e := m.Failure(); e != nil {
				j.Reason = fmt.Sprintf("step %d: %s", e.Step, e.Reason)
			}
			addEvaluations(j, m.Evaluations(), evaluations)
			list = append(list, j)
		}
		for _, q := range m.Queue() {
			if wanted(q.ID, q.Name) {
				list = append(list, &coordpb.Job{Id: q.ID, Name: q.Name, Status: string(fsm.Waiting)})
			}
		}
	})
	return list
}

// addEvaluations adds a job's evaluations, or the best of them only.
func addEvaluations(j *coordpb.Job, list []fsm.Evaluation, all bool) {
	var best *fsm.Best
	for _, e := range list {
		p := &coordpb.JobEvaluation{
			Step:    int64(e.Step),
			Split:   e.Split,
			Loss:    e.Loss,
			Score:   e.Score,
			Metrics: e.Metrics,
			Probe:   e.Probe,
		}
		if all {
			j.Evaluations = append(j.Evaluations, p)
		}
		if best.BeatenBy(e) {
			best, j.Best = &fsm.Best{Step: e.Step, Score: e.Score, Loss: e.Loss}, p
		}
	}
}
