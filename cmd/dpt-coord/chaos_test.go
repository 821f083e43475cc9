package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// Three coordinators and four workers as processes, killed and stopped at random. Each round is a whole job; it must end with
// the bytes of the undisturbed run at every replica, and every step that any replica has ever seen committed must be that run's.
//
// A round begins calm: an event at a time, each when the cluster is whole again, from which recovery is timed. It ends as a storm.

var (
	chaosFor       = flag.Duration("chaos", 10*time.Second, "how long to disturb the cluster")
	chaosCalm      = flag.Bool("chaos.calm", false, "time recovery from single events only, without storms")
	chaosHeartbeat = flag.Duration("chaos.heartbeat", time.Second, "the coordinators' --heartbeat-timeout")
)

const chaosWorkers = 4

// chaosSteps is how long each job is: a short run's must not go on long after the storm.
func chaosSteps() int {
	if *chaosFor < time.Minute {
		return 250
	}
	return 600
}

var chaosIDs = []string{"a", "b", "c"}

// victim is one of the cluster's processes, and what starts it again.
type victim struct {
	name    string
	program string
	args    []string
	cmd     *exec.Cmd
	gone    chan struct{} // closed when cmd has ended
	stopped bool
}

type chaos struct {
	t       *testing.T
	rng     *rand.Rand
	dir     string // of the round
	coords  map[string]*victim
	workers []*victim
	did     map[string]int
	times   map[string][]time.Duration

	mu     sync.Mutex
	leader string
	logs   map[string]*bytes.Buffer
}

// leadWatch is a coordinator's standard error: it looks for the line that says who leads.
type leadWatch struct {
	c  *chaos
	id string
}

func (w leadWatch) Write(p []byte) (int, error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if bytes.Contains(p, []byte(`"msg":"this replica leads"`)) {
		w.c.leader = w.id
	}
	w.c.logs[w.id].Write(p)
	return len(p), nil
}

func (c *chaos) start(v *victim) {
	c.t.Helper()
	v.cmd = exec.Command(filepath.Join(programs, v.program), v.args...)
	c.mu.Lock()
	if c.logs[v.name] == nil {
		c.logs[v.name] = &bytes.Buffer{}
	}
	c.mu.Unlock()
	v.cmd.Stderr = leadWatch{c, v.name}
	if err := v.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	v.gone, v.stopped = make(chan struct{}), false
	go func(cmd *exec.Cmd, gone chan struct{}) { _ = cmd.Wait(); close(gone) }(v.cmd, v.gone)
}

// signal sends s; a process that has ended hears nothing.
func (c *chaos) signal(v *victim, s syscall.Signal) {
	_ = v.cmd.Process.Signal(s)
	v.stopped = s == syscall.SIGSTOP
	if s == syscall.SIGKILL {
		<-v.gone
	}
}

func (v *victim) over() bool {
	select {
	case <-v.gone:
		return true
	default:
		return false
	}
}

// seen is the last committed step that any replica has written down, with its generation and workers.
type seen struct {
	Step       int64 `json:"step"`
	Generation int64 `json:"generation"`
	Workers    int   `json:"workers"`
}

func (c *chaos) look() (best seen) {
	for _, id := range chaosIDs {
		if s := c.lookAt(id); s.Step > best.Step {
			best = s
		}
	}
	return best
}

func (c *chaos) lookAt(id string) (last seen) {
	f, err := os.Open(filepath.Join(c.dir, id, "metrics.jsonl"))
	if err != nil {
		return seen{}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return seen{}
	}
	tail := make([]byte, min(info.Size(), 2048))
	if n, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil {
		tail = tail[:n]
	}
	end := bytes.LastIndexByte(tail, '\n')
	if end < 0 {
		return seen{}
	}
	line := tail[bytes.LastIndexByte(tail[:end], '\n')+1 : end]
	if json.Unmarshal(line, &last) != nil {
		return seen{}
	}
	return last
}

// await waits until ok holds or the job is over, and says which.
func (c *chaos) await(what string, ok func() bool) bool {
	c.t.Helper()
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if c.finished() {
			return false
		}
	}
	c.fatal("%s does not come", what)
	return false
}

// fatal ends the test with what the coordinators said last.
func (c *chaos) fatal(format string, args ...any) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, log := range c.logs {
		text := log.String()
		c.t.Logf("%s:\n%s", name, text[max(0, len(text)-4000):])
	}
	c.t.Fatalf(format, args...)
}

func (c *chaos) finished() bool {
	for _, id := range chaosIDs {
		if _, err := os.Stat(filepath.Join(c.dir, id, "prompt.safetensors")); err == nil {
			return true
		}
	}
	return false
}

