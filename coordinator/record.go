package coordinator

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
)

// recorder writes this replica's outputs as entries are applied, whether it leads or not, so that any replica that is left
// holds the result. One goroutine runs it.
type recorder struct {
	cfg     *Config
	job     *job.Job
	node    *node
	states  *states
	ready   chan struct{} // closed once the job is in the log, is this replica's, and progress has been told
	already bool          // the job was over when this replica started; valid after ready

	out         *outputs
	evaluations int
}

func newRecorder(cfg *Config, job *job.Job, n *node, k *states) *recorder {
	return &recorder{cfg: cfg, job: job, node: n, states: k, ready: make(chan struct{})}
}

// errCancelled says that somebody has ended the job before its end.
var errCancelled = errors.New("the job was cancelled")

// errForgotten says that the log has dropped the job before this replica has recorded it.
var errForgotten = errors.New("this replica was away for so long that the log does not hold the job's state any more; other replicas have its outputs")

// run returns nil when the job is finished and all its outputs are written, a *FailedError when it has failed for good, errCancelled, ctx's error when it was
// stopped, and otherwise why this replica cannot record the job.
func (r *recorder) run(ctx context.Context) (err error) {
	defer func() {
		if r.out != nil {
			if cerr := r.out.close(); err == nil {
				err = cerr
			}
		}
	}()
	for {
		done, err := r.sync(ctx)
		if done || err != nil {
			return err
		}
		select {
		case <-r.node.replica.applied:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sync writes whatever the machine holds and the outputs do not.
func (r *recorder) sync(ctx context.Context) (done bool, err error) {
	var started, finished bool
	var failure *fsm.Failure
	var status fsm.Status
	var step, total ids.Step
	var recent []fsm.StepRecord
	var evaluations []fsm.Evaluation
	var best ids.Step
	var early string
	known := r.view(func(m *fsm.Machine) {
		status, early = m.Status(), m.StoppedEarly()
		started, finished, failure, step, total = m.Started(), m.Finished(), m.Failure(), m.Step(), m.TotalSteps()
		recent, evaluations = m.Recent(), slices.Clone(m.Evaluations())
		if b := m.Best(); b != nil {
			best = b.Step
		}
	})
	if !known {
		return false, errForgotten
	}
	if !started {
		return false, nil
	}
	if r.out == nil {
		if err := r.check(); err != nil {
			return false, err
		}
		if r.out, err = openOutputs(r.cfg.Out, r.job, r.states, r.cfg.LogExamples, step); err != nil {
			return false, err
		}
		r.already = status != fsm.Running
		if !r.already {
			if err := r.describe(); err != nil {
				return false, err
			}
		}
		if step > 0 && !r.already {
			r.cfg.Logger.Info("job goes on from its committed step", "step", step, "of", total, "data_dir", r.cfg.DataDir)
		}
		if !r.already {
			r.cfg.Progress.Start(r.job.Spec, step, total)
		}
		r.evaluations = -1 // eval.jsonl may be behind the log
		defer close(r.ready)
		if err := r.steps(recent, false); err != nil {
			return false, err
		}
	}
	if err := r.steps(recent, true); err != nil {
		return false, err
	}
	if n := len(evaluations); n != r.evaluations {
		if err := r.out.evaluations(evaluations); err != nil {
			return false, err
		}
		for _, e := range evaluations[max(0, min(r.evaluations, n)):] {
			if r.evaluations >= 0 {
				r.cfg.Progress.Evaluation(e, best == e.Step)
			}
		}
		r.evaluations = n
	}
	if status == fsm.Running {
		return false, nil
	}
	if !r.already {
		r.cfg.Progress.Stop()
	}
	if failure != nil {
		if err := r.describe(); err != nil {
			return false, err
		}
		return false, &FailedError{Failure: *failure, Committed: step, Total: total, DataDir: r.cfg.DataDir}
	}
	if !finished {
		if err := r.describe(); err != nil {
			return false, err
		}
		return false, errCancelled
	}
	r.cfg.mark(BeforePrompts)
	if err := r.results(ctx); err != nil {
		return false, err
	}
	err = r.describe()
	r.cfg.mark(AfterPrompts)
	if early != "" && !r.already {
		r.cfg.Logger.Info("job stopped early", "step", step, "of", total, "best", best, "patience", r.job.Spec.Patience)
	}
	return true, err
}

// results writes what was trained. A state that is a blob may still be on its way here.
func (r *recorder) results(ctx context.Context) error {
	for {
		var kept, final result
		if !r.view(func(m *fsm.Machine) { kept, final = resultsOf(m) }) {
			return errForgotten
		}
		if !r.states.has(kept.blob) || !r.states.has(final.blob) {
			select {
			case <-time.After(arrivalPoll):
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		err := r.out.results(kept, final)
		if !errors.Is(err, blobs.ErrDamaged) && !errors.Is(err, blobs.ErrMissing) {
			return err
		}
		r.cfg.Logger.Error("results not written yet", "reason", err)
	}
}

// steps appends the records that metrics.jsonl lacks, and reports them if they are new.
func (r *recorder) steps(recent []fsm.StepRecord, report bool) error {
	for i, rec := range recent {
		if rec.Step <= r.out.last {
			continue
		}
		if i == 0 && rec.Step > r.out.last+1 {
			r.cfg.Logger.Warn("this replica was away for long: metrics.jsonl lacks steps; other replicas have them", "from", r.out.last+1, "to", rec.Step-1)
		}
		p := r.job.Plan(rec.Step)
		r.cfg.mark(BeforeOutput)
		if err := r.out.step(rec, p); err != nil {
			return err
		}
		r.cfg.mark(AfterOutput)
		if report {
			r.cfg.Progress.Step(rec, p.Epoch, float64(p.Tokens)/max(rec.Seconds, 1e-9))
		}
	}
	return nil
}

func (r *recorder) describe() (err error) {
	if !r.view(func(m *fsm.Machine) { err = r.out.describe(m, r.cfg.Version) }) {
		return errForgotten
	}
	return err
}

// view runs f with the machine of the recorder's job, which may be over. It says whether the log still holds it.
func (r *recorder) view(f func(m *fsm.Machine)) (found bool) {
	r.node.view(func(m *fsm.Machine) {
		if !r.cfg.Serve || m.JobID() == r.job.ID {
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

// recordQueue records the queue's jobs in their order, until ctx ends or this replica cannot.
func (p *process) recordQueue(ctx context.Context) error {
	done := map[string]bool{}
	for {
		q, err := p.nextToRecord(done)
		if err != nil {
			return err
		}
		if q.ID == "" {
			select {
			case <-p.node.replica.applied:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		cfg := *p.cfg
		cfg.Out = filepath.Join(cfg.Out, q.Name)
		job, err := p.library.load(q)
		if err != nil {
			return fmt.Errorf("%w; every replica needs the same data and models", err)
		}
		err = newRecorder(&cfg, job, p.node, p.states).run(ctx)
		var failed *FailedError
		switch {
		case err == nil:
			cfg.Logger.Info("job finished", "job", q.Name, "out", cfg.Out)
		case errors.As(err, &failed):
			cfg.Logger.Error("job failed", "job", q.Name, "step", failed.Step, "reason", failed.Reason)
		case errors.Is(err, errCancelled):
			cfg.Logger.Info("job cancelled", "job", q.Name)
		case errors.Is(err, errForgotten):
			cfg.Logger.Warn("job not recorded here", "job", q.Name, "reason", err)
		default:
			return err
		}
		done[q.ID] = true
	}
}

// nextToRecord is the first job that has started and whose outputs this replica lacks; the zero value if there is none.
func (p *process) nextToRecord(done map[string]bool) (next fsm.Queued, err error) {
	var ended []fsm.Queued
	var running fsm.Queued
	var own bool
	p.node.view(func(m *fsm.Machine) {
		own = m.Started() && m.Request().ID == ""
		for _, e := range m.Ended() {
			if !done[e.ID] && e.Archive() != nil {
				ended = append(ended, e.Queued)
			}
		}
		if m.Status() == fsm.Running {
			running = m.Request()
		}
	})
	if own {
		return next, fmt.Errorf("data directory %s holds one job that came by no queue, want that of a coordinator that serves one; use another --data-dir", p.cfg.DataDir)
	}
	for _, q := range ended {
		there, err := recorded(filepath.Join(p.cfg.Out, q.Name), q.ID)
		if err != nil || !there {
			return q, err
		}
		done[q.ID] = true
	}
	return running, nil
}

// check checks that the log holds this replica's job, settings, data and model.
func (r *recorder) check() error {
	n, own, dir := r.node, r.job, r.cfg.DataDir
	var diff string
	var err error
	var failure *fsm.Failure
	r.view(func(m *fsm.Machine) { diff, err = job.DiffSpec(m.Spec(), own.Spec); failure = m.Failure() })
	switch {
	case err != nil:
		return fmt.Errorf("data directory %s: %w", dir, err)
	case diff == "":
		return nil
	case r.cfg.Serve:
		return fmt.Errorf("job %s in the log differs from what this replica makes of its settings: %s; every replica needs the same data and models", own.ID, diff)
	case n.alone() && failure != nil:
		return fmt.Errorf("data directory %s holds a job that failed at step %d (%s), and this is another one: %s; start it with another --out or --data-dir, or delete %s",
			dir, failure.Step, failure.Reason, diff, dir)
	case n.alone():
		return fmt.Errorf("data directory %s holds another job: %s; use another --out or --data-dir, or the settings it was started with", dir, diff)
	}
	return fmt.Errorf("the replicas' log in %s holds another job than replica %s is started with: %s; every replica needs the same settings, data and model", dir, n.id, diff)
}

// oneByOne passes reports on, one at a time: the recorder and the controller report from goroutines of their own.
type oneByOne struct {
	mu sync.Mutex
	to Reporter
}

func (o *oneByOne) do(f func(Reporter)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f(o.to)
}

func (o *oneByOne) Start(spec job.Spec, step, total ids.Step) {
	o.do(func(r Reporter) { r.Start(spec, step, total) })
}
func (o *oneByOne) Generation(g ids.Generation, workers int, after ids.Step) {
	o.do(func(r Reporter) { r.Generation(g, workers, after) })
}
func (o *oneByOne) Step(rec fsm.StepRecord, epoch int64, tokensPerSecond float64) {
	o.do(func(r Reporter) { r.Step(rec, epoch, tokensPerSecond) })
}
func (o *oneByOne) Evaluating(step ids.Step, examples int) {
	o.do(func(r Reporter) { r.Evaluating(step, examples) })
}
func (o *oneByOne) Evaluated(done, examples int) {
	o.do(func(r Reporter) { r.Evaluated(done, examples) })
}
func (o *oneByOne) Evaluation(e fsm.Evaluation, best bool) {
	o.do(func(r Reporter) { r.Evaluation(e, best) })
}
func (o *oneByOne) Stop() { o.do(func(r Reporter) { r.Stop() }) }
