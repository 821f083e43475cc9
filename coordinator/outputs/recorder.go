package outputs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/dptune/dpt/coordinator/blobsync"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
)

// The points at which Options.Mark is called: a crash there separates two effects that belong
// together.
const (
	// BeforeOutput: a step is committed, and its line is not in metrics.jsonl.
	BeforeOutput = "coordinator: before a metrics line"
	// AfterOutput: the line is in metrics.jsonl, and the step is not reported.
	AfterOutput = "coordinator: after a metrics line"
	// BeforePrompts: the job is finished in the log, and no prompt is written.
	BeforePrompts = "coordinator: before the prompts"
	// AfterPrompts: all prompts are written, and the workers have not heard of the end.
	AfterPrompts = "coordinator: after the prompts"
)

// Reporter is told of a job's progress as its outputs are written. Calls come one at a time and
// must not block. A job that was over when the recorder started has none.
type Reporter interface {
	// Start is the first call: of total steps the log has committed those up to step.
	Start(spec job.Spec, step, total ids.Step)
	// Step reports a committed step; tokensPerSecond counts source and target tokens.
	Step(r fsm.StepRecord, epoch int64, tokensPerSecond float64)
	// Evaluation reports an evaluation, and whether it is the best so far.
	Evaluation(e fsm.Evaluation, best bool)
	// Stop is the last call: the job is over.
	Stop()
}

// Options are what a Recorder works with.
type Options struct {
	Node  *replica.Node
	Blobs *blobsync.Sync
	// Dir is the output directory. RecordQueue makes a directory in it for each job, of its name.
	Dir string
	// DataDir is the replica's data directory, for messages.
	DataDir string
	// Serve means that jobs come by the queue, so that the log may hold others than the recorder's.
	Serve bool
	// LogExamples adds the ids of the batch to every line of metrics.jsonl.
	LogExamples bool
	// Version is the program's, for job.json.
	Version  string
	Progress Reporter
	// Mark is called at the points that the constants name, unless it is nil.
	Mark   func(point string)
	Logger *slog.Logger
}

// mark calls Mark at a point that the recorder has reached.
func (o *Options) mark(point string) {
	if o.Mark != nil {
		o.Mark(point)
	}
}

// FailedError means that the job has failed for good, because of its data, as the log records.
type FailedError struct {
	fsm.Failure
	Committed ids.Step // the last committed step
	Total     ids.Step // of the whole job
	DataDir   string
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("the job failed at step %d of %d: %s; "+
		"the same data would fail again: correct it and start the job with another --out or --data-dir "+
		"(steps 1 to %d are committed and kept in %s)",
		e.Step, e.Total, e.Reason, e.Committed, e.DataDir)
}

// errCancelled means that a user has ended the job before its end.
var errCancelled = errors.New("the job was cancelled")

// errForgotten means that the log has dropped the job before this replica has recorded it.
var errForgotten = errors.New("this replica was away for so long that the log does not hold the job's state " +
	"any more; other replicas have its outputs")

// Recorder writes one job's outputs at this replica, in the goroutine that calls Run. Ready and
// AlreadyOver may be called from any goroutine.
type Recorder struct {
	opts        Options
	job         *job.Job
	changes     <-chan struct{} // of the state machine
	ready       chan struct{}
	alreadyOver bool // valid once ready is closed

	// The fields below belong to Run's goroutine.
	writer      *writer // nil until the job has started
	evaluations int     // evaluations in eval.jsonl; -1 while that is unknown
}

// NewRecorder makes the recorder of a job.
func NewRecorder(o Options, j *job.Job) *Recorder { return newRecorder(o, j, o.Node.Changes()) }

func newRecorder(o Options, j *job.Job, changes <-chan struct{}) *Recorder {
	return &Recorder{opts: o, job: j, changes: changes, ready: make(chan struct{})}
}

// Ready returns a channel that is closed once the log holds this replica's job and Progress has
// been told of the start.
func (r *Recorder) Ready() <-chan struct{} { return r.ready }

// AlreadyOver reports whether the job was over when this replica started. It is valid after Ready.
func (r *Recorder) AlreadyOver() bool { return r.alreadyOver }

// Run records the job until it is over. It returns nil when the job is finished and all its outputs
// are written, a *FailedError when it has failed for good, ctx's error when ctx ends, and otherwise
// why this replica cannot record the job.
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

// jobState is what the state machine holds of the job.
type jobState struct {
	status       fsm.Status
	started      bool
	finished     bool
	failure      *fsm.Failure // nil unless the job has failed for good
	stoppedEarly string       // when and why; "" if it has not
	step         ids.Step     // the last committed one
	total        ids.Step     // of the whole job
	recent       []fsm.StepRecord
	evaluations  []fsm.Evaluation
	best         ids.Step // of the best evaluation
}

// readState returns the state of the job, and whether the log still holds it.
func (r *Recorder) readState() (s jobState, found bool) {
	found = r.view(func(m *fsm.Machine) {
		s = jobState{
			status:       m.Status(),
			started:      m.Started(),
			finished:     m.Finished(),
			failure:      m.Failure(),
			stoppedEarly: m.StoppedEarly(),
			step:         m.Step(),
			total:        m.TotalSteps(),
			recent:       m.Recent(),
			evaluations:  slices.Clone(m.Evaluations()),
		}
		if b := m.Best(); b != nil {
			s.best = b.Step
		}
	})
	return s, found
}

