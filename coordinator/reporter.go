package coordinator

import (
	"sync"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
)

// Reporter is told how the job goes. Calls come one at a time and must not block. Generation,
// Evaluating and Evaluated come only while this replica leads; calls that belong to the leader may
// come between any others.
type Reporter interface {
	outputs.Reporter
	Generation(g ids.Generation, workers int, after ids.Step)
	Evaluating(step ids.Step, examples int)
	Evaluated(done, examples int)
}

// Silent reports nothing.
type Silent struct{}

// Start implements Reporter.
func (Silent) Start(job.Spec, ids.Step, ids.Step) {}

// Generation implements Reporter.
func (Silent) Generation(ids.Generation, int, ids.Step) {}

// Step implements Reporter.
func (Silent) Step(fsm.StepRecord, int64, float64) {}

// Evaluating implements Reporter.
func (Silent) Evaluating(ids.Step, int) {}

// Evaluated implements Reporter.
func (Silent) Evaluated(int, int) {}

// Evaluation implements Reporter.
func (Silent) Evaluation(fsm.Evaluation, bool) {}

// Stop implements Reporter.
func (Silent) Stop() {}

// serialReporter passes reports on, one at a time: the recorder and the controller report from
// goroutines of their own.
type serialReporter struct {
	mu sync.Mutex
	to Reporter
}

func (o *serialReporter) do(f func(Reporter)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f(o.to)
}

func (o *serialReporter) Start(spec job.Spec, step, total ids.Step) {
	o.do(func(r Reporter) { r.Start(spec, step, total) })
}

func (o *serialReporter) Generation(g ids.Generation, workers int, after ids.Step) {
	o.do(func(r Reporter) { r.Generation(g, workers, after) })
}

func (o *serialReporter) Step(rec fsm.StepRecord, epoch int64, tokensPerSecond float64) {
	o.do(func(r Reporter) { r.Step(rec, epoch, tokensPerSecond) })
}

func (o *serialReporter) Evaluating(step ids.Step, examples int) {
	o.do(func(r Reporter) { r.Evaluating(step, examples) })
}

func (o *serialReporter) Evaluated(done, examples int) {
	o.do(func(r Reporter) { r.Evaluated(done, examples) })
}

func (o *serialReporter) Evaluation(e fsm.Evaluation, best bool) {
	o.do(func(r Reporter) { r.Evaluation(e, best) })
}

func (o *serialReporter) Stop() { o.do(func(r Reporter) { r.Stop() }) }
