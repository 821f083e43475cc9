package main

import (
	"bytes"
	"encoding/json"
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
	"time"
)

// chaosWindow is the coordinators' --commit-window.
const chaosWindow = 1

var chaosIDs = []string{"a", "b", "c"}

// victim is one of the cluster's processes, with what it takes to start it again.
type victim struct {
	name    string
	program string // a path
	args    []string
	host    *host // nil: beside this process
	cmd     *exec.Cmd
	gone    chan struct{} // closed when cmd has ended
	stopped bool          // by SIGSTOP
}

// chaos is a cluster, the events so far, and the logs of its processes.
type chaos struct {
	t         *testing.T
	rng       *rand.Rand
	net       *network // nil: all on this machine's loopback
	kinds     []event
	steps     int
	flags     []string         // more, for the coordinators
	reference []byte           // the undisturbed run's prompt
	digests   map[int64]string // the states of the undisturbed run, by step
	dir       string           // of the round
	coords    map[string]*victim
	workers   []*victim
	turn      int // of the worker that is hurt next
	did       map[string]int
	times     map[string][]time.Duration

	mu     sync.Mutex        // guards the fields below
	leader string            // the id of the replica that leads
	logs   map[string][]byte // the end of each process's log
	known  committed         // the last step that is committed for certain
	redone map[int64]int     // by generation, the most steps that a worker had begun before and does again
	again  []int             // the values of redone in rounds that have ended
	lost   int               // generations that started before a committed step
}

// watch receives a process's standard error. It looks for lines about leaders and generations.
type watch struct {
	c    *chaos
	name string
	part []byte // of a line
}

const keepLog = 1 << 16

func (w *watch) Write(p []byte) (int, error) {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	log := append(c.logs[w.name], p...)
	c.logs[w.name] = log[max(0, len(log)-keepLog):]
	w.part = append(w.part, p...)
	for {
		end := bytes.IndexByte(w.part, '\n')
		if end < 0 {
			return len(p), nil
		}
		var line struct {
			Message    string `json:"msg"`
			Generation int64  `json:"generation"`
			After      int64  `json:"after_step"`
			Redone     int    `json:"redone"`
		}
		err := json.Unmarshal(w.part[:end], &line)
		w.part = w.part[end+1:]
		if err != nil {
			continue // not a log line
		}
		switch line.Message {
		case "this replica leads":
			c.leader = w.name
		case "generation started":
			if line.Generation > c.known.Generation && line.After < c.known.Step {
				c.lost++
				c.t.Errorf("generation %d starts after step %d, want %d or later, which generation %d has committed",
					line.Generation, line.After, c.known.Step, c.known.Generation)
			}
		case "generation joined":
			c.redone[line.Generation] = max(c.redone[line.Generation], line.Redone)
			if line.Redone > chaosWindow+1 {
				c.t.Errorf("%s does %d steps again in generation %d, want at most the window's %d and one in flight",
					w.name, line.Redone, line.Generation, chaosWindow)
			}
		}
	}
}

func (c *chaos) start(v *victim) {
	c.t.Helper()
	v.cmd = exec.Command(v.program, v.args...)
	v.cmd.Stderr = &watch{c: c, name: v.name}
	start := v.cmd.Start
	if v.host != nil {
		killWithParent(v.cmd)
		start = func() error { return v.host.start(v.cmd) }
	}
	if err := start(); err != nil {
		c.t.Fatal(err)
	}
	v.gone, v.stopped = make(chan struct{}), false
	go func(cmd *exec.Cmd, gone chan struct{}) { _ = cmd.Wait(); close(gone) }(v.cmd, v.gone)
}

// signal sends s, without effect on a process that has ended.
func (c *chaos) signal(v *victim, s syscall.Signal) {
	_ = v.cmd.Process.Signal(s)
	v.stopped = s == syscall.SIGSTOP
	if s == syscall.SIGKILL {
		<-v.gone
	}
}

func (v *victim) hasEnded() bool {
	select {
	case <-v.gone:
		return true
	default:
		return false
	}
}