// catchUp writes what the state machine holds and the outputs lack. done means that the job is
// finished and recorded.
func (r *Recorder) catchUp(ctx context.Context) (done bool, err error) {
	s, found := r.readState()
	if !found {
		return false, errForgotten
	}
	if !s.started {
		return false, nil
	}

	// The first time it writes what an earlier process has not written, and reports none of it.
	if r.writer == nil {
		if err := r.open(s); err != nil {
			return false, err
		}
		defer close(r.ready)
		if err := r.recordSteps(s.recent, false); err != nil {
			return false, err
		}
	}

	if err := r.recordSteps(s.recent, true); err != nil {
		return false, err
	}
	if err := r.recordEvaluations(s); err != nil {
		return false, err
	}
	if s.status == fsm.Running {
		return false, nil
	}
	return r.recordEnd(ctx, s)
}

// open checks that the log's job is this replica's, and prepares its files. It tells Progress of
// the start, unless the job is over.
func (r *Recorder) open(s jobState) (err error) {
	if err := r.checkJob(); err != nil {
		return err
	}
	if r.writer, err = openWriter(r.opts.Dir, r.job, r.opts.Blobs, r.opts.LogExamples, s.step); err != nil {
		return err
	}
	r.evaluations = -1
	if r.alreadyOver = s.status != fsm.Running; r.alreadyOver {
		return nil
	}
	if err := r.writeJobFile(); err != nil {
		return err
	}
	if s.step > 0 {
		r.opts.Logger.Info("job goes on from its committed step",
			"step", s.step, "of", s.total, "data_dir", r.opts.DataDir)
	}
	r.opts.Progress.Start(r.job.Spec, s.step, s.total)
	return nil
}

// recordSteps appends the records that metrics.jsonl lacks, and reports them if they are new.
func (r *Recorder) recordSteps(recent []fsm.StepRecord, report bool) error {
	for i, rec := range recent {
		if rec.Step <= r.writer.last {
			continue
		}
		if i == 0 && rec.Step > r.writer.last+1 {
			r.opts.Logger.Warn("this replica was away for long: metrics.jsonl lacks steps; other replicas have them",
				"from", r.writer.last+1, "to", rec.Step-1)
		}
		p := r.job.Plan(rec.Step)
		r.opts.mark(BeforeOutput)
		if err := r.writer.writeStep(rec, p); err != nil {
			return err
		}
		r.opts.mark(AfterOutput)
		if report {
			r.opts.Progress.Step(rec, p.Epoch, tokensPerSecond(rec, p))
		}
	}
	return nil
}

// recordEvaluations rewrites eval.jsonl if the log has others, and reports those that are new. The
// first time it is not known which are, and it reports none.
func (r *Recorder) recordEvaluations(s jobState) error {
	n := len(s.evaluations)
	if n == r.evaluations {
		return nil
	}
	if err := r.writer.writeEvaluations(s.evaluations); err != nil {
		return err
	}
	if r.evaluations >= 0 {
		for _, e := range s.evaluations[min(r.evaluations, n):] {
			r.opts.Progress.Evaluation(e, s.best == e.Step)
		}
	}
	r.evaluations = n
	return nil
}

// recordEnd records how a job that is over has ended: with results, or with an error.
func (r *Recorder) recordEnd(ctx context.Context, s jobState) (done bool, err error) {
	if !r.alreadyOver {
		r.opts.Progress.Stop()
	}
	if s.finished {
		r.opts.mark(BeforePrompts)
		if err := r.writeResults(ctx); err != nil {
			return false, err
		}
	}
	err = r.writeJobFile()
	switch {
	case s.finished:
		r.opts.mark(AfterPrompts)
		if s.stoppedEarly != "" && !r.alreadyOver {
			r.opts.Logger.Info("job stopped early",
				"step", s.step, "of", s.total, "best", s.best, "patience", r.job.Spec.Patience)
		}
		return true, err
	case err != nil:
		return false, err
	case s.failure != nil:
		return false, &FailedError{Failure: *s.failure, Committed: s.step, Total: s.total, DataDir: r.opts.DataDir}
	}
	return false, errCancelled
}

// writeJobFile writes job.json.
func (r *Recorder) writeJobFile() (err error) {
	if !r.view(func(m *fsm.Machine) { err = r.writer.writeJobFile(m, r.opts.Version) }) {
		return errForgotten
	}
	return err
}

// view runs f with the state machine of the recorder's job: the current one, or the archive of a
// job of the queue that is over. It reports whether the log still holds the job.
func (r *Recorder) view(f func(m *fsm.Machine)) (found bool) {
	r.opts.Node.View(func(m *fsm.Machine) {
		if !r.opts.Serve || m.JobID() == r.job.ID {
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

// checkJob refuses a log whose job differs from this replica's, in its settings, data or model.
func (r *Recorder) checkJob() error {
	var diff string
	var err error
	var failure *fsm.Failure
	r.view(func(m *fsm.Machine) {
		diff, err = job.DiffSpec(m.Spec(), r.job.Spec)
		failure = m.Failure()
	})
	switch {
	case err != nil:
		return fmt.Errorf("data directory %s: %w", r.opts.DataDir, err)
	case diff == "":
		return nil
	case r.opts.Serve:
		return fmt.Errorf("job %s in the log differs from the one that this replica has loaded: %s; "+
			"every replica needs the same data and models", r.job.ID, diff)
	case r.opts.Node.Alone() && failure != nil:
		return fmt.Errorf("data directory %s holds a job that failed at step %d (%s), and this is another one: %s; "+
			"start it with another --out or --data-dir, or delete %s",
			r.opts.DataDir, failure.Step, failure.Reason, diff, r.opts.DataDir)
	case r.opts.Node.Alone():
		return fmt.Errorf("data directory %s holds another job: %s; "+
			"use another --out or --data-dir, or the settings it was started with", r.opts.DataDir, diff)
	}
	return fmt.Errorf("the replicas' log in %s holds another job than replica %s is started with: %s; "+
		"every replica needs the same settings, data and model", r.opts.DataDir, r.opts.Node.ID(), diff)
}
