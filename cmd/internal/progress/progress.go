// Package progress shows a job's progress to people: as a bar on a terminal, or as log lines.
package progress

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/tiny"
)

// lineInterval is the least time between two steps that Lines logs.
const lineInterval = 5 * time.Second

// Lines reports by log lines: the first step, then one every few seconds, every evaluation, and the
// last step. One goroutine at a time calls its methods.
type Lines struct {
	Logger *slog.Logger

	total ids.Step  // steps of the job
	first ids.Step  // the step after which this run began
	since time.Time // when this run began
	last  time.Time // when the last step was logged
}

// Start implements coordinator.Reporter.
func (l *Lines) Start(spec job.Spec, step, total ids.Step) {
	l.total, l.first, l.since = total, step, time.Now()
	l.Logger.Info("job", "task", spec.Task, "model", tiny.NameOf(spec.Model), "method", spec.Method,
		"parameters", spec.Parameters, "examples", spec.TrainExamples, "batch", spec.BatchSize, "steps", total)
}

// Generation implements coordinator.Reporter.
func (l *Lines) Generation(ids.Generation, int, ids.Step) {}

// Step implements coordinator.Reporter.
func (l *Lines) Step(r fsm.StepRecord, epoch int64, tokensPerSecond float64) {
	now := time.Now()
	if r.Step != l.first+1 && r.Step != l.total && now.Sub(l.last) < lineInterval {
		return
	}
	l.last = now
	l.Logger.Info("step", "step", r.Step, "of", l.total, "epoch", epoch,
		"loss", round(r.Loss(), 4), "lr", round(r.LearningRate, 5), "grad_norm", round(r.GradNorm, 4),
		"tokens_per_s", int64(tokensPerSecond), "left", remaining(l.since, r.Step-l.first, l.total-r.Step))
}

// Evaluating implements coordinator.Reporter.
func (l *Lines) Evaluating(ids.Step, int) {}

// Evaluated implements coordinator.Reporter.
func (l *Lines) Evaluated(int, int) {}

// Evaluation implements coordinator.Reporter.
func (l *Lines) Evaluation(e fsm.Evaluation, best bool) {
	l.Logger.Info("evaluation", "step", e.Step, "split", e.Split,
		"loss", round(e.Loss, 4), "metrics", string(e.Metrics), "best", best)
}

// Stop implements coordinator.Reporter.
func (l *Lines) Stop() {}

// Bar reports by a progress bar on a terminal. One goroutine at a time calls its methods; any
// goroutine may use the writer of Above.
type Bar struct {
	W io.Writer

	bar  atomic.Pointer[progressbar.ProgressBar] // nil before Start and after Stop; Above's writer reads it too
	eval string                                  // the last evaluation, for the description
}

// Above returns a writer for log lines, which go above the bar.
func (b *Bar) Above() io.Writer { return above{b} }

type above struct{ b *Bar }

// Write implements io.Writer. The bar is drawn again with its next change.
func (a above) Write(p []byte) (int, error) {
	if bar := a.b.bar.Load(); bar != nil {
		_ = bar.Clear()
	}
	return a.b.W.Write(p)
}

// Start implements coordinator.Reporter.
func (b *Bar) Start(spec job.Spec, step, total ids.Step) {
	bar := progressbar.NewOptions64(int64(total),
		progressbar.OptionSetWriter(b.W),
		progressbar.OptionSetDescription("waiting for workers"),
		progressbar.OptionShowCount(),
		progressbar.OptionSetItsString("step"),
		progressbar.OptionShowIts(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionFullWidth(),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(b.W) }))
	_ = bar.Set64(int64(step)) // drawing may fail; training goes on
	b.bar.Store(bar)
}

// Generation implements coordinator.Reporter.
func (b *Bar) Generation(_ ids.Generation, workers int, _ ids.Step) {
	b.bar.Load().Describe(fmt.Sprintf("%d workers", workers))
}

// Step implements coordinator.Reporter.
func (b *Bar) Step(r fsm.StepRecord, epoch int64, tokensPerSecond float64) {
	b.bar.Load().Describe(fmt.Sprintf("epoch %d  loss %.4f  %.0f tokens/s%s", epoch, r.Loss(), tokensPerSecond, b.eval))
	_ = b.bar.Load().Set64(int64(r.Step))
}

// Evaluating implements coordinator.Reporter.
func (b *Bar) Evaluating(step ids.Step, examples int) {
	b.bar.Load().Describe(fmt.Sprintf("evaluating step %d: %d examples", step, examples))
}

// Evaluated implements coordinator.Reporter.
func (b *Bar) Evaluated(done, examples int) {
	b.bar.Load().Describe(fmt.Sprintf("evaluating: %d of %d", done, examples))
}

// Evaluation implements coordinator.Reporter.
func (b *Bar) Evaluation(e fsm.Evaluation, best bool) {
	b.eval = fmt.Sprintf("  %s %.1f", e.Split, e.Score)
	if best {
		b.eval += " (best)"
	}
}

// Stop implements coordinator.Reporter.
func (b *Bar) Stop() {
	_ = b.bar.Load().Exit()
	b.bar.Store(nil)
}

// round rounds v to a number of digits after the point.
func round(v float64, digits int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'f', digits, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// remaining estimates the time for `left` more steps from the time that `done` took.
func remaining(since time.Time, done, left ids.Step) time.Duration {
	if done <= 0 {
		return 0
	}
	// In floating point: hours in nanoseconds times a million steps do not fit an int64.
	return time.Duration(float64(time.Since(since)) / float64(done) * float64(left)).Round(time.Second)
}
