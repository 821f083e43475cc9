package outputs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/blobsync"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
)

// The points at which Options.Mark is called: a crash there separates two effects that belong
// together.
const (
	// BeforeOutput: a step is told to the controller, and not in the outputs.
	BeforeOutput = "coordinator: before a metrics line"
	// AfterOutput: it is in the outputs, and the next plan is not sent.
	AfterOutput = "coordinator: after a metrics line"
	// BeforePrompts: the job is finished in the log, and no prompt is written.
	BeforePrompts = "coordinator: before the prompts"
	// AfterPrompts: all prompts are written, and the workers are not told.
	AfterPrompts = "coordinator: after the prompts"
)

// Reporter is told how the job goes, as its outputs are written. Calls come one at a time and must
// not block.
type Reporter interface {
	Start(spec job.Spec, step, total ids.Step)
	Step(r fsm.StepRecord, epoch int64, tokensPerSecond float64)
	Evaluation(e fsm.Evaluation, best bool)
	Stop()
}

// Options are what a Recorder works with.
type Options struct {
	Node  *replica.Node
	Blobs *blobsync.Sync
	// Dir is the output directory. With Serve it has a directory for each job, of its name.
	Dir string
	// DataDir is the replica's data directory, for messages.
	DataDir string
	// Serve: jobs come by the queue.
	Serve       bool
	LogExamples bool
	Version     string
	Progress    Reporter
	// Mark is called at the points that the constants name; nil is not.
	Mark   func(point string)
	Logger *slog.Logger
}

func (o *Options) mark(point string) {
	if o.Mark != nil {
		o.Mark(point)
	}
}

// FailedError means that the job has failed for good, because of its data, and that the log says
// so.
type FailedError struct {
	fsm.Failure
	Committed, Total ids.Step
	DataDir          string
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("the job failed at step %d of %d: %s; the same data would fail again: correct it and start the job "+
		"with another --out or --data-dir (steps 1 to %d are committed and kept in %s)",
		e.Step, e.Total, e.Reason, e.Committed, e.DataDir)
}

// errCancelled means that a user has ended the job before its end.
var errCancelled = errors.New("the job was cancelled")

// errForgotten means that the log has dropped the job before this replica has recorded it.
var errForgotten = errors.New("this replica was away for so long that the log does not hold the job's state any more; " +
	"other replicas have its outputs")

// blobPoll is how often a finished job's recorder looks for a blob that is still on its way here.
const blobPoll = 50 * time.Millisecond

// Recorder writes one job's outputs at this replica. One goroutine, Run, does it.
type Recorder struct {
	Options
	job     *job.Job
	changes <-chan struct{} // of the state machine
	ready   chan struct{}
	already bool

	writer      *writer // nil until the job has started
	evaluations int     // those in eval.jsonl; -1 while it may be behind the log
}

// NewRecorder makes the recorder of a job.
func NewRecorder(o Options, j *job.Job) *Recorder { return newRecorder(o, j, o.Node.Changes()) }

func newRecorder(o Options, j *job.Job, changes <-chan struct{}) *Recorder {
	return &Recorder{Options: o, job: j, changes: changes, ready: make(chan struct{})}
}

// Ready is closed once the job is in the log, is this replica's, and Progress has been told.
func (r *Recorder) Ready() <-chan struct{} { return r.ready }

// AlreadyOver reports whether the job was over when this replica started. It is valid after Ready.
func (r *Recorder) AlreadyOver() bool { return r.already }

