package pretrain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/optim"
)

// Options of Run.
type Options struct {
	Settings Settings
	Corpus   Corpus
	// Dir is the model directory to write. It also holds the state of an unfinished run, with which
	// Run continues.
	Dir  string
	BF16 bool // write the weights in bfloat16; training keeps float32

	Workers int // engines that compute at a time
	// Engine opens an engine of one thread.
	Engine func() (engine.Engine, error)

	LogEvery   int64         // steps between two reports
	EvalEvery  int64         // steps between two evaluations; 0 is none
	EvalPairs  int           // held-out examples of each evaluation
	SaveEvery  time.Duration // between two writes of the state and the model; both are also written at the end
	Log        *slog.Logger
	Report     func(Report)     // may be nil
	Evaluation func(Evaluation) // may be nil
}

// Report sums up the steps since the last report.
type Report struct {
	Step, Steps int64
	Loss        float64 // mean of target tokens
	Norm        float64 // of the last step's gradient, before clipping
	Factor      float64 // of the learning rate
	Tokens      int64   // source and target tokens since the run's beginning
	PerSecond   float64 // tokens per second since the last report
	Left        time.Duration
}

// Run trains for the settings' steps. If ctx ends before, it saves its state and returns ctx's
// error. If o.Dir holds a finished state, it only writes the model.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.Settings.Validate(); err != nil {
		return err
	}
	if o.Workers < 1 {
		return fmt.Errorf("%d workers, want 1 or more", o.Workers)
	}
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return fmt.Errorf("make %s: %w", o.Dir, err)
	}
	s := &state{State: *optim.NewState(initial(o.Settings))}
	w, err := newWorkers(o.Settings, o.Workers, o.Engine, s.Params)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	id := identity{o.Settings, o.Corpus.Name, w.engines[0].Numerics()}
	was, err := load(o.Dir, id)
	if err != nil {
		return err
	}
	if was != nil {
		s = was
		o.Log.Info("goes on where it was", "step", s.Step, "steps", o.Settings.Steps)
		if err := w.set(s.Params); err != nil {
			return err
		}
	}
	r := &run{Options: o, id: id, s: s, w: w}
	if err := r.train(ctx); err != nil {
		return err
	}
	return r.save()
}

// run is a run in progress.
type run struct {
	Options
	id identity
	s  *state
	w  *workers

	saved time.Time
	since interval
}

// interval sums up the steps since the last report.
type interval struct {
	start  time.Time
	loss   float64
	target int
	tokens int64
	steps  int64
}

func (r *run) train(ctx context.Context) error {
	r.saved, r.since = time.Now(), interval{start: time.Now()}
	for r.s.Step < r.Settings.Steps {
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), r.save())
		}
		if err := r.step(); err != nil {
			return fmt.Errorf("step %d: %w", r.s.Step, err)
		}
		last := r.s.Step == r.Settings.Steps
		if r.EvalEvery > 0 && (last || r.s.Step%r.EvalEvery == 0) {
			if err := r.evaluate(); err != nil {
				return fmt.Errorf("evaluate after step %d: %w", r.s.Step, err)
			}
		}
		if time.Since(r.saved) >= r.SaveEvery && !last {
			if err := r.save(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) step() error {
	b := r.Corpus.batch(r.Settings, r.s.at)
	loss, err := r.w.gradient(b)
	if err != nil {
		return err
	}
	factor := r.Settings.factor(r.s.Step)
	norm, err := r.w.update(&r.s.State, factor)
	if err != nil {
		return err
	}
	if err := r.w.set(r.s.Params); err != nil {
		return err
	}
	r.s.at, r.s.tokens = b.next, r.s.tokens+int64(b.tokens)
	i := &r.since
	i.loss, i.target, i.tokens, i.steps = i.loss+loss, i.target+b.target, i.tokens+int64(b.tokens), i.steps+1
	if r.Report != nil && (r.s.Step%r.LogEvery == 0 || r.s.Step == r.Settings.Steps) {
		took := time.Since(i.start)
		r.Report(Report{
			Step:      r.s.Step,
			Steps:     r.Settings.Steps,
			Loss:      i.loss / float64(i.target),
			Norm:      norm,
			Factor:    factor,
			Tokens:    r.s.tokens,
			PerSecond: float64(i.tokens) / took.Seconds(),
			Left:      time.Duration(float64(took) / float64(i.steps) * float64(r.Settings.Steps-r.s.Step)),
		})
		*i = interval{start: time.Now()}
	}
	return nil
}

// save writes the state and the model.
func (r *run) save() error {
	if err := r.s.save(r.Dir, r.id); err != nil {
		return err
	}
	r.saved = time.Now()
	return writeModel(r.Dir, r.Settings, r.s.Params, r.BF16)
}