// whole waits until all workers are in the ring and every replica hears of new steps.
func (c *chaos) whole() bool {
	was := c.look()
	return c.await("a whole cluster", func() bool {
		if c.look().Workers != chaosWorkers {
			return false
		}
		for _, id := range chaosIDs {
			if c.lookAt(id).Step <= was.Step {
				return false
			}
		}
		return true
	})
}

func (c *chaos) leads() *victim {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.coords[c.leader]
}

func (c *chaos) follower() *victim {
	lead := c.leads()
	for {
		if v := c.coords[chaosIDs[c.rng.IntN(len(chaosIDs))]]; v != lead {
			return v
		}
	}
}

// event is one thing that happens to one process. What ends a generation is over when the next one has committed a step;
// what does not, when a step is committed.
type event struct {
	name    string
	victim  func() *victim
	signal  syscall.Signal
	newRing bool
}

func (c *chaos) events() []event {
	worker := func() *victim { return c.workers[c.rng.IntN(len(c.workers))] }
	return []event{
		{"worker SIGKILL", worker, syscall.SIGKILL, true},
		{"worker SIGSTOP", worker, syscall.SIGSTOP, true},
		{"leader SIGKILL", c.leads, syscall.SIGKILL, true},
		{"leader SIGSTOP", c.leads, syscall.SIGSTOP, true},
		{"follower SIGKILL", c.follower, syscall.SIGKILL, false},
	}
}

// calm does one event, times the recovery and makes the cluster whole again.
func (c *chaos) calm(e event) {
	if !c.whole() {
		return
	}
	v := e.victim()
	was := c.look()
	began := time.Now()
	c.signal(v, e.signal)
	if c.await("recovery from "+e.name+" of "+v.name, func() bool {
		now := c.look()
		return now.Step > was.Step && (!e.newRing || now.Generation > was.Generation)
	}) {
		c.times[e.name] = append(c.times[e.name], time.Since(began))
		c.did[e.name]++
	}
	c.heal(v)
}

func (c *chaos) heal(v *victim) {
	switch {
	case v.stopped:
		c.signal(v, syscall.SIGCONT)
	case v.over() && v.cmd.ProcessState.ExitCode() != 0:
		c.start(v)
	}
}

// storm hurts processes every few hundred milliseconds until the time is over or the job is: any workers, and one coordinator at a
// time, or sometimes everything at once.
func (c *chaos) storm(until time.Time) {
	type wound struct {
		v    *victim
		till time.Time
	}
	var wounds []wound
	for !c.finished() {
		now := time.Now()
		wounds = slices.DeleteFunc(wounds, func(w wound) bool {
			if now.Before(w.till) {
				return false
			}
			c.heal(w.v)
			return true
		})
		if now.After(until) && len(wounds) == 0 {
			return
		}
		time.Sleep(time.Duration(50+c.rng.IntN(300)) * time.Millisecond)
		if now.After(until) {
			continue
		}
		hurt := func(v *victim) bool {
			return slices.ContainsFunc(wounds, func(w wound) bool { return w.v == v })
		}
		coordHurt := slices.ContainsFunc(wounds, func(w wound) bool { return c.coords[w.v.name] != nil })
		if c.rng.IntN(40) == 0 && !coordHurt {
			for _, id := range chaosIDs {
				c.signal(c.coords[id], syscall.SIGKILL)
				wounds = append(wounds, wound{c.coords[id], time.Now().Add(time.Duration(c.rng.IntN(500)) * time.Millisecond)})
			}
			c.did["storm: all coordinators SIGKILL"]++
			continue
		}
		all := c.events()
		e := all[c.rng.IntN(len(all))]
		v := e.victim()
		if v == nil || hurt(v) || v.over() || (c.coords[v.name] != nil && coordHurt) {
			continue
		}
		c.signal(v, e.signal)
		c.did["storm: "+e.name]++
		wounds = append(wounds, wound{v, time.Now().Add(time.Duration(100+c.rng.IntN(2000)) * time.Millisecond)})
	}
	for _, w := range wounds {
		c.heal(w.v)
	}
}

