package worker_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
)

// Large trainer states travel and are kept as blobs, which the log only names. These tests count
// every state as large.

// statesAsBlobs makes every trainer state a blob.
func statesAsBlobs(cfg *coordinator.Config) { cfg.Storage.Inline = 1 }

// blobsOf returns the names of the files among the blobs in a job's data directory.
func blobsOf(t *testing.T, out string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(out, "state", "blobs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Workers that come and go and a coordinator that is started again do not change the bits: they are
// those of the undisturbed run, whose states go through the log.
func TestLargeStatesLeaveNoTrace(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := settings()
	s.Epochs, s.EvalEvery = 5, 4
	prompt, job := undisturbed(t, s)
	out := t.TempDir()
	c := startCoordinatorWith(t, s, 2, out, "", statesAsBlobs)
	stop, lost := c.startWorker("lost", nil)
	c.startWorker("stays", nil)
	c.awaitStep(3)
	stop()
	<-lost
	c.awaitStep(6)
	c.startWorker("late", nil)
	c.awaitStep(8)
	c.stop()
	o := <-c.result
	var stopped *coordinator.StoppedError
	if !errors.As(o.err, &stopped) || stopped.Step < 8 {
		t.Fatalf("stopped coordinator returns %v, want a StoppedError at step 8 or later", o.err)
	}
	torn := filepath.Join(out, "state", "blobs", strings.Repeat("0", 64)+".7.tmp")
	if err := os.WriteFile(torn, []byte("torn"), 0o644); err != nil {
		t.Fatal(err)
	}
	next := startCoordinatorWith(t, s, 2, out, c.addr, statesAsBlobs)
	next.finish()
	next.mustEqual(prompt, job)
	if job.PromptStep == job.Step {
		t.Error("the best state is the last: the test does not show whether it is kept")
	}
	got := readJob(t, out)
	if names := blobsOf(t, out); len(names) != 2 || names[0] != got.StateDigest && names[1] != got.StateDigest {
		t.Errorf("files %v are left, want the last state, %s, and the best one", names, got.StateDigest)
	}

	t.Run("a damaged blob is named", func(t *testing.T) {
		half := t.TempDir()
		c := startCoordinatorWith(t, s, 1, half, "", statesAsBlobs)
		c.startWorker("a", nil)
		c.awaitStep(5)
		c.stop()
		<-c.result
		for _, name := range blobsOf(t, half) {
			path := filepath.Join(half, "state", "blobs", name)
			data := readFile(t, path)
			data[len(data)/2] ^= 1
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		again := startCoordinatorWith(t, s, 1, half, c.addr, statesAsBlobs)
		o := <-again.result
		if !contains(o.err, "is missing or damaged in "+filepath.Join(half, "state", "blobs")) {
			t.Errorf("error %v, want one that says where a trainer state is missing", o.err)
		}
	})
	t.Run("a disk that cannot store blobs", func(t *testing.T) {
		full := t.TempDir()
		if err := os.MkdirAll(filepath.Join(full, "state"), 0o755); err != nil {
			t.Fatal(err)
		}
		c := startCoordinatorWith(t, s, 1, full, "", statesAsBlobs)
		c.startWorker("a", nil)
		c.awaitStep(2)
		c.stop()
		<-c.result
		dir := filepath.Join(full, "state", "blobs")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		again := startCoordinatorWith(t, s, 1, full, c.addr, statesAsBlobs)
		if o := <-again.result; !contains(o.err, dir) {
			t.Errorf("error %v, want one that names %s", o.err, dir)
		}
	})
}

// Leaders are lost in the middle of the job, one replica loses its trainer states, and all replicas
// end with the bits of the undisturbed run.
func TestLargeStatesSurviveLeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := longJob()
	prompt, job := longUndisturbed(t)
	c := newReplicaSet(t, s, "a", "b", "c")
	c.change = statesAsBlobs
	c.startWorkers(3, nil)
	c.start("a", "b", "c")
	rng := rand.New(rand.NewPCG(3, 4))
	at := ids.Step(0)
	last := ""
	for range 2 {
		at += 2 + ids.Step(rng.IntN(12))
		id := c.leads(last)
		c.awaitStep(id, at)
		c.kill(id)
		last = id
		next := c.leads(id)
		c.awaitStep(next, at+2)
		if err := os.RemoveAll(filepath.Join(c.members[id].out, "state", "blobs")); err != nil {
			t.Fatal(err)
		}
		c.start(id) // and it comes back without its trainer states
	}
	c.finish(prompt, job, "a", "b", "c")
}

// A queue whose states are all large is stopped in the middle of a job: its jobs end with the bits
// that they have alone, and only the blobs of their results are left.
func TestQueueOfLargeStates(t *testing.T) {
	prompt, alone := undisturbed(t, settings())
	out := t.TempDir()
	start := func(addr string) *cluster {
		t.Helper()
		return startCoordinatorWith(t, job.Settings{}, 1, out, addr, func(c *coordinator.Config) {
			c.Serve = true
			statesAsBlobs(c)
		})
	}
	c := start("")
	c.startWorker("a", nil)
	endless := settings()
	endless.Epochs = 10000
	c.submit("first", settings())
	c.submit("endless", endless)
	c.submit("last", settings())
	c.await("first", "finished")
	for c.await("endless", "running").Step < 3 {
		time.Sleep(10 * time.Millisecond)
	}
	c.stop()
	if o := <-c.result; o.err != nil {
		t.Fatalf("stopped: %v", o.err)
	}
	next := start(c.addr)
	before := next.await("endless", "running").Step
	for next.await("endless", "running").Step < before+2 {
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := next.jobs().Cancel(context.Background(), &coordpb.CancelJob{Job: "endless"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "last"} {
		if got := next.await(name, "finished"); got.StateDigest != alone.StateDigest {
			t.Errorf("%s ended with state %s, alone with %s", name, got.StateDigest, alone.StateDigest)
		}
		path := filepath.Join(out, name, "prompt.safetensors")
		awaitFile(t, path)
		if !bytes.Equal(readFile(t, path), prompt) {
			t.Errorf("%s has another prompt than alone", name)
		}
	}
	next.stop()
	<-next.result
	if names := blobsOf(t, out); len(names) != 1 || names[0] != alone.StateDigest {
		t.Errorf("files %v are left, want the state %s of both finished jobs alone", names, alone.StateDigest)
	}
}
