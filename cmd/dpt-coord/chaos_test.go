package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

// Three coordinators and four workers as processes, killed and stopped at random, their links cut
// and slowed. Each round is a whole job; it must end with the bytes of the undisturbed run at every
// replica, every step that any replica has ever seen committed must be that run's, no generation
// may start before such a step, and none may do more steps again than the commit window and the one
// in flight.
//
// A round begins calm: an event at a time, each when the cluster is whole again, from which
// recovery is timed. It ends as a storm.

var (
	chaosFor    = flag.Duration("chaos", 10*time.Second, "how long to disturb the cluster")
	chaosCalm   = flag.Bool("chaos.calm", false, "time recovery from single events only, without storms")
	chaosEvents = flag.Int("chaos.events", 0,
		"time recovery from `N` single events of each kind, however long that takes")
	chaosNet = flag.Bool("chaos.net", false, "each process in a network namespace of its own, and partitions "+
		"and slow links among the events; needs root on Linux")
	chaosOnly      = flag.String("chaos.only", "", "only events whose names match the `REGEXP`")
	chaosHeartbeat = flag.Duration("chaos.heartbeat", time.Second, "the coordinators' --heartbeat-timeout")
)

const chaosWorkers = 4

func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("ten seconds of chaos: skipped with -short")
	}
	t.Parallel()
	steps := 600
	if *chaosFor < time.Minute && *chaosEvents == 0 {
		steps = 250 // a short run's job must not go on long after the storm
	}
	c := newChaos(t, steps)
	if *chaosNet {
		c.net = newNetwork(t, len(chaosIDs)+chaosWorkers)
		c.kinds = slices.Concat(c.signals(), c.partitions())
	}
	only, err := regexp.Compile(*chaosOnly)
	if err != nil {
		t.Fatal(err)
	}
	c.kinds = slices.DeleteFunc(c.kinds, func(e event) bool { return !only.MatchString(e.name) })
	if len(c.kinds) == 0 {
		t.Fatalf("-chaos.only %s matches no kind of event", *chaosOnly)
	}
	until := time.Now().Add(*chaosFor)
	c.rounds(func() bool {
		if *chaosEvents > 0 {
			return c.did[c.rarest().name] >= *chaosEvents
		}
		return time.Now().After(until)
	}, func() {
		if !*chaosCalm && *chaosEvents == 0 {
			c.storm(until)
		}
	})
}

// Each kind of partition once, real processes on either side.
func TestPartitions(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute of partitions: skipped with -short")
	}
	t.Parallel()
	nw := newNetwork(t, len(chaosIDs)+chaosWorkers)
	c := newChaos(t, 300)
	c.net, c.kinds = nw, c.partitions()
	c.rounds(func() bool { return c.did[c.rarest().name] > 0 }, nil)
}

// newChaos runs the job undisturbed.
func newChaos(t *testing.T, steps int) *chaos {
	t.Helper()
	dir := t.TempDir()
	start(t, "dpt-coord", append(chaosJob(filepath.Join(dir, "whole"), steps), "--local")...).mustEnd(0)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &chaos{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), dir: dir, steps: steps,
		reference: cmdtest.ReadFile(t, dir, "whole", "prompt.safetensors"),
		digests:   stepDigests(t, filepath.Join(dir, "whole")),
		did:       map[string]int{},
		times:     map[string][]time.Duration{},
	}
	c.kinds = c.signals()
	return c
}

// rounds runs jobs until enough has happened, and prints what did. Where there is a storm each kind
// of event comes once before it.
func (c *chaos) rounds(enough func() bool, storm func()) {
	c.t.Helper()
	dir, rounds := c.dir, 0
	var pace []time.Duration // of steps that follow a step of the same generation
	for !enough() && !c.t.Failed() {
		rounds++
		c.dir = filepath.Join(dir, fmt.Sprint("round", rounds))
		c.round(enough, storm)
		pace = append(pace, c.pace()...)
	}
	slices.Sort(pace)
	step := quantile(pace, 0.5)
	bits := "all with the bits of the undisturbed run"
	if c.t.Failed() {
		bits = "not all as they should be"
	}
	c.t.Logf("%d jobs of %d steps, %s; a step takes %v (p50)\n%s%s",
		rounds, c.steps, bits, step.Round(time.Millisecond), c.table(), c.verdict(step))
}

