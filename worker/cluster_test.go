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
	"sync/atomic"
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
	"github.com/dptune/dpt/worker/internal/joboutputs"
)

// A whole cluster in one process: a coordinator with its raft log on disk, and workers that talk to
// it and to each other over loopback.

// settings returns a job that takes about a second: a small random model, few examples, a short
// prompt.
func settings() job.Settings {
	s := job.DefaultSettings()
	s.Model, s.Data, s.Task = tinyModel, smallData, "rte"
	s.PromptLength, s.Bottleneck = 5, 2
	s.Shots, s.Epochs, s.BatchSize, s.MicroBatch = 12, 2, 4, 1
	s.MaxSourceLength, s.MaxTargetLength, s.EvalEvery = 20, 3, -1
	return s
}

// cluster is a coordinator of one replica and its workers.
type cluster struct {
	t      *testing.T
	out    string             // the coordinator's output directory
	addr   string             // of the coordinator
	stop   context.CancelFunc // stops the coordinator
	result chan outcome       // of the coordinator
	wg     sync.WaitGroup     // counts coordinator and workers
	steps  chan ids.Step      // committed steps as they come
	logged chan string        // the coordinator's log messages
}

// outcome is what coordinator.Run returned.
type outcome struct {
	res *coordinator.Result
	err error
}

// stepWatcher passes committed steps on to a test.
type stepWatcher struct {
	coordinator.Silent
	steps chan ids.Step
}

func (w stepWatcher) Step(r fsm.StepRecord, _ int64, _ float64) {
	select {
	case w.steps <- r.Step:
	default:
	}
}

// testLogger returns a logger whose messages also go to a channel, if that has room.
func testLogger(t *testing.T, name string, messages chan<- string) *slog.Logger {
	var w io.Writer = io.Discard
	if testing.Verbose() {
		w = os.Stderr
	}
	text := slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
	return slog.New(&logTee{text, messages}).With("as", name)
}

// logTee passes log messages on to a channel.
type logTee struct {
	slog.Handler
	messages chan<- string
}

func (h *logTee) Handle(ctx context.Context, r slog.Record) error {
	select {
	case h.messages <- r.Message:
	default:
	}
	return h.Handler.Handle(ctx, r)
}

func (h *logTee) WithAttrs(as []slog.Attr) slog.Handler {
	return &logTee{h.Handler.WithAttrs(as), h.messages}
}
func (h *logTee) WithGroup(name string) slog.Handler {
	return &logTee{h.Handler.WithGroup(name), h.messages}
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// startCoordinator runs a coordinator that writes to out, for a job that waits for a number of
// workers; addr "" is a free port.
func startCoordinator(t *testing.T, s job.Settings, nodes int, out, addr string) *cluster {
	t.Helper()
	return startCoordinatorWith(t, s, nodes, out, addr, func(*coordinator.Config) {})
}

// startCoordinatorWith is startCoordinator with a changed configuration.
func startCoordinatorWith(
	t *testing.T, s job.Settings, nodes int, out, addr string, change func(*coordinator.Config),
) *cluster {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l := listen(t, addr)
	ctx, stop := context.WithCancel(context.Background())
	c := &cluster{
		t:      t,
		out:    out,
		addr:   l.Addr().String(),
		stop:   stop,
		result: make(chan outcome, 1),
		steps:  make(chan ids.Step, 4096),
		logged: make(chan string, 4096),
	}
	cfg := coordinator.Config{
		Settings:         s,
		Nodes:            nodes,
		MinNodes:         1,
		Listener:         l,
		Out:              out,
		CommitWindow:     1,
		HeartbeatTimeout: 5 * time.Second,
		StepTimeout:      time.Minute,
		LogExamples:      true,
		Version:          "test",
		Logger:           testLogger(t, "coordinator", c.logged),
		Progress:         stepWatcher{steps: c.steps},
	}
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
	cfg := worker.Config{
		Coordinators: []string{c.addr},
		ID:           id,
		Listener:     listen(c.t, "127.0.0.1:0"),
		Options:      model.Options{Threads: 1},
		Version:      "test",
		Logger:       testLogger(c.t, id, nil),
	}
	if change != nil {
		change(&cfg)
	}
	out := make(chan error, 1)
	c.wg.Go(func() { out <- worker.Run(ctx, cfg) })
	c.t.Cleanup(cancel)
	return cancel, out
}

// startWorkers runs workers w0, w1, … and returns where their errors go.
func (c *cluster) startWorkers(n int, change func(*worker.Config)) (ended []<-chan error) {
	c.t.Helper()
	for i := range n {
		_, e := c.startWorker(fmt.Sprint("w", i), change)
		ended = append(ended, e)
	}
	return ended
}

// finish waits for the end of the job.
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

// awaitStep waits until a step, or a later one, is committed.
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

// awaitLog waits until the coordinator logs a message.
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
	c.startWorkers(workers, nil)
	return c.finish().Out
}

// contains reports whether err is an error whose text contains all the given ones.
func contains(err error, texts ...string) bool {
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			return false
		}
	}
	return err != nil
}