// Run returns nil when the job is finished and all its outputs are written, a *FailedError when it
// has failed for good, ctx's error when it was stopped, and otherwise why this replica cannot
// record the job.
func (r *Recorder) Run(ctx context.Context) (err error) {
	defer func() {
		if r.writer != nil {
			if cerr := r.writer.close(); err == nil {
				err = cerr
			}
		}
	}()
	for {
		done, err := r.catchUp(ctx)
		if done || err != nil {
			return err
		}
		select {
		case <-r.changes:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// standing is what the state machine holds of the job.
type standing struct {
	status      fsm.Status
	started     bool
	finished    bool
	failure     *fsm.Failure
	early       string // when and why it stopped early
	step, total ids.Step
	recent      []fsm.StepRecord
	evaluations []fsm.Evaluation
	best        ids.Step
}

func (r *Recorder) standing() (s standing, found bool) {
	found = r.view(func(m *fsm.Machine) {
		s = standing{
			status:      m.Status(),
			started:     m.Started(),
			finished:    m.Finished(),
			failure:     m.Failure(),
			early:       m.StoppedEarly(),
			step:        m.Step(),
			total:       m.TotalSteps(),
			recent:      m.Recent(),
			evaluations: slices.Clone(m.Evaluations()),
		}
		if b := m.Best(); b != nil {
			s.best = b.Step
		}
	})
	return s, found
}

// catchUp writes whatever the state machine holds and the outputs do not.
func (r *Recorder) catchUp(ctx context.Context) (done bool, err error) {
	s, found := r.standing()
	if !found {
		return false, errForgotten
	}
	if !s.started {
		return false, nil
	}
	if r.writer == nil {
		if err := r.open(s); err != nil {
			return false, err
		}
		defer close(r.ready)
		if err := r.steps(s.recent, false); err != nil {
			return false, err
		}
	}
	if err := r.steps(s.recent, true); err != nil {
		return false, err
	}
	if err := r.recordEvaluations(s); err != nil {
		return false, err
	}
	if s.status == fsm.Running {
		return false, nil
	}
	return r.end(ctx, s)
}

// open checks that the log's job is this replica's, and prepares its files.
func (r *Recorder) open(s standing) (err error) {
	if err := r.check(); err != nil {
		return err
	}
	if r.writer, err = openWriter(r.Dir, r.job, r.Blobs, r.LogExamples, s.step); err != nil {
		return err
	}
	r.evaluations = -1
	if r.already = s.status != fsm.Running; r.already {
		return nil
	}
	if err := r.describe(); err != nil {
		return err
	}
	if s.step > 0 {
		r.Logger.Info("job goes on from its committed step", "step", s.step, "of", s.total, "data_dir", r.DataDir)
	}
	r.Progress.Start(r.job.Spec, s.step, s.total)
	return nil
}

// steps appends the records that metrics.jsonl lacks, and reports them if they are new.
func (r *Recorder) steps(recent []fsm.StepRecord, report bool) error {
	for i, rec := range recent {
		if rec.Step <= r.writer.last {
			continue
		}
		if i == 0 && rec.Step > r.writer.last+1 {
			r.Logger.Warn("this replica was away for long: metrics.jsonl lacks steps; other replicas have them",
				"from", r.writer.last+1, "to", rec.Step-1)
		}
		p := r.job.Plan(rec.Step)
		r.mark(BeforeOutput)
		if err := r.writer.step(rec, p); err != nil {
			return err
		}
		r.mark(AfterOutput)
		if report {
			r.Progress.Step(rec, p.Epoch, tokensPerSecond(rec, p))
		}
	}
	return nil
}

// recordEvaluations rewrites eval.jsonl if the log has others, and reports those that are new.
func (r *Recorder) recordEvaluations(s standing) error {
	n := len(s.evaluations)
	if n == r.evaluations {
		return nil
	}
	if err := r.writer.evaluations(s.evaluations); err != nil {
		return err
	}
	if r.evaluations >= 0 {
		for _, e := range s.evaluations[min(r.evaluations, n):] {
			r.Progress.Evaluation(e, s.best == e.Step)
		}
	}
	r.evaluations = n
	return nil
}

// end records how a job that is over has ended.
func (r *Recorder) end(ctx context.Context, s standing) (done bool, err error) {
	if !r.already {
		r.Progress.Stop()
	}
	if s.finished {
		r.mark(BeforePrompts)
		if err := r.results(ctx); err != nil {
			return false, err
		}
	}
	err = r.describe()
	switch {
	case s.finished:
		r.mark(AfterPrompts)
		if s.early != "" && !r.already {
			r.Logger.Info("job stopped early",
				"step", s.step, "of", s.total, "best", s.best, "patience", r.job.Spec.Patience)
		}
		return true, err
	case err != nil:
		return false, err
	case s.failure != nil:
		return false, &FailedError{Failure: *s.failure, Committed: s.step, Total: s.total, DataDir: r.DataDir}
	}
	return false, errCancelled
}

// results writes what was trained. A state that is a blob may still be on its way here.
func (r *Recorder) results(ctx context.Context) error {
	for {
		var best, last result
		if !r.view(func(m *fsm.Machine) { best, last = resultsOf(m) }) {
			return errForgotten
		}
		if !r.Blobs.Has(best.blob) || !r.Blobs.Has(last.blob) {
			select {
			case <-time.After(blobPoll):
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		err := r.writer.results(best, last)
		if !errors.Is(err, blobs.ErrDamaged) && !errors.Is(err, blobs.ErrMissing) {
			return err
		}
		r.Logger.Error("results not written yet", "reason", err)
	}
}

// describe writes job.json.
func (r *Recorder) describe() (err error) {
	if !r.view(func(m *fsm.Machine) { err = r.writer.describe(m, r.Version) }) {
		return errForgotten
	}
	return err
}

// view runs f with the state machine of the recorder's job, which may be over. It reports whether
// the log still holds it.
func (r *Recorder) view(f func(m *fsm.Machine)) (found bool) {
	r.Node.View(func(m *fsm.Machine) {
		if !r.Serve || m.JobID() == r.job.ID {
			f(m)
			found = true
			return
		}
		for _, e := range m.Ended() {
			if e.ID == r.job.ID && e.Archive() != nil {
				f(e.Archive())
				found = true
			}
		}
	})
	return found
}

// check refuses a log that does not hold this replica's job: its settings, data and model.
func (r *Recorder) check() error {
	var diff string
	var err error
	var failure *fsm.Failure
	r.view(func(m *fsm.Machine) {
		diff, err = job.DiffSpec(m.Spec(), r.job.Spec)
		failure = m.Failure()
	})
	switch {
	case err != nil:
		return fmt.Errorf("data directory %s: %w", r.DataDir, err)
	case diff == "":
		return nil
	case r.Serve:
		return fmt.Errorf("job %s in the log differs from what this replica makes of its settings: %s; "+
			"every replica needs the same data and models", r.job.ID, diff)
	case r.Node.Alone() && failure != nil:
		return fmt.Errorf("data directory %s holds a job that failed at step %d (%s), and this is another one: %s; "+
			"start it with another --out or --data-dir, or delete %s", r.DataDir, failure.Step, failure.Reason, diff, r.DataDir)
	case r.Node.Alone():
		return fmt.Errorf("data directory %s holds another job: %s; "+
			"use another --out or --data-dir, or the settings it was started with", r.DataDir, diff)
	}
	return fmt.Errorf("the replicas' log in %s holds another job than replica %s is started with: %s; "+
		"every replica needs the same settings, data and model", r.DataDir, r.Node.ID(), diff)
}
