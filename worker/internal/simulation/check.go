package simulation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/outputs"
)

// Reference is what an undisturbed run ends with.
type Reference struct {
	Steps   []fsm.StepRecord // by step, from 1
	History string           // digest over all steps
	Prompt  []byte           // prompt.safetensors
}

func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faultLocked(format, args...)
}

// faultLocked notes something that must not be.
func (w *world) faultLocked(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.report.Violations = append(w.report.Violations, text)
	w.noteLocked("VIOLATION: %s", text)
}

func (w *world) total() ids.Step {
	if w.Reference == nil {
		return 0
	}
	return ids.Step(len(w.Reference.Steps))
}

// started is called when a live coordinator has read its log as far as it knows it to be committed.
func (w *world) started(p *process, step ids.Step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead || w.over {
		return
	}
	p.step = step
	w.noteLocked("%v goes on after step %d", p, step)
}

// generation is called when a live coordinator has started a ring.
func (w *world) generation(p *process, g ids.Generation, workers int, after ids.Step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead || w.over {
		return
	}
	w.leader = p.name
	if after < w.known {
		w.faultLocked("%v starts generation %d after step %d, but step %d was made known as committed", p, g, after, w.known)
	}
	if g <= w.ring {
		w.faultLocked("%v starts generation %d after generation %d", p, g, w.ring)
	}
	if q := w.dealer; q != nil {
		// Steps that were dealt out and are not committed are done again.
		if redone, most := q.after+q.plans-after, ids.Step(w.plan.CommitEvery)+ids.Step(w.plan.CommitWindow); redone > most {
			w.faultLocked("%v starts generation %d after step %d: %d steps of generation %d are done again, want at most %d", p, g, after, redone, w.ring, most)
		} else {
			w.report.Redone += max(0, int(redone))
			w.report.Most = max(w.report.Most, int(redone))
		}
	}
	w.dealer, p.after, p.plans = p, after, 0
	w.ring = g
	w.noteLocked("%v starts generation %d of %d workers after step %d", p, g, workers, after)
}

// committed is called when a live coordinator makes a committed step known.
func (w *world) committed(p *process, r fsm.StepRecord) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead || w.over {
		return
	}
	w.noteLocked("%v commits step %d of generation %d with state %s", p, r.Step, r.Generation, r.StateDigest.Short())
	if r.Step != p.step+1 {
		w.faultLocked("%v makes step %d known after step %d", p, r.Step, p.step)
	}
	p.step = r.Step
	first, seen := w.steps[r.Step]
	if !seen {
		w.steps[r.Step] = r
	} else if first.StateDigest != r.StateDigest || first.BatchDigest != r.BatchDigest || first.Generation != r.Generation {
		w.faultLocked("%v: step %d has state %s of generation %d, it was committed with %s of generation %d", p, r.Step, r.StateDigest.Short(), r.Generation,
			first.StateDigest.Short(), first.Generation)
	}
	w.known = max(w.known, r.Step)
	if w.Reference == nil {
		return
	}
	if r.Step > w.total() {
		w.faultLocked("%v: step %d of %d", p, r.Step, w.total())
		return
	}
	want := w.Reference.Steps[r.Step-1]
	if r.StateDigest != want.StateDigest || r.BatchDigest != want.BatchDigest || r.LossSum != want.LossSum || r.Tokens != want.Tokens {
		w.faultLocked("%v: step %d has state %s, batch %s, loss %v; the undisturbed run has %s, %s, %v", p, r.Step, r.StateDigest.Short(), r.BatchDigest.Short(), r.LossSum,
			want.StateDigest.Short(), want.BatchDigest.Short(), want.LossSum)
	}
}

// judge compares what the job left with the undisturbed run.
func (w *world) judge(p *process) {
	ref, err := w.read(p)
	if err != nil {
		w.fault("%v: outputs: %v", p, err)
		return
	}
	w.report.Reference = ref
	want := w.Reference
	if want == nil {
		return
	}
	if ref.History != want.History {
		w.fault("%v: history %s, the undisturbed run has %s", p, ref.History, want.History)
	}
	if !bytes.Equal(ref.Prompt, want.Prompt) {
		w.fault("%v: prompt.safetensors differs from the undisturbed run's", p)
	}
	if last := want.Steps[len(want.Steps)-1].StateDigest; p.result.StateDigest != last {
		w.fault("%v: final state %s, the undisturbed run has %s", p, p.result.StateDigest.Short(), last.Short())
	}
}

// read reads and checks what a finished job has written.
func (w *world) read(p *process) (*Reference, error) {
	var job outputs.JobFile
	data, err := os.ReadFile(filepath.Join(p.out, "job.json"))
	if err == nil {
		err = json.Unmarshal(data, &job)
	}
	if err != nil {
		return nil, err
	}
	if !job.Finished || job.StateDigest != p.result.StateDigest.String() {
		return nil, fmt.Errorf("job.json says finished %v with state %s, want true and %s", job.Finished, job.StateDigest, p.result.StateDigest)
	}
	ref := &Reference{History: job.HistoryDigest}
	if ref.Prompt, err = os.ReadFile(filepath.Join(p.out, "prompt.safetensors")); err != nil {
		return nil, err
	}
	if data, err = os.ReadFile(filepath.Join(p.out, "metrics.jsonl")); err != nil {
		return nil, err
	}
	seen := map[string]int{}
	for i, raw := range bytes.Split(bytes.TrimSpace(data), []byte("\n")) {
		var l outputs.StepLine
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, fmt.Errorf("metrics.jsonl, line %d: %w", i+1, err)
		}
		if l.Step != int64(i+1) {
			return nil, fmt.Errorf("metrics.jsonl, line %d is of step %d", i+1, l.Step)
		}
		for _, id := range l.Examples {
			seen[fmt.Sprintf("%d/%s", l.Epoch, id)]++
		}
		if r, ok := w.steps[ids.Step(l.Step)]; ok {
			if r.StateDigest.String() != l.StateDigest {
				return nil, fmt.Errorf("metrics.jsonl has step %d with state %s, it was committed with %s", l.Step, l.StateDigest, r.StateDigest)
			}
			ref.Steps = append(ref.Steps, r)
		}
	}
	for id, n := range seen {
		if n != 1 {
			return nil, fmt.Errorf("epoch and example %s applied %d times, want once", id, n)
		}
	}
	if want := job.Settings.TrainExamples * job.Settings.Epochs; len(seen) != want {
		return nil, fmt.Errorf("%d examples applied in all epochs together, want %d", len(seen), want)
	}
	return ref, nil
}
