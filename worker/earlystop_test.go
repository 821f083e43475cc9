package worker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
)

// earlyStopSettings returns a job of 36 steps that is evaluated every second step, on data with the
// opposite labels of its training data: its evaluations soon become worse, and its patience runs
// out.
func earlyStopSettings(t *testing.T) job.Settings {
	t.Helper()
	s := settings()
	s.Data, s.Shots, s.Epochs, s.EvalEvery, s.Warmup, s.Patience = t.TempDir(), 0, 12, 2, 0, 4
	if err := os.Mkdir(filepath.Join(s.Data, "RTE"), 0o755); err != nil {
		t.Fatal(err)
	}
	for split, label := range map[string]string{"train": "entailment", "val": "not_entailment"} {
		var b bytes.Buffer
		for i := range 12 {
			fmt.Fprintf(&b, "{\"premise\":\"it is %d\",\"hypothesis\":\"so\",\"label\":%q,\"idx\":%d}\n", i, label, i)
		}
		if err := os.WriteFile(filepath.Join(s.Data, "RTE", split+".jsonl"), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// A job whose patience runs out ends with the same bits however it ran: on one worker, on two, with
// a stop of the coordinator in between, and with replicas whose leader is killed.
func TestEarlyStop(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := earlyStopSettings(t)
	prompt, job := undisturbed(t, s)
	if job.Status != "finished" || job.StoppedEarly == "" || job.Step >= job.Settings.Steps ||
		job.Step != job.PromptStep+2*int64(s.Patience) {
		t.Fatalf("job ended %s at step %d of %d with the best prompt of step %d (%s), "+
			"want it stopped four evaluations after the best",
			job.Status, job.Step, job.Settings.Steps, job.PromptStep, job.StoppedEarly)
	}
	t.Run("the schedule is that of all steps", func(t *testing.T) {
		whole := s
		whole.Patience, whole.EvalEvery = 0, 18
		c := startCoordinator(t, whole, 1, t.TempDir(), "")
		c.startWorker("a", nil)
		c.finish()
		var l outputs.StepLine
		lines := bytes.Split(readFile(t, c.out, "metrics.jsonl"), []byte("\n"))
		if err := json.Unmarshal(lines[job.Step-1], &l); err != nil {
			t.Fatal(err)
		}
		if l.Step != job.Step || l.StateDigest != job.StateDigest {
			t.Errorf("without patience step %d leads to state %s, stopped there to %s",
				l.Step, l.StateDigest, job.StateDigest)
		}
	})
	t.Run("restart", func(t *testing.T) {
		out := t.TempDir()
		c := startCoordinator(t, s, 2, out, "")
		c.startWorker("a", nil)
		c.startWorker("b", nil)
		c.awaitStep(ids.Step(job.PromptStep + 3)) // when some of its patience is used up
		c.stop()
		var stopped *coordinator.StoppedError
		if o := <-c.result; !errors.As(o.err, &stopped) {
			t.Fatalf("stopped coordinator returns %v, want a StoppedError", o.err)
		}
		next := startCoordinator(t, s, 2, out, c.addr)
		res := next.finish()
		next.mustEqual(prompt, job)
		evals := bytes.Split(bytes.TrimSpace(readFile(t, out, "eval.jsonl")), []byte("\n"))
		if last := evals[len(evals)-1]; !bytes.Contains(last, []byte(`"without_improvement":4`)) {
			t.Errorf("last evaluation is %s, want it to say that four are without an improvement", last)
		}
		if !strings.Contains(res.StoppedEarly, "4 evaluations in a row without an improvement") {
			t.Errorf("stopped early because %q", res.StoppedEarly)
		}
		again := startCoordinator(t, s, 2, out, "")
		if res := again.finish(); !res.AlreadyDone || res.StoppedEarly == "" {
			t.Errorf("the ended job again: %+v, want it done already, and early", res)
		}
		again.mustEqual(prompt, job)
	})
	t.Run("another leader", func(t *testing.T) {
		c := newReplicaSet(t, s, "a", "b", "c")
		c.startWorkers(2, nil)
		c.start("a", "b", "c")
		id := c.leads("")
		c.awaitStep(id, ids.Step(job.PromptStep+3))
		c.kill(id)
		c.leads(id)
		c.start(id)
		c.finish(prompt, job, "a", "b", "c")
	})
	t.Run("queue", func(t *testing.T) {
		c := startQueue(t, 1, t.TempDir(), "")
		c.startWorker("a", nil)
		c.submit("early", s)
		c.submit("whole", settings())
		j := c.await("early", "finished")
		if j.Step != job.Step || j.TotalSteps != job.Settings.Steps || j.StateDigest != job.StateDigest ||
			!strings.HasPrefix(j.Reason, "stopped early at step") {
			t.Errorf("job ended at step %d of %d because %q, want step %d", j.Step, j.TotalSteps, j.Reason, job.Step)
		}
		if j := c.await("whole", "finished"); j.Step != j.TotalSteps || j.Reason != "" {
			t.Errorf("the next job ended at step %d of %d because %q", j.Step, j.TotalSteps, j.Reason)
		}
	})
}
