package sweep

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
)

// Jobs is a coordinator's queue. Both calls wait while no coordinator can be reached.
type Jobs interface {
	// Submit queues a job. It does nothing if the queue has a job of that name and those settings.
	Submit(ctx context.Context, name string, s job.Settings) error
	// List gives those of the named jobs that the queue has, with their evaluations: the ended
	// ones, oldest first, then the one that runs, then those that wait.
	List(ctx context.Context, names []string) ([]*coordpb.Job, error)
}

// Runner runs a grid through a coordinator's queue.
type Runner struct {
	Jobs     Jobs
	Grid     Grid
	Prefix   string // of the jobs' names: sweeps that share a coordinator need different ones
	Results  *Results
	Logger   *slog.Logger
	Poll     time.Duration         // between two calls of Jobs.List
	Finished func(done, total int) // called when runs have ended; may be nil
}

const (
	// maxOutstanding bounds the runs that wait in the queue at a time.
	maxOutstanding = 256
	// maxAttempts bounds how often a run is submitted. One that failed or was cancelled is
	// submitted again, once by each call of Run.
	maxAttempts = 100
)

// tally is the progress of a call of Run.
type tally struct {
	started      time.Time
	before       int    // results before the call
	done         int    // results now
	total        int    // runs of the sweep
	failed       int    // runs that have ended without a result
	firstFailure string // the first of them and its reason
}

// Run runs what the results lack, in the grid's order, and adds a result for each. It leaves out a
// run that fails or is cancelled and goes on with the others; it then returns an error at the end,
// and the next call tries the run again.
func (r *Runner) Run(ctx context.Context) error {
	n := r.Results.Len()
	t := &tally{started: time.Now(), before: n, done: n, total: r.Grid.Total()}
	r.Logger.Info("sweep", "preset", r.Grid.Preset, "runs", t.total, "done", t.done)
	outstanding := map[string]Run{} // by the name of its job
	submitted := map[string]bool{}  // by key: outstanding, or ended without a result
	for {
		// Results may have called for more runs.
		var todo []Run
		for _, run := range r.Grid.Due(r.Results.byKey) {
			if !r.Results.Has(run) && !submitted[run.Key()] {
				todo = append(todo, run)
			}
		}
		if len(todo) == 0 && len(outstanding) == 0 {
			break
		}
		for _, run := range todo[:min(len(todo), maxOutstanding-len(outstanding))] {
			name, err := r.submit(ctx, run)
			if err != nil {
				return fmt.Errorf("run %s: %w", run.Key(), err)
			}
			outstanding[name], submitted[run.Key()] = run, true
		}

		jobs, err := r.Jobs.List(ctx, slices.Sorted(maps.Keys(outstanding)))
		if err != nil {
			return err
		}
		ended := 0
		for _, j := range jobs {
			run, ours := outstanding[j.Name]
			if status := fsm.Status(j.Status); !ours || status == fsm.Waiting || status == fsm.Running {
				continue
			}
			if err := r.endRun(t, run, j); err != nil {
				return err
			}
			delete(outstanding, j.Name)
			ended++
		}
		if ended > 0 && r.Finished != nil {
			r.Finished(t.done, t.total)
		}
		if ended > 0 || len(outstanding) == 0 {
			continue // there may be more to submit
		}
		select {
		case <-time.After(r.Poll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if t.failed > 0 {
		return fmt.Errorf("%d of %d runs have no result; the first: %s", t.failed, t.total, t.firstFailure)
	}
	return nil
}

// endRun adds the result of a run whose job has ended, or counts the run as failed.
func (r *Runner) endRun(t *tally, run Run, j *coordpb.Job) error {
	if fsm.Status(j.Status) != fsm.Finished {
		t.failed++
		if t.firstFailure == "" {
			t.firstFailure = fmt.Sprintf("%s is %s: %s", run.Key(), j.Status, j.Reason)
		}
		r.Logger.Error("run without a result", "run", run.Key(), "status", j.Status, "reason", j.Reason)
		return nil
	}
	x, err := resultOf(run, j)
	if err != nil {
		return fmt.Errorf("run %s: %w", run.Key(), err)
	}
	if err := r.Results.Add(x); err != nil {
		return err
	}
	t.done++
	r.Logger.Info("run finished",
		"run", run.Key(),
		"score", math.Round(100*x.Score)/100,
		"steps", x.Steps,
		"seconds", math.Round(10*x.Seconds)/10,
		"done", t.done,
		"of", t.total,
		"left", t.remaining())
	return nil
}

// remaining estimates the time until the end from that of the runs that have finished.
func (t *tally) remaining() time.Duration {
	perRun := float64(time.Since(t.started)) / float64(max(1, t.done-t.before))
	return time.Duration(perRun * float64(t.total-t.done)).Round(time.Second)
}

// submit queues a run and returns the name of its job: that of a job which waits, runs or has
// finished, or the next one that no failed or cancelled job has.
func (r *Runner) submit(ctx context.Context, run Run) (string, error) {
	names := make([]string, maxAttempts)
	for i := range names {
		names[i] = r.Prefix + run.Key()
		if i > 0 {
			names[i] += fmt.Sprintf(".%d", i+1)
		}
	}
	jobs, err := r.Jobs.List(ctx, names)
	if err != nil {
		return "", err
	}
	if len(jobs) == maxAttempts {
		return "", fmt.Errorf("%d attempts failed, the last: %s", maxAttempts, jobs[maxAttempts-1].Reason)
	}
	attempt := len(jobs)
	if attempt > 0 {
		last := fsm.Status(jobs[attempt-1].Status)
		if last != fsm.Failed && last != fsm.Cancelled {
			attempt--
		}
	}
	return names[attempt], r.Jobs.Submit(ctx, names[attempt], r.Grid.settings(run))
}

// resultOf reads a run's result out of its finished job.
func resultOf(run Run, j *coordpb.Job) (Result, error) {
	var spec job.Spec
	if err := json.Unmarshal(j.Spec, &spec); err != nil {
		return Result{}, fmt.Errorf("settings of job %s: %w", j.Id, err)
	}
	if j.Best == nil {
		return Result{}, fmt.Errorf("job %s has finished without an evaluation, want at least one", j.Id)
	}
	x := Result{
		Run:         run,
		Parameters:  int64(spec.Parameters),
		Score:       j.Best.Score,
		BestStep:    j.Best.Step,
		Steps:       j.Step,
		Budget:      j.TotalSteps,
		Seconds:     j.Seconds,
		JobID:       j.Id,
		StateDigest: j.StateDigest,
		Settings:    &spec,
	}
	if err := json.Unmarshal(j.Best.Metrics, &x.Metrics); err != nil {
		return Result{}, fmt.Errorf("metrics of job %s: %w", j.Id, err)
	}
	for _, e := range j.Evaluations {
		p := Evaluation{Step: e.Step, Score: e.Score, Loss: e.Loss}
		if len(e.Probe) > 0 {
			p.Probe = new(Probe)
			if err := json.Unmarshal(e.Probe, p.Probe); err != nil {
				return Result{}, fmt.Errorf("rank probe of job %s at step %d: %w", j.Id, e.Step, err)
			}
		}
		x.Evaluations = append(x.Evaluations, p)
	}
	return x, nil
}
