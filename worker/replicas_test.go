package worker_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
)

func TestReplicasAllHoldTheResult(t *testing.T) {
	s := settings()
	s.Epochs = 8
	prompt, job := undisturbed(t, s)
	c := newReplicaSet(t, s, "a", "b", "c")
	c.startWorkers(4, nil)
	c.start("a", "b", "c")
	c.finish(prompt, job, "a", "b", "c")
	for _, file := range []string{"eval.jsonl", "final.safetensors", "job.json", "metrics.jsonl"} {
		a := readFile(t, c.members["a"].out, file)
		for _, id := range []string{"b", "c"} {
			if !bytes.Equal(a, readFile(t, c.members[id].out, file)) {
				t.Errorf("%s of replicas a and %s differ", file, id)
			}
		}
	}
	t.Run("a replica that starts after the end has it too", func(t *testing.T) {
		if err := os.RemoveAll(filepath.Join(c.members["b"].out, "prompt.safetensors")); err != nil {
			t.Fatal(err)
		}
		c.t = t
		c.start("b", "a")
		awaitFile(t, filepath.Join(c.members["b"].out, "prompt.safetensors"))
		c.start("c") // otherwise the others stay up for it
		c.finish(prompt, job, "b")
	})
}

func TestLeaderLossLeavesNoTrace(t *testing.T) {
	s := longJob()
	prompt, job := longUndisturbed(t)
	c := newReplicaSet(t, s, "a", "b", "c")
	c.startWorkers(4, nil)
	c.start("a", "b", "c")
	rng := rand.New(rand.NewPCG(1, 2))
	at := ids.Step(0)
	last := ""
	for range 3 {
		at += 2 + ids.Step(rng.IntN(16))
		id := c.leads(last)
		c.awaitStep(id, at)
		c.kill(id)
		last = id
		next := c.leads(id)
		c.awaitStep(next, at+2) // the others go on without it
		c.start(id)             // and it comes back with what it had on disk
	}
	c.finish(prompt, job, "a", "b", "c")
}

func TestCleanStopHandsOver(t *testing.T) {
	s := longJob()
	prompt, job := longUndisturbed(t)
	c := newReplicaSet(t, s, "a", "b", "c")
	c.startWorkers(2, nil)
	c.start("a", "b", "c")
	id := c.leads("")
	c.awaitStep(id, 5)
	c.members[id].stop()
	var stopped *coordinator.StoppedError
	if o := c.ended(id); !errors.As(o.err, &stopped) || stopped.Step < 5 {
		t.Fatalf("stopped leader returns %v, want a StoppedError at step 5 or later", o.err)
	}
	next := c.leads(id)
	c.awaitStep(next, 15)
	c.start(id)
	c.finish(prompt, job, "a", "b", "c")
}

func TestMinorityMakesNoProgress(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := longJob()
	prompt, job := longUndisturbed(t)
	c := newReplicaSet(t, s, "a", "b", "c")
	c.startWorkers(2, nil)
	c.start("a", "b", "c")
	old := c.leads("")
	c.awaitStep(old, 5)

	c.raftNetwork.setCut(old, true) // partition the leader, which its workers still reach
	drain(c.members[old].steps)
	next := c.leads(old)
	c.awaitStep(next, 20) // the majority goes on
	if steps := drain(c.members[old].steps); len(steps) > 3 {
		t.Errorf("the leader that was cut off went on to step %d", steps[len(steps)-1])
	}
	c.raftNetwork.setCut(old, false)
	c.awaitStep(old, 25) // it learns of the others' steps

	now := c.leads("")
	for id := range c.members {
		c.raftNetwork.setCut(id, true) // no replica has a majority
	}
	time.Sleep(500 * time.Millisecond) // lets what is under way end; the test does not depend on it
	for id := range c.members {
		drain(c.members[id].steps)
	}
	time.Sleep(time.Second)
	for id := range c.members {
		if steps := drain(c.members[id].steps); len(steps) > 0 {
			t.Errorf("replica %s commits steps %v without a majority; %s led", id, steps, now)
		}
	}
	for id := range c.members {
		c.raftNetwork.setCut(id, false)
	}
	c.finish(prompt, job, "a", "b", "c")
}

func TestAllReplicasRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := longJob()
	prompt, job := longUndisturbed(t)
	c := newReplicaSet(t, s, "a", "b", "c")
	c.startWorkers(2, nil)
	c.start("a", "b", "c")
	c.awaitStep(c.leads(""), 12)
	for _, id := range []string{"a", "b", "c"} {
		c.raftNetwork.setCut(id, true)
		c.workerNetwork.setCut(id, true)
	}
	for _, id := range []string{"a", "b", "c"} {
		c.kill(id)
	}
	c.mu.Lock()
	c.leader = ""
	c.mu.Unlock()
	c.start("a", "b", "c")
	c.awaitStep(c.leads(""), 13)
	c.finish(prompt, job, "a", "b", "c")
}

func TestCommitEveryFewSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := longJob()
	prompt, job := longUndisturbed(t)
	c := newReplicaSet(t, s, "a", "b", "c")
	c.change = func(cfg *coordinator.Config) { cfg.CommitEvery = 7 }
	c.startWorkers(3, nil)
	c.start("a", "b", "c")
	id := c.leads("")
	c.awaitStep(id, 20)
	c.kill(id)
	c.awaitStep(c.leads(id), 50)
	c.start(id)
	c.finish(prompt, job, "a", "b", "c")
}

func TestReplicasComeAndGo(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	s := longJob()
	prompt, job := longUndisturbed(t)
	c := newReplicaSet(t, s, "a", "b", "c")
	d := c.reserve("d")
	d.join = true
	c.startWorkers(2, nil)
	c.start("a", "b", "c")
	c.awaitStep(c.leads(""), 5)
	c.start("d")
	add := func(ctx context.Context, r coordpb.ReplicasClient) (*coordpb.ReplicaList, error) {
		return r.Add(ctx, &coordpb.AddReplica{Replica: &coordpb.Replica{Id: "d", Addr: d.raftAddr}})
	}
	list := c.askLeader(add)
	if len(list.Replicas) != 4 {
		t.Errorf("replicas after the addition: %v, want 4", list.Replicas)
	}
	c.awaitStep("d", 10)
	gone := c.leads("") // the leader itself is removed
	list = c.askLeader(func(ctx context.Context, r coordpb.ReplicasClient) (*coordpb.ReplicaList, error) {
		list, err := r.Remove(ctx, &coordpb.RemoveReplica{Id: gone})
		if status.Code(err) == codes.NotFound { // removed at a request whose answer was lost
			return add(ctx, r) // which changes nothing, and answers with the list
		}
		return list, err
	})
	if len(list.Replicas) != 3 {
		t.Errorf("replicas after the removal: %v, want 3", list.Replicas)
	}
	if list.Leader != gone { // it was deposed before; nobody may have told it that it is removed
		c.members[gone].stop()
	}
	if o := c.ended(gone); list.Leader == gone && !contains(o.err, "was removed") {
		t.Errorf("removed replica ended with %v", o.err)
	}
	left := []string{"d"}
	for _, id := range []string{"a", "b", "c"} {
		if id != gone {
			left = append(left, id)
		}
	}
	c.finish(prompt, job, left...)
}

func TestReplicaWithOtherSettingsIsRefused(t *testing.T) {
	s := longJob()
	prompt, job := longUndisturbed(t)
	c := newReplicaSet(t, s, "a", "b", "c")
	c.startWorkers(2, nil)
	c.start("a", "b")
	c.awaitStep(c.leads(""), 3)
	c.settings.LR, c.settings.Seed = 0.1, 7
	c.start("c")
	o := c.ended("c")
	if !contains(o.err, "lr is 0.3, want 0.1", "seed is 42, want 7") {
		t.Errorf("replica with other settings ended with %v, want an error that names lr and seed", o.err)
	}
	c.settings = s
	c.start("c")
	c.finish(prompt, job, "a", "b", "c")
}
