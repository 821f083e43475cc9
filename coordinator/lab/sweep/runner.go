package sweep

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
)

// Jobs is a coordinator's queue. Both calls wait while no coordinator can be reached.
type Jobs interface {
	// Submit queues a job; one that is there already, by name and settings, is left as it is.
	Submit(ctx context.Context, name string, s job.Settings) error
	// List gives the jobs of these names, those that are there, with their evaluations.
	List(ctx context.Context, names []string) ([]*coordpb.Job, error)
}

// Runner runs a grid through a coordinator's queue.
type Runner struct {
	Jobs     Jobs
	Grid     Grid
	Prefix   string // of the jobs' names: sweeps that share a coordinator need different ones
	Results  *Results
	Logger   *slog.Logger
	Poll     time.Duration         // between looks at the queue
	Finished func(done, total int) // after every run that has ended; may be nil
}

const (
	// maxOutstanding bounds the runs that wait in the queue at a time.
	maxOutstanding = 256
	// maxAttempts bounds how often a run that failed or was cancelled is tried again, once by each start of the sweep.
	maxAttempts = 100
)

// Run runs what the results lack, in the grid's order, and adds a result for each. A run that fails or is cancelled is left out and the others go on;
// the error then says so at the end, and the next call tries it again.
func (r *Runner) Run(ctx context.Context) error {
	total := r.Grid.Total()
	begun := r.Results.Len()
	r.Logger.Info("sweep", "preset", r.Grid.Preset, "runs", total, "done", begun)
	names := map[string]Run{}  // outstanding
	asked := map[string]bool{} // by key: outstanding, or without a result
	failed, why := 0, ""       // runs without a result, and the first of them
	since, done := time.Now(), begun
	for {
		var todo []Run
		for _, run := range r.Grid.Due(r.Results.have) {
			if !r.Results.Has(run) && !asked[run.Key()] {
				todo = append(todo, run)
			}
		}
		if len(todo) == 0 && len(names) == 0 {
			break
		}
		for len(todo) > 0 && len(names) < maxOutstanding {
			name, err := r.submit(ctx, todo[0])
			if err != nil {
				return fmt.Errorf("run %s: %w", todo[0].Key(), err)
			}
			names[name], asked[todo[0].Key()], todo = todo[0], true, todo[1:]
		}
		list := make([]string, 0, len(names))
		for n := range names {
			list = append(list, n)
		}
		jobs, err := r.Jobs.List(ctx, list)
		if err != nil {
			return err
		}
		ended := 0
		for _, j := range jobs {
			run, ours := names[j.Name]
			switch status := fsm.Status(j.Status); {
			case !ours || status == fsm.Waiting || status == fsm.Running:
				continue
			case status == fsm.Finished:
				x, err := result(run, j)
				if err != nil {
					return fmt.Errorf("run %s: %w", run.Key(), err)
				}
				if err := r.Results.Add(x); err != nil {
					return err
				}
				done++
				r.Logger.Info("run finished", "run", run.Key(), "score", math.Round(100*x.Score)/100, "steps", x.Steps, "seconds", math.Round(10*x.Seconds)/10, "done", done, "of", total,
					"left", left(time.Since(since), done-begun, total-done))
			default:
				failed++
				if why == "" {
					why = fmt.Sprintf("%s is %s: %s", run.Key(), j.Status, j.Reason)
				}
				r.Logger.Error("run without a result", "run", run.Key(), "status", j.Status, "reason", j.Reason)
			}
			delete(names, j.Name)
			ended++
		}
		if ended > 0 && r.Finished != nil {
			r.Finished(done, total)
		}
		if ended > 0 || len(names) == 0 {
			continue
		}
		select {
		case <-time.After(r.Poll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d runs have no result; the first: %s", failed, total, why)
	}
	return nil
}

// left estimates the time for `more` runs from what `done` ones have taken.
func left(took time.Duration, done, more int) time.Duration {
	return time.Duration(float64(took) / float64(max(1, done)) * float64(more)).Round(time.Second)
}

// submit queues a run under the first name of its own that no failed or cancelled attempt bears.
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
	if attempt > 0 && jobs[attempt-1].Status != string(fsm.Failed) && jobs[attempt-1].Status != string(fsm.Cancelled) {
		attempt-- // it waits, runs, or has finished since the results were written
	}
	return names[attempt], r.Jobs.Submit(ctx, names[attempt], r.Grid.settings(run))
}

// result reads a run's result out of its finished job.
func result(run Run, j *coordpb.Job) (Result, error) {
	var spec job.Spec
	if err := json.Unmarshal(j.Spec, &spec); err != nil {
		return Result{}, fmt.Errorf("settings of job %s: %w", j.Id, err)
	}
	if j.Best == nil {
		return Result{}, fmt.Errorf("job %s has finished without an evaluation, want at least one", j.Id)
	}
	x := Result{Run: run, Parameters: int64(spec.Parameters), Score: j.Best.Score, BestStep: j.Best.Step, Steps: j.Step, Budget: j.TotalSteps, Seconds: j.Seconds, Settings: &spec, JobID: j.Id, StateDigest: j.StateDigest}
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