func readFile(t *testing.T, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// undisturbed runs a job with one worker and returns its prompt and its job.json.
func undisturbed(t *testing.T, s job.Settings) (prompt []byte, job outputs.JobFile) {
	t.Helper()
	c := startCoordinator(t, s, 1, t.TempDir(), "")
	_, ended := c.startWorker("alone", nil)
	c.finish()
	if err := <-ended; err != nil {
		t.Fatalf("worker: %v", err)
	}
	return readFile(t, c.out, "prompt.safetensors"), readJob(t, c.out)
}

func readJob(t *testing.T, out string) (f outputs.JobFile) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, out, "job.json"), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// mustEqual fails the test unless the job has finished with the undisturbed run's bits.
func (c *cluster) mustEqual(prompt []byte, job outputs.JobFile) {
	c.t.Helper()
	got, err := joboutputs.Read(c.out)
	if err != nil {
		c.t.Fatalf("outputs: %v", err)
	}
	if !bytes.Equal(prompt, got.Prompt) {
		c.t.Error("prompt.safetensors differs from the undisturbed run's")
	}
	if got.Job.HistoryDigest != job.HistoryDigest || got.Job.StateDigest != job.StateDigest {
		c.t.Errorf("history %s, state %s, want %s, %s",
			got.Job.HistoryDigest, got.Job.StateDigest, job.HistoryDigest, job.StateDigest)
	}
	if got.Job.StoppedEarly != job.StoppedEarly || got.Job.Step != job.Step {
		c.t.Errorf("the job ended at step %d (stopped early: %q), want step %d (%q)",
			got.Job.Step, got.Job.StoppedEarly, job.Step, job.StoppedEarly)
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
			ended := c.startWorkers(n, nil)
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
			for _, name := range []string{"adapter/adapter_model.safetensors", "final.safetensors"} {
				if len(readFile(t, c.out, name)) == 0 {
					t.Errorf("%s is empty", name)
				}
			}
		})
	}
}

// callCounter is a backbone that computes micro-batches one by one if single is set, and notes how
// many the largest call has.
type callCounter struct {
	worker.Backbone
	single  bool
	largest *atomic.Int64
}

func (b *callCounter) LossGrads(prompt []float32, microBatches [][]model.Pair) (
	results []model.Result, grads [][]float32, err error,
) {
	if n := int64(len(microBatches)); n > b.largest.Load() {
		b.largest.Store(n)
	}
	if !b.single {
		return b.Backbone.LossGrads(prompt, microBatches)
	}
	for i := range microBatches {
		res, grad, err := b.Backbone.LossGrads(prompt, microBatches[i:i+1])
		if err != nil {
			return nil, nil, err
		}
		results, grads = append(results, res...), append(grads, grad...)
	}
	return results, grads, nil
}

// A worker computes several micro-batches of its shard in one call. The job's bits are those of one
// by one, whatever the shards' sizes are.
func TestMicroBatchesOfAShardShareCalls(t *testing.T) {
	s := settings()
	s.Shots, s.BatchSize, s.MicroBatch = 27, 9, 2 // five micro-batches, the last of one example
	var largest atomic.Int64
	counting := func(single bool) func(*worker.Config) {
		return withBackbone(func(b worker.Backbone) worker.Backbone { return &callCounter{b, single, &largest} })
	}
	c := startCoordinator(t, s, 1, t.TempDir(), "")
	c.startWorker("single", counting(true))
	c.finish()
	prompt, job := readFile(t, c.out, "prompt.safetensors"), readJob(t, c.out)
	for _, n := range []int{1, 2, 3} {
		largest.Store(0)
		c := startCoordinatorWith(t, s, n, t.TempDir(), "", withAudit(0.3))
		c.startWorkers(n, counting(false))
		c.finish()
		c.mustEqual(prompt, job)
		if largest.Load() < 2 {
			t.Errorf("%d workers: no call has several of five micro-batches", n)
		}
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
	lines := readFile(t, out, "metrics.jsonl")
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
		if !contains(o.err, "lr is 0.3, want 0.1") {
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
	if !contains(err, "stranger", other) || strings.Count(err.Error(), "digest") != 2 {
		t.Errorf("worker with another model: %v; want an error that names both models and digests", err)
	}
	_, twice := c.startWorker("a", nil)
	if err := <-twice; !contains(err, "worker id a") {
		t.Errorf("worker with a taken id: %v", err)
	}
	_, same := c.startWorker("b", func(w *worker.Config) { w.Advertise = addr })
	if err := <-same; !contains(err, "ring address "+addr) {
		t.Errorf("worker with a taken ring address: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the good worker ended with %v", err)
	default:
	}
}

// otherModel returns the directory of the tiny model with one weight changed.
func otherModel(t *testing.T) string {
	t.Helper()
	dir := tinyrandom.Dir(t)
	path := filepath.Join(dir, "model.safetensors")
	data := readFile(t, path)
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

// awaitFile waits until a file exists.
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