// round is one whole job.
func (c *chaos) round(enough func() bool, storm func()) {
	c.t.Helper()
	c.cluster()
	defer func() {
		for _, v := range c.all() {
			c.signal(v, syscall.SIGKILL)
		}
	}()
	c.awaitWhole()
	stormy := storm != nil && !*chaosCalm && *chaosEvents == 0
	for i := 0; !enough() && !c.finished() && (!stormy || i < len(c.kinds)); i++ {
		c.calm(c.rarest())
	}
	if stormy {
		storm()
	}
	c.healAll()
	for _, id := range chaosIDs {
		c.mustHaveAll(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.redone {
		c.again = append(c.again, n)
	}
}

// mustHaveAll waits for a coordinator's end and compares what it has written with the undisturbed
// run.
func (c *chaos) mustHaveAll(id string) {
	c.t.Helper()
	v := c.coords[id]
	select {
	case <-v.gone:
	case <-time.After(2 * time.Minute):
		c.fatal("coordinator %s does not end after the job", id)
	}
	if code := v.cmd.ProcessState.ExitCode(); code != 0 {
		c.fatal("coordinator %s ended with exit code %d", id, code)
	}
	if !bytes.Equal(c.reference, cmdtest.ReadFile(c.t, c.dir, id, "prompt.safetensors")) {
		c.t.Errorf("prompt.safetensors of replica %s differs from the undisturbed run's", id)
	}
	got := stepDigests(c.t, filepath.Join(c.dir, id))
	if len(got) != c.steps {
		c.t.Errorf("replica %s has %d steps in metrics.jsonl, want %d", id, len(got), c.steps)
	}
	for step, d := range got {
		if d != c.digests[step] {
			c.t.Fatalf("replica %s: state after step %d is %s, the undisturbed run's %s", id, step, d, c.digests[step])
		}
	}
}

func chaosJob(out string, steps int) []string {
	return smallJob(out, "--steps", fmt.Sprint(steps), "--seed", "3")
}

// stepLine is the line of metrics.jsonl about a step.
type stepLine struct {
	Step       int64   `json:"step"`
	Seconds    float64 `json:"seconds"`
	Generation int64   `json:"generation"`
	Digest     string  `json:"state_digest"`
}

func stepLines(t *testing.T, out string) (lines []stepLine) {
	t.Helper()
	for line := range bytes.Lines(cmdtest.ReadFile(t, out, "metrics.jsonl")) {
		var l stepLine
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// stepDigests are the states after each step that a replica wrote down.
func stepDigests(t *testing.T, out string) map[int64]string {
	t.Helper()
	m := map[int64]string{}
	for _, l := range stepLines(t, out) {
		if m[l.Step] != "" {
			t.Fatalf("%s: step %d twice", out, l.Step)
		}
		m[l.Step] = l.Digest
	}
	return m
}

// pace lists the times of the round's steps that followed a step of the same generation.
func (c *chaos) pace() (list []time.Duration) {
	var generation int64
	for _, l := range stepLines(c.t, filepath.Join(c.dir, chaosIDs[0])) {
		if l.Generation == generation {
			list = append(list, time.Duration(l.Seconds*float64(time.Second)))
		}
		generation = l.Generation
	}
	return list
}

// quantile of sorted times.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(len(times)-1, int(q*float64(len(times))))]
}

// table lists the events, how long recovery took and how many steps were done again.
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
		at := func(q float64) time.Duration { return quantile(times, q).Round(time.Millisecond) }
		fmt.Fprintf(w, "%s\t%d\t%v\t%v\t%v\n", name, c.did[name], at(0.5), at(0.95), at(1))
	}
	w.Flush()
	var sum, most int
	for _, n := range c.again {
		sum += n
		most = max(most, n)
	}
	fmt.Fprintf(&b, "generations that lost a committed step: %d; steps begun and done again, the one in flight and "+
		"the window's %d included: %d in %d generations, at most %d in one\n",
		c.lost, chaosWindow, sum, len(c.again), most)
	return b.String()
}

// verdict compares the recovery from single faults with the promised times, beyond the time of a
// step.
func (c *chaos) verdict(step time.Duration) string {
	var b bytes.Buffer
	for _, want := range []struct {
		name string
		most time.Duration
	}{
		{"worker SIGKILL", 1500 * time.Millisecond},
		{"worker SIGSTOP", *chaosHeartbeat + 1500*time.Millisecond},
		{"leader SIGKILL", 3 * time.Second},
	} {
		times := c.times[want.name]
		if len(times) == 0 {
			continue
		}
		holds, few := "holds", ""
		if quantile(times, 0.95) > want.most+step {
			holds = "DOES NOT HOLD"
		}
		if len(times) < 50 {
			few = fmt.Sprintf(" (of %d events, want 50)", len(times))
		}
		fmt.Fprintf(&b, "%s: p95 at most %v and a step %s%s\n", want.name, want.most, holds, few)
	}
	return b.String()
}
