package fsm

import (
	"fmt"
	"slices"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

const (
	// maxQueued bounds the number of jobs that wait.
	maxQueued = 4096
	// maxNameLength bounds a job's name and its id, in bytes.
	maxNameLength = 256
	// maxRequest bounds a job's settings, in bytes.
	maxRequest = 64 << 10
	// keptArchives is the number of ended jobs, the last ones, whose archives are kept. A replica
	// that lags behind writes a job's outputs from its archive.
	keptArchives = 4
	// keptEnded is the number of ended jobs that are kept at all.
	keptEnded = 4096
)

// Queued is a job as it was submitted to the queue.
type Queued struct {
	ID      string
	Name    string // chosen by the user
	Request []byte // the settings that the user asked for, as JSON
}

// Status is the state of a job in the queue.
type Status string

// The statuses of a job. The last three are final.
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
	Reason      string   // of a failure; "" for other jobs
	Step        ids.Step // committed steps
	TotalSteps  ids.Step
	Spec        []byte     // resolved settings as canonical JSON; empty if the job never ran
	StateDigest ids.Digest // of the trainer state after Step
	Seconds     float64    // that the committed steps and evaluations took
	Evaluations []Evaluation

	archive *Machine // see Archive
}

// Archive is the machine as it was when the job ended, for reading only. It is nil if the job never
// ran, and for all jobs but the last few.
func (e *Ended) Archive() *Machine { return e.archive }

// Request is the job as it was queued; the zero value if it did not come from the queue.
func (m *Machine) Request() Queued { return m.request }

// Queue lists the jobs that wait, the next one first.
func (m *Machine) Queue() []Queued { return m.queue }

// Ended lists the jobs of the queue that have ended, oldest first.
func (m *Machine) Ended() []*Ended { return m.ended }

// Seconds is the time that the job's committed steps and evaluations took, as the leaders measured
// it.
func (m *Machine) Seconds() float64 { return m.seconds }

// Over reports whether the job has ended in any way, so that the next one may start.
func (m *Machine) Over() bool { return m.finished || m.cancelled || m.failure != nil }

// Status is the job's status; "" before any job.
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

// isNameTaken reports whether a job that the machine remembers has the id or the name.
func (m *Machine) isNameTaken(id, name string) bool {
	taken := func(q Queued) bool { return q.ID == id || q.Name == name }
	takenByEnded := func(e *Ended) bool { return taken(e.Queued) }
	return taken(m.request) || slices.ContainsFunc(m.queue, taken) || slices.ContainsFunc(m.ended, takenByEnded)
}

// enqueueJob adds a job to the end of the queue.
func (m *Machine) enqueueJob(e *fsmpb.JobQueued) error {
	switch {
	case e.JobId == "" || len(e.JobId) > maxNameLength || e.Name == "" || len(e.Name) > maxNameLength:
		return reject("job %q of id %q, want names of 1 to %d bytes", e.Name, e.JobId, maxNameLength)
	case len(e.Request) == 0 || len(e.Request) > maxRequest:
		return reject("job %q with settings of %d bytes, want 1 to %d", e.Name, len(e.Request), maxRequest)
	case m.job != nil && m.request.ID == "":
		return reject("job %q: this log holds one job of its own and takes no others", e.Name)
	case m.isNameTaken(e.JobId, e.Name):
		return reject("job %q of id %s: there is one of that name or id, want another", e.Name, e.JobId)
	case len(m.queue) == maxQueued:
		return reject("job %q: %d jobs wait, which is the most", e.Name, maxQueued)
	}
	m.queue = append(m.queue[:len(m.queue):len(m.queue)], Queued{ID: e.JobId, Name: e.Name, Request: e.Request})
	return nil
}