// cluster starts three coordinators and the workers in a new directory.
func (c *chaos) cluster() {
	c.t.Helper()
	c.coords, c.workers = map[string]*victim{}, nil
	c.mu.Lock()
	c.leader, c.logs, c.known, c.redone = "", map[string][]byte{}, committed{}, map[int64]int{}
	c.mu.Unlock()
	var peers, addrs, more []string
	listen := map[string]string{}
	hosts := make([]*host, len(chaosIDs)+chaosWorkers)
	for i, id := range chaosIDs {
		raft := ""
		if c.net != nil {
			copy(hosts, c.net.hosts)
			raft, listen[id], more = hosts[i].addr(7071), hosts[i].addr(7070), []string{"--insecure"}
		} else {
			raft, listen[id] = freeAddr(c.t), freeAddr(c.t)
		}
		peers = append(peers, id+"="+raft)
		addrs = append(addrs, listen[id])
	}
	for i, id := range chaosIDs {
		args := append(chaosJob(filepath.Join(c.dir, id), c.steps),
			"--nodes", fmt.Sprint(chaosWorkers), "--id", id, "--peers", strings.Join(peers, ","),
			"--listen", listen[id], "--heartbeat-timeout", chaosHeartbeat.String(),
			"--commit-window", fmt.Sprint(chaosWindow), "--log-format", "json")
		c.coords[id] = &victim{
			name: id, program: filepath.Join(programs, "dpt-coord"),
			args: slices.Concat(args, more, c.flags), host: hosts[i],
		}
	}
	for i := range chaosWorkers {
		args := []string{
			"--coord", strings.Join(addrs, ","), "--threads", "1", "--log-format", "json", "--log-level", "debug",
		}
		c.workers = append(c.workers, &victim{
			name: fmt.Sprint("w", i), program: filepath.Join(programs, "dpt-worker"),
			args: append(args, more...), host: hosts[len(chaosIDs)+i],
		})
	}
	for _, v := range c.all() {
		c.start(v)
	}
}

func (c *chaos) all() []*victim {
	list := slices.Clone(c.workers)
	for _, id := range chaosIDs {
		list = append(list, c.coords[id])
	}
	return list
}

// committed is the last committed step that a replica has written down, with its generation and
// workers.
type committed struct {
	Step       int64 `json:"step"`
	Generation int64 `json:"generation"`
	Workers    int   `json:"workers"`
}

// lastCommitted is the latest of the steps that the replicas have written down.
func (c *chaos) lastCommitted() (best committed) {
	for _, id := range chaosIDs {
		if s := c.lastCommittedAt(id); s.Step > best.Step {
			best = s
		}
	}
	c.mu.Lock()
	c.known = best
	c.mu.Unlock()
	return best
}

// lastCommittedAt is the last line of a replica's metrics.jsonl.
func (c *chaos) lastCommittedAt(id string) (last committed) {
	f, err := os.Open(filepath.Join(c.dir, id, "metrics.jsonl"))
	if err != nil {
		return committed{}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return committed{}
	}
	tail := make([]byte, min(info.Size(), 2048))
	if n, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil {
		tail = tail[:n]
	}
	end := bytes.LastIndexByte(tail, '\n')
	if end < 0 {
		return committed{}
	}
	line := tail[bytes.LastIndexByte(tail[:end], '\n')+1 : end]
	if json.Unmarshal(line, &last) != nil {
		return committed{}
	}
	return last
}

// await waits until ok holds, or until the job is over, and reports whether ok holds.
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

// fatal ends the test with the last lines of all logs.
func (c *chaos) fatal(format string, args ...any) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, log := range c.logs {
		c.t.Logf("%s:\n%s", name, log[max(0, len(log)-4000):])
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

// awaitWhole waits until all workers are in the ring and every replica learns about new steps.
func (c *chaos) awaitWhole() bool {
	c.t.Helper()
	was := c.lastCommitted()
	return c.await("a whole cluster", func() bool {
		if c.lastCommitted().Workers != chaosWorkers {
			return false
		}
		for _, id := range chaosIDs {
			if c.lastCommittedAt(id).Step <= was.Step {
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

// worker is each worker in turn: one that fails repeatedly is left out for longer and longer.
func (c *chaos) worker() *victim {
	c.turn++
	return c.workers[c.turn%len(c.workers)]
}

var portsTried atomic.Int64

// freeAddr is an address that a killed process can use again: its port is below those that the
// system gives to listeners on port 0.
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
