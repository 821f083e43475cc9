package fsm

import (
	"fmt"
	"slices"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

const (
	// MaxQueued bounds the jobs that wait.
	MaxQueued = 4096
	// MaxNameLength bounds a job's name, in bytes.
	MaxNameLength = 256
	// maxRequest bounds a job's settings, in bytes.
	maxRequest = 64 << 10
	// keptArchives is how many of the jobs that ended last are kept whole, for replicas that still have to write their outputs.
	keptArchives = 4
	// keptEnded is how many ended jobs are remembered at all.
	keptEnded = 4096
)

// Queued is a job that waits, or what a job that ran was when it waited.
type Queued struct {
	ID      string
	Name    string
	Request []byte // its settings, as JSON
}

// Status is how a job stands.
type Status string

// The ways in which a job stands.
const (
	Waiting   Status = "queued"
	Running   Status = "running"
	Finished  Status = "finished"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
)

// Ended is what remains of a job that is over.
type Ended struct {
	Queued
	Status      Status
	Reason      string // of a failure
	Step        ids.Step
	TotalSteps  ids.Step
	Spec        []byte // resolved settings; empty of a job that never ran
	StateDigest ids.Digest
	Seconds     float64
	Evaluations []Evaluation

	archive *Machine
}

// Archive is the machine as it was when the job ended, for reading; nil of a job that never ran, and of all but the last few.
func (e *Ended) Archive() *Machine { return e.archive }

// Request is the job as it was queued; the zero value if it did not come by the queue.
func (m *Machine) Request() Queued { return m.request }

// Queue lists the jobs that wait, the next first.
func (m *Machine) Queue() []Queued { return m.queue }

// Ended lists the jobs that are over and came by the queue, oldest first.
func (m *Machine) Ended() []*Ended { return m.ended }

// Seconds is the time that the job's committed steps and evaluations took, as the leaders saw it.
func (m *Machine) Seconds() float64 { return m.seconds }

// Over says whether the job has ended, in any way. The next one may start then.
func (m *Machine) Over() bool { return m.finished || m.cancelled || m.failure != nil }

// Status is how the job stands; "" before any.
func (m *Machine) Status() Status {
	switch {
	case m.job == nil:
		return ""
	case m.finished:
		return Finished
	case m.cancelled:
		return Cancelled
	case m.failure != nil:
		return Failed
	}
	return Running
}

// named says whether any job that the log remembers has the id or the name.
func (m *Machine) named(id, name string) bool {
	is := func(q Queued) bool { return q.ID == id || q.Name == name }
	return is(m.request) || slices.ContainsFunc(m.queue, is) || slices.ContainsFunc(m.ended, func(e *Ended) bool { return is(e.Queued) })
}

func (m *Machine) enqueue(e *fsmpb.JobQueued) error {
	switch {
	case e.JobId == "" || len(e.JobId) > MaxNameLength || e.Name == "" || len(e.Name) > MaxNameLength:
		return reject("job %q of id %q, want names of 1 to %d bytes", e.Name, e.JobId, MaxNameLength)
	case len(e.Request) == 0 || len(e.Request) > maxRequest:
		return reject("job %q with settings of %d bytes, want 1 to %d", e.Name, len(e.Request), maxRequest)
	case m.job != nil && m.request.ID == "":
		return reject("job %q: this log holds one job of its own and takes no others", e.Name)
	case m.named(e.JobId, e.Name):
		return reject("job %q of id %s: there is one of that name or id, want another", e.Name, e.JobId)
	case len(m.queue) == MaxQueued:
		return reject("job %q: %d jobs wait, which is the most", e.Name, MaxQueued)
	}
	m.queue = append(m.queue[:len(m.queue):len(m.queue)], Queued{ID: e.JobId, Name: e.Name, Request: e.Request})
	return nil
}

func (m *Machine) cancel(e *fsmpb.JobCancelled) error {
	if len(e.Reason) > MaxFailureLength {
		return reject("cancel job %s with a reason of %d bytes, want at most %d", e.JobId, len(e.Reason), MaxFailureLength)
	}
	if i := slices.IndexFunc(m.queue, func(q Queued) bool { return q.ID == e.JobId }); i >= 0 {
		q := m.queue[i]
		m.queue = slices.Delete(slices.Clone(m.queue), i, i+1)
		ended := &Ended{Queued: q, Status: Cancelled, Reason: e.Reason}
		if e.Reason != "" {
			ended.Status = Failed
		}
		m.remember(ended)
		return nil
	}
	switch {
	case m.job == nil || m.request.ID == "" || m.request.ID != e.JobId || e.Reason != "":
		return reject("cancel job %s: no job of this id waits or runs", e.JobId)
	case m.Over():
		return reject("cancel job %s: it is %s", e.JobId, m.Status())
	}
	m.cancelled = true
	m.end()
	return nil
}

// end puts the job, which is over, among those that are.
func (m *Machine) end() {
	m.offer = nil
	if m.request.ID == "" {
		return
	}
	e := &Ended{Queued: m.request, Status: m.Status(), Step: m.step, TotalSteps: m.TotalSteps(), Spec: m.Spec(), StateDigest: m.stateDigest,
		Seconds: m.seconds, Evaluations: m.evaluations}
	if m.failure != nil {
		e.Reason = m.failure.Reason
	}
	archive := *m
	archive.queue, archive.ended, archive.replicas = nil, nil, nil
	e.archive = &archive
	m.remember(e)
}

func (m *Machine) remember(e *Ended) {
	m.ended = append(m.ended[max(0, len(m.ended)+1-keptEnded):len(m.ended):len(m.ended)], e)
	kept := 0
	for i := len(m.ended) - 1; i >= 0; i-- {
		if m.ended[i].archive == nil {
			continue
		}
		if kept++; kept > keptArchives {
			bare := *m.ended[i] // a caller may hold the list
			bare.archive = nil
			m.ended = slices.Clone(m.ended)
			m.ended[i] = &bare
			return
		}
	}
}

// next makes the machine ready for the job that is first in the queue; the generations' numbers go on.
func (m *Machine) next(jobID string) error {
	switch {
	case m.job != nil && !m.Over():
		return reject("job %s is already started", m.job.JobId)
	case len(m.queue) == 0 && m.job == nil:
		return nil // the only one, which the replicas were started with
	case len(m.queue) == 0:
		return reject("job %s after job %s, which is %s; none waits", jobID, m.job.JobId, m.Status())
	case m.queue[0].ID != jobID:
		return reject("job %s starts, job %s is next", jobID, m.queue[0].ID)
	}
	*m = Machine{generation: m.generation, first: m.generation, members: m.members, replicas: m.replicas, ended: m.ended, request: m.queue[0], queue: m.queue[1:]}
	return nil
}

func (q Queued) proto() *fsmpb.JobQueued {
	if q.ID == "" {
		return nil
	}
	return &fsmpb.JobQueued{JobId: q.ID, Name: q.Name, Request: q.Request}
}

func queuedOf(e *fsmpb.JobQueued) Queued {
	return Queued{ID: e.GetJobId(), Name: e.GetName(), Request: e.GetRequest()}
}

func (e *Ended) proto() (*fsmpb.JobEnded, error) {
	p := &fsmpb.JobEnded{Job: e.Queued.proto(), Status: string(e.Status), Reason: e.Reason, Step: int64(e.Step), TotalSteps: int64(e.TotalSteps), Spec: e.Spec,
		StateDigest: e.StateDigest[:], Seconds: e.Seconds}
	if e.archive != nil {
		var err error
		if p.Archive, err = e.archive.Snapshot(); err != nil {
			return nil, err
		}
	}
	for _, v := range e.Evaluations {
		p.Evaluations = append(p.Evaluations, v.Proto())
	}
	return p, nil
}

func endedOf(p *fsmpb.JobEnded) (*Ended, error) {
	e := &Ended{Queued: queuedOf(p.Job), Status: Status(p.Status), Reason: p.Reason, Step: ids.Step(p.Step), TotalSteps: ids.Step(p.TotalSteps), Spec: p.Spec, Seconds: p.Seconds}
	if e.ID == "" || e.Status != Finished && e.Status != Failed && e.Status != Cancelled {
		return nil, fmt.Errorf("ended job %q with status %q, want a name and finished, failed or cancelled", e.ID, e.Status)
	}
	var err error
	if e.StateDigest, err = ids.DigestOf(p.StateDigest); err != nil {
		return nil, fmt.Errorf("ended job %s: %w", e.ID, err)
	}
	for _, v := range p.Evaluations {
		e.Evaluations = append(e.Evaluations, evaluationOf(v))
	}
	if len(p.Archive) > 0 {
		e.archive = New()
		if err := e.archive.Restore(p.Archive); err != nil {
			return nil, fmt.Errorf("ended job %s: %w", e.ID, err)
		}
		if len(e.archive.ended) > 0 || len(e.archive.queue) > 0 {
			return nil, fmt.Errorf("ended job %s: its archive holds jobs of its own, want none", e.ID)
		}
	}
	return e, nil
}