// cancelJob ends a job that waits, or the one that runs. A job that waits and cannot start has
// failed: the entry then gives the reason.
func (m *Machine) cancelJob(e *fsmpb.JobCancelled) error {
	if len(e.Reason) > MaxFailureLength {
		return reject("cancel job %s with a reason of %d bytes, want at most %d",
			e.JobId, len(e.Reason), MaxFailureLength)
	}
	if i := slices.IndexFunc(m.queue, func(q Queued) bool { return q.ID == e.JobId }); i >= 0 {
		q := m.queue[i]
		m.queue = slices.Delete(slices.Clone(m.queue), i, i+1)
		ended := &Ended{Queued: q, Status: Cancelled, Reason: e.Reason}
		if e.Reason != "" {
			ended.Status = Failed
		}
		m.addEnded(ended)
		return nil
	}
	switch {
	case m.job == nil || m.request.ID == "" || m.request.ID != e.JobId || e.Reason != "":
		return reject("cancel job %s: no job of this id waits or runs", e.JobId)
	case m.Over():
		return reject("cancel job %s: it is %s", e.JobId, m.Status())
	}
	m.cancelled = true
	m.archiveJob()
	return nil
}

// archiveJob adds the job, which has just ended, to the ended jobs of the queue.
func (m *Machine) archiveJob() {
	m.offer = nil
	if m.request.ID == "" {
		return // it did not come from the queue
	}
	e := &Ended{
		Queued:      m.request,
		Status:      m.Status(),
		Step:        m.step,
		TotalSteps:  m.TotalSteps(),
		Spec:        m.Spec(),
		StateDigest: m.stateDigest,
		Seconds:     m.seconds,
		Evaluations: m.evaluations,
	}
	if m.failure != nil {
		e.Reason = m.failure.Reason
	}
	archive := *m
	archive.queue, archive.ended, archive.replicas = nil, nil, nil
	e.archive = &archive
	m.addEnded(e)
}

// addEnded adds an ended job. It drops the oldest one beyond keptEnded, and the archive of the
// oldest one that has one beyond keptArchives. It does not change a list that a caller of Ended
// holds.
func (m *Machine) addEnded(e *Ended) {
	m.ended = append(m.ended[max(0, len(m.ended)+1-keptEnded):len(m.ended):len(m.ended)], e)
	kept := 0
	for i := len(m.ended) - 1; i >= 0; i-- {
		if m.ended[i].archive == nil {
			continue
		}
		if kept++; kept > keptArchives {
			bare := *m.ended[i]
			bare.archive = nil
			m.ended = slices.Clone(m.ended)
			m.ended[i] = &bare
			return
		}
	}
}

// dequeueJob resets the machine for the job that is first in the queue. The numbers of the
// generations go on, and so do the ring, the replicas and the ended jobs. Without a queue it
// accepts the only job.
func (m *Machine) dequeueJob(jobID string) error {
	switch {
	case m.job != nil && !m.Over():
		return reject("job %s is already started", m.job.JobId)
	case len(m.queue) == 0 && m.job == nil:
		return nil // the only job, with which the replicas were started
	case len(m.queue) == 0:
		return reject("job %s after job %s, which is %s; none waits", jobID, m.job.JobId, m.Status())
	case m.queue[0].ID != jobID:
		return reject("job %s starts, job %s is next", jobID, m.queue[0].ID)
	}
	*m = Machine{
		request:         m.queue[0],
		generation:      m.generation,
		members:         m.members,
		firstGeneration: m.generation,
		replicas:        m.replicas,
		queue:           m.queue[1:],
		ended:           m.ended,
	}
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
	p := &fsmpb.JobEnded{
		Job:         e.Queued.proto(),
		Status:      string(e.Status),
		Reason:      e.Reason,
		Step:        int64(e.Step),
		TotalSteps:  int64(e.TotalSteps),
		Spec:        e.Spec,
		StateDigest: e.StateDigest[:],
		Seconds:     e.Seconds,
	}
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
	e := &Ended{
		Queued:     queuedOf(p.Job),
		Status:     Status(p.Status),
		Reason:     p.Reason,
		Step:       ids.Step(p.Step),
		TotalSteps: ids.Step(p.TotalSteps),
		Spec:       p.Spec,
		Seconds:    p.Seconds,
	}
	if e.ID == "" || e.Status != Finished && e.Status != Failed && e.Status != Cancelled {
		return nil, fmt.Errorf("ended job %q with status %q, want an id and finished, failed or cancelled",
			e.ID, e.Status)
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
