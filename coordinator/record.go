package coordinator

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/dptune/dpt/coordinator/fsm"
)

// recorder writes this replica's outputs as entries are applied, whether it leads or not, so that any replica that is left
// holds the result. One goroutine runs it.
type recorder struct {
	cfg     *Config
	job     *Job
	node    *node
	ready   chan struct{} // closed once the job is in the log, is this replica's, and progress has been told
	already bool          // the job was over when this replica started; valid after ready

	out         *outputs
	evaluations int
}

func newRecorder(cfg *Config, job *Job, n *node) *recorder {
	return &recorder{cfg: cfg, job: job, node: n, ready: make(chan struct{})}
}

// run returns nil when the job is finished and all its outputs are written, a *FailedError when it has failed for good, ctx's error when it was stopped, and
// otherwise why this replica cannot record the job.
func (r *recorder) run(ctx context.Context) (err error) {
	defer func() {
		if r.out != nil {
			if cerr := r.out.close(); err == nil {
				err = cerr
			}
		}
	}()
	for {
		done, err := r.sync()
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
func (r *recorder) sync() (done bool, err error) {
	var started, finished bool
	var failure *fsm.Failure
	var step, total fsm.Step
	var recent []fsm.StepRecord
	var evaluations []fsm.Evaluation
	var best fsm.Step
	r.node.view(func(m *fsm.Machine) {
		started, finished, failure, step, total = m.Started(), m.Finished(), m.Failure(), m.Step(), m.TotalSteps()
		recent, evaluations = m.Recent(), slices.Clone(m.Evaluations())
		if b := m.Best(); b != nil {
			best = b.Step
		}
	})
	if !started {
		return false, nil
	}
	if r.out == nil {
		if err := checkJob(r.node, r.job, r.cfg.DataDir); err != nil {
			return false, err
		}
		if r.out, err = openOutputs(r.cfg.Out, r.job, r.cfg.LogExamples, step); err != nil {
			return false, err
		}
		if err := r.describe(); err != nil {
			return false, err
		}
		if step > 0 && !finished && failure == nil {
			r.cfg.Logger.Info("job goes on from its committed step", "step", step, "of", total, "data_dir", r.cfg.DataDir)
		}
		if r.already = finished || failure != nil; !r.already {
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
	if !finished && failure == nil {
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
	r.cfg.mark(BeforePrompts)
	r.node.view(func(m *fsm.Machine) { err = r.out.prompts(m) })
	if err != nil {
		return false, err
	}
	err = r.describe()
	r.cfg.mark(AfterPrompts)
	return true, err
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
	r.node.view(func(m *fsm.Machine) { err = r.out.describe(m, r.cfg.Version) })
	return err
}

// checkJob checks that the log holds this replica's job, settings, data and model.
func checkJob(n *node, job *Job, dir string) error {
	var diff string
	var err error
	var failure *fsm.Failure
	n.view(func(m *fsm.Machine) { diff, err = diffSpec(m.Spec(), job.Spec); failure = m.Failure() })
	switch {
	case err != nil:
		return fmt.Errorf("data directory %s: %w", dir, err)
	case diff == "":
		return nil
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

func (o *oneByOne) Start(spec Spec, step, total fsm.Step) {
	o.do(func(r Reporter) { r.Start(spec, step, total) })
}
func (o *oneByOne) Generation(g fsm.Generation, workers int, after fsm.Step) {
	o.do(func(r Reporter) { r.Generation(g, workers, after) })
}
func (o *oneByOne) Step(rec fsm.StepRecord, epoch int64, tokensPerSecond float64) {
	o.do(func(r Reporter) { r.Step(rec, epoch, tokensPerSecond) })
}
func (o *oneByOne) Evaluating(step fsm.Step, examples int) {
	o.do(func(r Reporter) { r.Evaluating(step, examples) })
}
func (o *oneByOne) Evaluated(done, examples int) {
	o.do(func(r Reporter) { r.Evaluated(done, examples) })
}
func (o *oneByOne) Evaluation(e fsm.Evaluation, best bool) {
	o.do(func(r Reporter) { r.Evaluation(e, best) })
}
func (o *oneByOne) Stop() { o.do(func(r Reporter) { r.Stop() }) }
