package simulation

import (
	"bytes"
	"fmt"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/worker/internal/joboutputs"
)

// The checker: it compares what coordinators make known, and what the job leaves, with the
// undisturbed run.

// Reference is what an undisturbed run ends with.
type Reference struct {
	Steps   []fsm.StepRecord // by step, from 1
	History string           // digest over all steps
	Prompt  []byte           // prompt.safetensors
}

// violation reports that the cluster did what it must not do.
func (w *world) violation(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violationLocked(format, args...)
}

func (w *world) violationLocked(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.report.Violations = append(w.report.Violations, text)
	w.recordLocked("VIOLATION: %s", text)
}

// totalSteps returns the number of steps of the job, 0 in the run that makes the reference.
func (w *world) totalSteps() ids.Step {
	if w.Reference == nil {
		return 0
	}
	return ids.Step(len(w.Reference.Steps))
}

// checkStart is called when a coordinator has applied its log up to what it knows to be committed.
func (w *world) checkStart(p *process, step ids.Step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead || w.shuttingDown {
		return
	}
	p.lastKnown = step
	w.recordLocked("%v goes on after step %d", p, step)
}

// checkGeneration is called when a coordinator has started a generation after a step.
func (w *world) checkGeneration(p *process, g ids.Generation, workers int, after ids.Step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead || w.shuttingDown {
		return
	}
	w.leader = p.name
	if after < w.lastKnown {
		w.violationLocked("%v starts generation %d after step %d, but step %d was made known as committed",
			p, g, after, w.lastKnown)
	}
	if g <= w.lastGeneration {
		w.violationLocked("%v starts generation %d after generation %d", p, g, w.lastGeneration)
	}

	// Steps that were dealt out and are not committed are done again.
	if q := w.lastDealer; q != nil {
		redone := q.generationStart + q.plansDealt - after
		most := ids.Step(w.plan.CommitEvery) + ids.Step(w.plan.CommitWindow)
		if redone > most {
			w.violationLocked(
				"%v starts generation %d after step %d: %d steps of generation %d are done again, want at most %d",
				p, g, after, redone, w.lastGeneration, most)
		} else {
			w.report.Redone += max(0, int(redone))
			w.report.MostRedone = max(w.report.MostRedone, int(redone))
		}
	}
	w.lastDealer, p.generationStart, p.plansDealt = p, after, 0
	w.lastGeneration = g
	w.recordLocked("%v starts generation %d of %d workers after step %d", p, g, workers, after)
}

// checkCommit is called when a coordinator makes a committed step known.
func (w *world) checkCommit(p *process, r fsm.StepRecord) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead || w.shuttingDown {
		return
	}
	w.recordLocked("%v commits step %d of generation %d with state %s",
		p, r.Step, r.Generation, r.StateDigest.Short())

	// The process makes steps known in order, and every process the same ones.
	if r.Step != p.lastKnown+1 {
		w.violationLocked("%v makes step %d known after step %d", p, r.Step, p.lastKnown)
	}
	p.lastKnown = r.Step
	first, seen := w.steps[r.Step]
	if !seen {
		w.steps[r.Step] = r
	} else if first.StateDigest != r.StateDigest || first.BatchDigest != r.BatchDigest ||
		first.Generation != r.Generation {
		w.violationLocked("%v: step %d has state %s of generation %d, it was committed with %s of generation %d",
			p, r.Step, r.StateDigest.Short(), r.Generation, first.StateDigest.Short(), first.Generation)
	}
	w.lastKnown = max(w.lastKnown, r.Step)

	// They are the undisturbed run's.
	if w.Reference == nil {
		return
	}
	if r.Step > w.totalSteps() {
		w.violationLocked("%v: step %d of %d", p, r.Step, w.totalSteps())
		return
	}
	want := w.Reference.Steps[r.Step-1]
	if r.StateDigest != want.StateDigest || r.BatchDigest != want.BatchDigest ||
		r.LossSum != want.LossSum || r.Tokens != want.Tokens {
		w.violationLocked("%v: step %d has state %s, batch %s, loss %v; the undisturbed run has %s, %s, %v",
			p, r.Step, r.StateDigest.Short(), r.BatchDigest.Short(), r.LossSum,
			want.StateDigest.Short(), want.BatchDigest.Short(), want.LossSum)
	}
}

// checkOutputs compares the outputs of the coordinator that finished the job with the undisturbed
// run's.
func (w *world) checkOutputs(p *process) {
	ref, err := w.readOutputs(p)
	if err != nil {
		w.violation("%v: outputs: %v", p, err)
		return
	}
	w.report.Reference = ref
	want := w.Reference
	if want == nil {
		return
	}
	if ref.History != want.History {
		w.violation("%v: history %s, the undisturbed run has %s", p, ref.History, want.History)
	}
	if !bytes.Equal(ref.Prompt, want.Prompt) {
		w.violation("%v: prompt.safetensors differs from the undisturbed run's", p)
	}
	if last := want.Steps[len(want.Steps)-1].StateDigest; p.result.StateDigest != last {
		w.violation("%v: final state %s, the undisturbed run has %s",
			p, p.result.StateDigest.Short(), last.Short())
	}
}

// readOutputs reads and checks the outputs of the coordinator that finished the job.
func (w *world) readOutputs(p *process) (*Reference, error) {
	o, err := joboutputs.Read(p.out)
	if err != nil {
		return nil, err
	}
	if want := p.result.StateDigest.String(); o.Job.StateDigest != want {
		return nil, fmt.Errorf("job.json has state %s, want %s", o.Job.StateDigest, want)
	}
	ref := &Reference{History: o.Job.HistoryDigest, Prompt: o.Prompt}
	for _, l := range o.Steps {
		r, ok := w.steps[ids.Step(l.Step)]
		if !ok {
			continue // no live process has made it known
		}
		if r.StateDigest.String() != l.StateDigest {
			return nil, fmt.Errorf("metrics.jsonl has step %d with state %s, it was committed with %s",
				l.Step, l.StateDigest, r.StateDigest)
		}
		ref.Steps = append(ref.Steps, r)
	}
	return ref, nil
}
