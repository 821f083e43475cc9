package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/lab/tinyrandom"
	"github.com/dptune/dpt/worker"
)

// A whole cluster in one process: a coordinator with its raft log on disk, and workers that talk to it and to each
// other over loopback.

// settings is a job that takes about a second: a small random model, the embedded data, a short prompt, few examples.
func settings() job.Settings {
	s := job.DefaultSettings()
	s.Model, s.Task, s.PromptLength, s.Bottleneck, s.Shots, s.Epochs, s.BatchSize, s.MicroBatch = tinyModel, "rte", 5, 2, 12, 2, 4, 1
	s.MaxSourceLength, s.MaxTargetLength, s.EvalEvery = 20, 3, -1
	return s
}

type cluster struct {
	t      *testing.T
	out    string
	addr   string
	stop   context.CancelFunc
	result chan outcome
	wg     sync.WaitGroup
	steps  chan ids.Step // committed steps as they come
	logged chan string   // the coordinator's log messages
}

type outcome struct {
	res *coordinator.Result
	err error
}

// watch tells a test about committed steps.
type watch struct {
	coordinator.Silent
	steps chan ids.Step
}

func (w watch) Step(r fsm.StepRecord, _ int64, _ float64) {
	select {
	case w.steps <- r.Step:
	default:
	}
}

func testLogger(t *testing.T, name string, tell chan<- string) *slog.Logger {
	var w io.Writer = io.Discard
	if testing.Verbose() {
		w = os.Stderr
	}
	return slog.New(&teller{slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}), tell}).With("as", name)
}

// teller passes log messages on to a test.
type teller struct {
	slog.Handler
	tell chan<- string
}

func (h *teller) Handle(ctx context.Context, r slog.Record) error {
	select {
	case h.tell <- r.Message:
	default:
	}
	return h.Handler.Handle(ctx, r)
}

func (h *teller) WithAttrs(as []slog.Attr) slog.Handler {
	return &teller{h.Handler.WithAttrs(as), h.tell}
}
func (h *teller) WithGroup(name string) slog.Handler {
	return &teller{h.Handler.WithGroup(name), h.tell}
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// startCoordinator runs a coordinator on out; addr "" is a free port.
func startCoordinator(t *testing.T, s job.Settings, nodes int, out, addr string) *cluster {
	t.Helper()
	return startCoordinatorWith(t, s, nodes, out, addr, func(*coordinator.Config) {})
}

func startCoordinatorWith(t *testing.T, s job.Settings, nodes int, out, addr string, change func(*coordinator.Config)) *cluster {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l := listen(t, addr)
	ctx, stop := context.WithCancel(context.Background())
	c := &cluster{t: t, out: out, addr: l.Addr().String(), stop: stop, result: make(chan outcome, 1), steps: make(chan ids.Step, 4096), logged: make(chan string, 4096)}
	cfg := coordinator.Config{Settings: s, Nodes: nodes, MinNodes: 1, Listener: l, Out: out, CommitWindow: 1, HeartbeatTimeout: 5 * time.Second,
		StepTimeout: time.Minute, LogExamples: true, Version: "test", Logger: testLogger(t, "coordinator", c.logged), Progress: watch{steps: c.steps}}
	change(&cfg)
	c.wg.Go(func() {
		res, err := coordinator.Run(ctx, cfg)
		c.result <- outcome{res, err}
	})
	t.Cleanup(func() { stop(); c.wg.Wait() })
	return c
}

// startWorker runs a worker until it ends or is stopped; its error goes to the channel.
func (c *cluster) startWorker(id string, change func(*worker.Config)) (stop context.CancelFunc, ended <-chan error) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cfg := worker.Config{Coordinators: []string{c.addr}, ID: id, Listener: listen(c.t, "127.0.0.1:0"), Options: model.Options{Threads: 1}, Version: "test", Logger: testLogger(c.t, id, nil)}
	if change != nil {
		change(&cfg)
	}
	out := make(chan error, 1)
	c.wg.Go(func() { out <- worker.Run(ctx, cfg) })
	c.t.Cleanup(cancel)
	return cancel, out
}

func (c *cluster) finish() *coordinator.Result {
	c.t.Helper()
	select {
	case o := <-c.result:
		if o.err != nil {
			c.t.Fatalf("coordinator: %v", o.err)
		}
		return o.res
	case <-time.After(2 * time.Minute):
		c.t.Fatal("the job does not end")
	}
	return nil
}