// round is one whole job.
func (c *chaos) round(reference []byte, digests map[int64]string, until time.Time) {
	c.t.Helper()
	c.coords, c.workers, c.leader, c.logs = map[string]*victim{}, nil, "", map[string]*bytes.Buffer{}
	var peers, addrs []string
	listen := map[string]string{}
	for _, id := range chaosIDs {
		peers = append(peers, id+"="+freeAddr(c.t))
		listen[id] = freeAddr(c.t)
		addrs = append(addrs, listen[id])
	}
	for _, id := range chaosIDs {
		v := &victim{name: id, program: "dpt-coord", args: append(chaosJob(filepath.Join(c.dir, id)), "--nodes", fmt.Sprint(chaosWorkers), "--id", id, "--peers", strings.Join(peers, ","),
			"--listen", listen[id], "--heartbeat-timeout", chaosHeartbeat.String(), "--log-format", "json")}
		c.coords[id] = v
		c.start(v)
	}
	for i := range chaosWorkers {
		v := &victim{name: fmt.Sprint("w", i), program: "dpt-worker", args: []string{"--coord", strings.Join(addrs, ","), "--threads", "1"}}
		c.workers = append(c.workers, v)
		c.start(v)
	}
	defer func() {
		for _, v := range c.all() {
			c.signal(v, syscall.SIGKILL)
		}
	}()
	c.whole()
	for i := 0; time.Now().Before(until) && (*chaosCalm || i < len(c.events())) && !c.finished(); i++ {
		c.calm(c.events()[i%len(c.events())])
	}
	if !*chaosCalm {
		c.storm(until)
	}
	for _, v := range c.all() {
		c.heal(v)
	}
	for _, id := range chaosIDs {
		v := c.coords[id]
		for {
			select {
			case <-v.gone:
			case <-time.After(2 * time.Minute):
				c.fatal("coordinator %s does not end after the job", id)
			}
			if v.cmd.ProcessState.ExitCode() == 0 {
				break
			}
			c.fatal("coordinator %s ended with exit code %d", id, v.cmd.ProcessState.ExitCode())
		}
		if !bytes.Equal(reference, mustRead(c.t, c.dir, id, "prompt.safetensors")) {
			c.t.Errorf("prompt.safetensors of replica %s differs from the undisturbed run's", id)
		}
		if got := stepDigests(c.t, filepath.Join(c.dir, id)); len(got) != chaosSteps() {
			c.t.Errorf("replica %s has %d steps in metrics.jsonl, want %d", id, len(got), chaosSteps())
		} else {
			for step, d := range got {
				if d != digests[step] {
					c.t.Fatalf("replica %s: state after step %d is %s, the undisturbed run's %s", id, step, d, digests[step])
				}
			}
		}
	}
}

func (c *chaos) all() []*victim {
	list := slices.Clone(c.workers)
	for _, id := range chaosIDs {
		list = append(list, c.coords[id])
	}
	return list
}

func chaosJob(out string) []string {
	return small(out, "--steps", fmt.Sprint(chaosSteps()), "--seed", "3")
}

// stepDigests are the states after each step that a replica wrote down.
func stepDigests(t *testing.T, out string) map[int64]string {
	t.Helper()
	m := map[int64]string{}
	for line := range bytes.Lines(mustRead(t, out, "metrics.jsonl")) {
		var l struct {
			Step   int64  `json:"step"`
			Digest string `json:"state_digest"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if m[l.Step] != "" {
			t.Fatalf("%s: step %d twice", out, l.Step)
		}
		m[l.Step] = l.Digest
	}
	return m
}

var portsTried atomic.Int64

// freeAddr is an address that a killed process can have again: below the ports that the system gives to those who ask for any.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := 10000 + (101*os.Getpid()+int(portsTried.Add(1)))%22000 // other than in a test process beside this one
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

func TestChaos(t *testing.T) {
	dir := t.TempDir()
	start(t, "dpt-coord", append(chaosJob(filepath.Join(dir, "whole")), "--local")...).mustEnd(0)
	reference, digests := mustRead(t, dir, "whole", "prompt.safetensors"), stepDigests(t, filepath.Join(dir, "whole"))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &chaos{t: t, rng: rand.New(rand.NewPCG(seed, 0)), did: map[string]int{}, times: map[string][]time.Duration{}}
	until := time.Now().Add(*chaosFor)
	rounds := 0
	for time.Now().Before(until) && !t.Failed() {
		rounds++
		c.dir = filepath.Join(dir, fmt.Sprint("round", rounds))
		c.round(reference, digests, until)
	}
	t.Logf("%d jobs of %d steps, all with the bits of the undisturbed run\n%s", rounds, chaosSteps(), c.table())
}

// table says what was done and how long recovery took.
func (c *chaos) table() string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "event\ttimes\trecovery p50\tp95\tmax")
	var names []string
	for name := range c.did {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		times := c.times[name]
		if len(times) == 0 {
			fmt.Fprintf(w, "%s\t%d\t\t\t\n", name, c.did[name])
			continue
		}
		slices.Sort(times)
		at := func(q float64) time.Duration {
			return times[min(len(times)-1, int(q*float64(len(times))))].Round(time.Millisecond)
		}
		fmt.Fprintf(w, "%s\t%d\t%v\t%v\t%v\n", name, c.did[name], at(0.5), at(0.95), at(1))
	}
	w.Flush()
	return b.String()
}
