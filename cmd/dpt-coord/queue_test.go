package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator/lab/sweep"
	"github.com/dptune/dpt/dataset/mini"
)

// TestSweepSurvivesKills kills a sweep on its way, workers and coordinator with it, and stops it
// cleanly once: the same command goes on, and every run ends with the bits of an undisturbed sweep.
func TestSweepSurvivesKills(t *testing.T) {
	if testing.Short() {
		t.Skip("two sweeps: skipped with -short")
	}
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "data") // a small split to evaluate on
	if err := os.CopyFS(data, mini.New(mini.Seed, mini.Sizes{Train: 64, Val: 1, Test: 1})); err != nil {
		t.Fatal(err)
	}
	args := func(out string) []string {
		return []string{
			"sweep", "--preset", "custom", "--data", data, "--models", tinyModel,
			"--tasks", "cb,wic", "--methods", "dpt,pt", "--seeds", "1,2",
			"--prompt-lengths", "3", "--bottlenecks", "2", "--shots", "12", "--nodes", "2",
			"--batch-size", "4", "--epochs", "4", "--eval-every", "6", "--eval-split", "train",
			"--max-source-length", "24", "--max-target-length", "2", "--out", out,
		}
	}
	stopped := regexp.MustCompile(`stopped by signal: terminated; [3-8] of 8 runs are finished, and the same command ` +
		`goes on from there: dpt sweep --preset custom`)
	calm := start(t, "dpt", args(filepath.Join(dir, "calm"))...)
	out := filepath.Join(dir, "sweep")
	results := filepath.Join(out, sweep.File)
	for i, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		after := countLines(results) + 1 + i // the killed run may have finished one more
		p := start(t, "dpt", args(out)...)
		for countLines(results) < after {
			select {
			case err := <-p.done:
				t.Fatalf("the sweep ended by itself: %v: %s", err, p.stderr.String())
			case <-time.After(5 * time.Millisecond):
			}
		}
		if err := p.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := <-p.done; err == nil {
			t.Errorf("the sweep ended well after %v", signal)
		}
		log := p.stderr.String()
		if signal == syscall.SIGTERM && (!stopped.MatchString(log) || !strings.Contains(log, " left=")) {
			t.Errorf("stopped, the sweep says %q", log)
		}
	}
	p := start(t, "dpt", args(out)...)
	if err := <-p.done; err != nil {
		t.Fatalf("%v: %s", err, p.stderr.String())
	}
	if err := <-calm.done; err != nil {
		t.Fatalf("undisturbed: %v: %s", err, calm.stderr.String())
	}
	if want := filepath.Join(out, "report.md"); strings.TrimSpace(p.stdout.String()) != want {
		t.Errorf("printed %q, want %q", p.stdout.String(), want)
	}
	want, err := sweep.Read(filepath.Dir(strings.TrimSpace(calm.stdout.String())))
	if err != nil {
		t.Fatal(err)
	}
	got, err := sweep.Read(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 8 || len(want) != 8 {
		t.Fatalf("%d results after kills and %d without, want 8 each", len(got), len(want))
	}
	for i, r := range got {
		if r.Key != want[i].Key || r.StateDigest != want[i].StateDigest || r.Score != want[i].Score || r.Steps != 12 ||
			len(r.Evaluations) != 3 {
			t.Errorf("run %d: %+v, undisturbed %+v", i, r, want[i])
		}
	}
	text, err := os.ReadFile(filepath.Join(out, "report.md"))
	if err != nil || !strings.Contains(string(text), "8 of 8 runs are finished") {
		t.Errorf("report (%v): %s", err, text)
	}
	// Again: nothing is left to do.
	again := start(t, "dpt", args(out)...)
	if err := <-again.done; err != nil || countLines(results) != 8 {
		t.Errorf("the finished sweep again: %v, %d results: %s", err, countLines(results), again.stderr.String())
	}
	other := start(t, "dpt", append(args(out), "--seeds", "3")...)
	if err := <-other.done; err == nil || !strings.Contains(other.stderr.String(), "holds another sweep") {
		t.Errorf("another sweep in the same directory: %v: %s", err, other.stderr.String())
	}
}

// TestServe queues jobs on a coordinator by dpt submit, lists and cancels them.
func TestServe(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	c := start(t, "dpt-coord", "--serve", "--local", "--nodes", "1", "--listen", "127.0.0.1:0", "--out", out)
	addr := workerAddrOf(t, c)
	dpt := func(args ...string) (string, error) {
		p := start(t, "dpt", append(args[:1:1], append([]string{"--coord", addr}, args[1:]...)...)...)
		err := <-p.done
		return p.stdout.String() + p.stderr.String(), err
	}
	job := smallJob("")
	job = job[:len(job)-2] // without --out
	// The first job runs, or is about to, when it is cancelled; the other two wait behind it until
	// then.
	for _, j := range []struct{ name, steps string }{{"long", "1000000"}, {"unwanted", "1000000"}, {"short", "3"}} {
		if text, err := dpt(append([]string{"submit", "--name", j.name, "--steps", j.steps}, job...)...); err != nil {
			t.Fatalf("submit %s: %v: %s", j.name, err, text)
		}
	}
	for _, name := range []string{"unwanted", "long"} {
		if text, err := dpt("cancel", name); err != nil || text != name+" is cancelled\n" {
			t.Errorf("cancel %s: %v: %s", name, err, text)
		}
	}
	finished := regexp.MustCompile(`(?m)^short +finished +3/3 `)
	cancelled := regexp.MustCompile(`(?m)^(long|unwanted) +cancelled `)
	var status string
	for !finished.MatchString(status) {
		var err error
		if status, err = dpt("status"); err != nil {
			t.Fatalf("status: %v: %s", err, status)
		}
		time.Sleep(50 * time.Millisecond)
	}
	ready := strings.Contains(status, "1 workers are ready") || strings.Contains(status, "0 workers are ready")
	if len(cancelled.FindAllString(status, -1)) != 2 || !ready {
		t.Errorf("status:\n%s", status)
	}
	if text, err := dpt("status", "--json", "short"); err != nil || !strings.Contains(text, `"status":"finished"`) ||
		strings.Count(text, "\n") != 1 {
		t.Errorf("status as JSON: %v: %s", err, text)
	}
	if text, err := dpt("submit", "--name", "short", "--task", "rte"); err == nil ||
		!strings.Contains(text, "with other settings") {
		t.Errorf("submit a name again: %v: %s", err, text)
	}
	if _, err := os.Stat(filepath.Join(out, "short", "prompt.safetensors")); err != nil {
		t.Error(err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-c.done; err != nil {
		t.Errorf("stopped: %v: %s", err, c.stderr.String())
	}
	p := start(t, "dpt-coord", "--serve", "--task", "rte")
	if err := <-p.done; err == nil || !strings.Contains(p.stderr.String(), "--serve with --task") {
		t.Errorf("--serve with a job's flag: %v: %s", err, p.stderr.String())
	}
}