func (c *cluster) awaitStep(want ids.Step) {
	c.t.Helper()
	for {
		select {
		case s := <-c.steps:
			if s >= want {
				return
			}
		case <-time.After(time.Minute):
			c.t.Fatalf("step %d is not committed", want)
		}
	}
}

func (c *cluster) awaitLog(message string) {
	c.t.Helper()
	for {
		select {
		case m := <-c.logged:
			if m == message {
				return
			}
		case <-time.After(time.Minute):
			c.t.Fatalf("the coordinator does not log %q", message)
		}
	}
}

// train runs a job with workers to its end and returns its output directory.
func train(t *testing.T, s job.Settings, workers int) (out string) {
	t.Helper()
	c := startCoordinator(t, s, workers, t.TempDir(), "")
	for i := range workers {
		c.startWorker(fmt.Sprint("w", i), nil)
	}
	return c.finish().Out
}

func read(t *testing.T, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// undisturbed is the prompt and the history that one worker alone ends with.
func undisturbed(t *testing.T, s job.Settings) (prompt []byte, job outputs.JobFile) {
	t.Helper()
	c := startCoordinator(t, s, 1, t.TempDir(), "")
	_, ended := c.startWorker("alone", nil)
	c.finish()
	if err := <-ended; err != nil {
		t.Fatalf("worker: %v", err)
	}
	return read(t, c.out, "prompt.safetensors"), readJob(t, c.out)
}

func readJob(t *testing.T, out string) (f outputs.JobFile) {
	t.Helper()
	if err := json.Unmarshal(read(t, out, "job.json"), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func (c *cluster) mustEqual(prompt []byte, job outputs.JobFile) {
	c.t.Helper()
	if !bytes.Equal(prompt, read(c.t, c.out, "prompt.safetensors")) {
		c.t.Error("prompt.safetensors differs from the undisturbed run's")
	}
	got := readJob(c.t, c.out)
	if got.HistoryDigest != job.HistoryDigest || got.StateDigest != job.StateDigest || !got.Finished {
		c.t.Errorf("history %s, state %s, finished %v; want %s, %s", got.HistoryDigest, got.StateDigest, got.Finished, job.HistoryDigest, job.StateDigest)
	}
	lines := bytes.Split(bytes.TrimSpace(read(c.t, c.out, "metrics.jsonl")), []byte("\n"))
	seen := map[string]int{}
	for i, raw := range lines {
		var l outputs.StepLine
		if err := json.Unmarshal(raw, &l); err != nil || l.Step != int64(i+1) {
			c.t.Fatalf("metrics line %d: step %d, %v", i+1, l.Step, err)
		}
		for _, id := range l.Examples {
			seen[fmt.Sprint(l.Epoch, " ", id)]++
		}
	}
	steps, want := int(got.Settings.Steps), got.Settings.Epochs*got.Settings.TrainExamples
	if job.StoppedEarly != "" { // as the undisturbed run
		steps, want = int(job.Step), int(job.Step)*got.Settings.BatchSize
	}
	if len(lines) != steps {
		c.t.Errorf("%d lines of metrics, want %d", len(lines), steps)
	}
	if len(seen) != want {
		c.t.Errorf("%d examples applied, want %d", len(seen), want)
	}
	for id, n := range seen {
		if n != 1 {
			c.t.Errorf("example %s applied %d times in its epoch, want once", id, n)
		}
	}
}

func TestSameBitsForAnyNumberOfWorkers(t *testing.T) {
	s := settings()
	s.EvalEvery = 0
	prompt, job := undisturbed(t, s)
	if job.PromptStep == 0 && job.BestScore == 0 && job.Settings.EvalExamples == 0 {
		t.Error("nothing was evaluated")
	}
	for _, n := range []int{2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := startCoordinator(t, s, n, t.TempDir(), "")
			var ended []<-chan error
			for i := range n {
				_, e := c.startWorker(fmt.Sprint("w", i), nil)
				ended = append(ended, e)
			}
			res := c.finish()
			for i, e := range ended {
				if err := <-e; err != nil {
					t.Errorf("worker %d: %v", i, err)
				}
			}
			c.mustEqual(prompt, job)
			if want := 2 + 1; len(res.Evaluations) != want {
				t.Errorf("%d evaluations, want %d: before, and after each epoch", len(res.Evaluations), want)
			}
			if a, b := read(t, c.out, "adapter", "adapter_model.safetensors"), read(t, c.out, "final.safetensors"); len(a) == 0 || len(b) == 0 {
				t.Error("empty outputs")
			}
		})
	}
}

func TestWorkerLossLeavesNoTrace(t *testing.T) {
	s := settings()
	s.Epochs = 4
	prompt, job := undisturbed(t, s)
	c := startCoordinator(t, s, 2, t.TempDir(), "")
	stop, lost := c.startWorker("lost", nil)
	c.startWorker("stays", nil)
	c.awaitStep(3)
	stop()
	if err := <-lost; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped worker ended with %v", err)
	}
	c.awaitStep(6)
	c.startWorker("late", nil) // joins while the job runs
	c.finish()
	c.mustEqual(prompt, job)
}

