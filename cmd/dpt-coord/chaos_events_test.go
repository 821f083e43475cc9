package main

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// event is one thing that happens to one process and the links to its host.
type event struct {
	name   string
	victim func() *victim
	inject func(*victim)
	heal   func(*victim)
	// newRing reports whether the event ends the generation: the cluster has recovered when the
	// next generation has committed a step. After other events it has recovered when that number of
	// steps are committed.
	newRing bool
	steps   int64
}

// signals are the events that signals to processes make.
func (c *chaos) signals() []event {
	with := func(s syscall.Signal) func(*victim) { return func(v *victim) { c.signal(v, s) } }
	return []event{
		{"worker SIGKILL", c.worker, with(syscall.SIGKILL), c.heal, true, 1},
		{"worker SIGSTOP", c.worker, with(syscall.SIGSTOP), c.heal, true, 1},
		{"leader SIGKILL", c.leads, with(syscall.SIGKILL), c.heal, true, 1},
		{"leader SIGSTOP", c.leads, with(syscall.SIGSTOP), c.heal, true, 1},
		{"follower SIGKILL", c.follower, with(syscall.SIGKILL), c.heal, false, 1},
	}
}

// slowLink is a round trip of 160 ms, as between continents.
const slowLink = 80 * time.Millisecond

// partitions are what happens to links. Both ends of a cut link keep their connections and hear
// nothing.
func (c *chaos) partitions() []event {
	links := func(to, from bool, l link) func(*victim) {
		return func(v *victim) { c.net.set(v.host, to, from, l) }
	}
	whole := links(true, true, link{})
	cut := link{cut: true}
	alone, deaf, dumb := links(true, true, cut), links(true, false, cut), links(false, true, cut)
	slow := links(true, true, link{delay: slowLink})
	return []event{
		{"worker cut off", c.worker, alone, whole, true, 1},
		{"worker hears nothing", c.worker, deaf, whole, true, 1},
		{"worker is not heard", c.worker, dumb, whole, true, 1},
		{fmt.Sprintf("worker behind %v", slowLink), c.worker, slow, whole, false, 5},
		{"leader cut off", c.leads, alone, whole, true, 1},
		{"leader hears nothing", c.leads, deaf, whole, true, 1},
		{"leader is not heard", c.leads, dumb, whole, true, 1},
		{"follower cut off", c.follower, alone, whole, false, 1},
		{"follower hears nothing", c.follower, deaf, whole, false, 1},
	}
}

// calm does one event, times the recovery and makes the cluster whole again.
func (c *chaos) calm(e event) {
	c.t.Helper()
	if !c.awaitWhole() {
		return
	}
	v := e.victim()
	was := c.lastCommitted()
	began := time.Now()
	e.inject(v)
	if c.await("recovery from "+e.name+" of "+v.name, func() bool {
		now := c.lastCommitted()
		return now.Step >= was.Step+e.steps && (!e.newRing || now.Generation > was.Generation)
	}) {
		c.times[e.name] = append(c.times[e.name], time.Since(began))
		c.did[e.name]++
	}
	e.heal(v)
}

// rarest is the kind of event that has happened least.
func (c *chaos) rarest() event {
	return slices.MinFunc(c.kinds, func(a, b event) int { return c.did[a.name] - c.did[b.name] })
}

// heal brings a process back.
func (c *chaos) heal(v *victim) {
	switch {
	case v.stopped:
		c.signal(v, syscall.SIGCONT)
	case v.hasEnded() && v.cmd.ProcessState.ExitCode() != 0:
		c.start(v)
	}
}

// healAll brings back all processes and links.
func (c *chaos) healAll() {
	for _, v := range c.all() {
		c.heal(v)
		if v.host != nil {
			c.net.set(v.host, true, true, link{})
		}
	}
}

// wound is an event that has happened, and its healing to come.
type wound struct {
	v    *victim
	heal func(*victim)
	till time.Time
}

// storm hurts processes every few hundred milliseconds until the time is over or the job is: any
// workers, and one coordinator at a time, or sometimes everything at once.
func (c *chaos) storm(until time.Time) {
	var wounds []wound
	for !c.finished() {
		now := time.Now()
		wounds = slices.DeleteFunc(wounds, func(w wound) bool {
			if now.Before(w.till) {
				return false
			}
			w.heal(w.v)
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
				pause := time.Duration(c.rng.IntN(500)) * time.Millisecond
				wounds = append(wounds, wound{c.coords[id], c.heal, time.Now().Add(pause)})
			}
			c.did["storm: all coordinators SIGKILL"]++
			continue
		}
		e := c.kinds[c.rng.IntN(len(c.kinds))]
		v := e.victim()
		if v == nil || hurt(v) || v.hasEnded() || (c.coords[v.name] != nil && coordHurt) {
			continue
		}
		e.inject(v)
		c.did["storm: "+e.name]++
		pause := time.Duration(100+c.rng.IntN(2000)) * time.Millisecond
		wounds = append(wounds, wound{v, e.heal, time.Now().Add(pause)})
	}
}
