package worker

import (
	"context"
	"net"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/optim"
)

// Test hooks: where a simulation of a whole cluster crashes a worker, what it replaces, and the
// bugs that its tests plant.

// The crash points, at which Config.Mark is called: where a crash separates two effects that belong
// together.
const (
	afterJoin    = "worker: after join"    // the neighbours count on this member
	beforeReduce = "worker: before reduce" // only this worker has its gradient
	afterReduce  = "worker: after reduce"  // the others may have the sum or not
	afterUpdate  = "worker: after update"  // the new state is computed, the report is not sent
	afterReport  = "worker: after report"  // the report is sent, but may be lost on its way
)

// Marks returns all crash points in the order in which a step passes them.
func Marks() []string {
	return []string{afterJoin, beforeReduce, afterReduce, afterUpdate, afterReport}
}

// mark tells the simulation that this worker passes a crash point.
func (w *worker) mark(point string) {
	if w.Mark != nil {
		w.Mark(point)
	}
}

// dialer returns a function that connects to a HOST:PORT: Dial if that is set.
func (c *Config) dialer() dial.Func {
	if c.Dial != nil {
		return c.Dial
	}
	return dial.Dialer{Lookup: c.Lookup}.Dial
}

// targets returns the addresses that a HOST:PORT stands for. With Dial, which resolves names
// itself, that is the HOST:PORT.
func (c *Config) targets(ctx context.Context, addr string) ([]dial.Target, error) {
	if c.Dial != nil {
		return []dial.Target{{Name: addr, Addr: addr}}, nil
	}
	return dial.Dialer{Lookup: c.Lookup}.Targets(ctx, addr)
}

// targetDialer returns a function that connects to a target.
func (c *Config) targetDialer(t dial.Target) dial.Func {
	if c.Dial != nil {
		return c.Dial
	}
	if t.Addr == "" {
		// A name that another replica has named: its addresses share the time for a welcome.
		return func(ctx context.Context, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, welcomeTimeout)
			defer cancel()
			return c.dialer()(ctx, addr)
		}
	}
	return dial.Dialer{Lookup: c.Lookup}.DialTarget(t)
}

// open loads the backbone in dir, with Open if that is set.
func (w *worker) open(dir string) (Backbone, error) {
	if w.Open != nil {
		return w.Open(dir, w.Options)
	}
	b, err := model.Open(dir, w.Options)
	if err != nil {
		return nil, err // not b: a nil *model.Backbone is no nil Backbone
	}
	return b, nil
}

// Bugs of the protocol that the simulation's tests plant, to see that its checker finds them.
// Nothing else sets them.
var (
	// plantedUpdate is called after an update of the state of worker id. first reports whether the
	// step is the generation's first; again applies the update once more.
	plantedUpdate func(id string, first bool, state *optim.State, again func() error)
	// plantedRestore returns the state that a generation starts with, instead of the one that was
	// sent.
	plantedRestore func(have, sent optim.State) optim.State
)