func TestCoordinatorRestartGoesOn(t *testing.T) {
	s := settings()
	s.Epochs = 4
	s.EvalEvery = 5
	prompt, job := undisturbed(t, s)
	out := t.TempDir()
	c := startCoordinator(t, s, 2, out, "")
	c.startWorker("a", nil)
	c.startWorker("b", nil)
	c.awaitStep(4)
	c.stop()
	o := <-c.result
	var stopped *coordinator.StoppedError
	if !errors.As(o.err, &stopped) || stopped.Step < 4 {
		t.Fatalf("stopped coordinator returns %v, want a StoppedError at step 4 or later", o.err)
	}
	// A killed process may leave a torn line, and may have lost lines that the log holds.
	lines := read(t, out, "metrics.jsonl")
	lines = append(lines[:bytes.IndexByte(lines, '\n')+1], `{"step":2,"ep`...)
	if err := os.WriteFile(filepath.Join(out, "metrics.jsonl"), lines, 0o644); err != nil {
		t.Fatal(err)
	}
	next := startCoordinator(t, s, 2, out, c.addr) // the workers find it by themselves
	next.finish()
	next.t = t
	next.mustEqual(prompt, job)

	t.Run("a finished job is not run again", func(t *testing.T) {
		c := startCoordinator(t, s, 2, out, "")
		if res := c.finish(); !res.AlreadyDone {
			t.Error("the finished job ran again")
		}
		c.mustEqual(prompt, job)
	})
	t.Run("other settings are refused by name", func(t *testing.T) {
		other := s
		other.LR = 0.1
		c := startCoordinator(t, other, 2, out, "")
		o := <-c.result
		if o.err == nil || !strings.Contains(o.err.Error(), "lr is 0.3, want 0.1") {
			t.Errorf("error %v, want one that names lr", o.err)
		}
	})
}

func TestWorkersThatDoNotFitAreRefused(t *testing.T) {
	c := startCoordinator(t, settings(), 2, t.TempDir(), "")
	var addr string
	_, ended := c.startWorker("a", func(w *worker.Config) { addr = w.Listener.Addr().String() })
	c.awaitLog("worker joined")
	other := otherModel(t)
	_, refused := c.startWorker("stranger", func(w *worker.Config) { w.Model = other })
	err := <-refused
	if err == nil || !strings.Contains(err.Error(), "stranger") || !strings.Contains(err.Error(), other) || strings.Count(err.Error(), "digest") != 2 {
		t.Errorf("worker with another model: %v; want an error that names both models and digests", err)
	}
	_, twice := c.startWorker("a", nil)
	if err := <-twice; err == nil || !strings.Contains(err.Error(), "worker id a") {
		t.Errorf("worker with a taken id: %v", err)
	}
	_, same := c.startWorker("b", func(w *worker.Config) { w.Advertise = addr })
	if err := <-same; err == nil || !strings.Contains(err.Error(), "ring address "+addr) {
		t.Errorf("worker with a taken ring address: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the good worker ended with %v", err)
	default:
	}
}

// otherModel is the model with one weight changed.
func otherModel(t *testing.T) string {
	t.Helper()
	dir := tinyrandom.Dir(t)
	path := filepath.Join(dir, "model.safetensors")
	data := read(t, path)
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWorkerWaitsForItsCoordinator(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	early := &cluster{t: t, addr: addr}
	_, ended := early.startWorker("early", nil)
	time.Sleep(300 * time.Millisecond) // lets it fail at least once; the test does not depend on it
	c := startCoordinator(t, settings(), 1, t.TempDir(), addr)
	c.finish()
	if err := <-ended; err != nil {
		t.Errorf("worker: %v", err)
	}
}

// awaitFile waits until there is a file.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	for range 6000 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not come", path)
}
