package worker

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sort"
	"sync"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/coordinator/coordpb"
)

// discovery orders the coordinator's replicas for a worker that looks for the leader: first the
// replica that another one has just named as the leader, then all in turn, beginning after the one
// that was asked last, and last those that did not answer the last time. One goroutine uses it.
type discovery struct {
	addrs []string // as configured: host:port, where a host may stand for several replicas
	// targets resolves a host:port, which may take some seconds. Several goroutines call it.
	targets func(ctx context.Context, addr string) ([]dial.Target, error)

	leaderHint string          // the leader as a replica has just named it; "" once it was asked
	next       int             // where the next round begins among the resolved addresses
	silent     map[string]bool // dialed addresses that did not answer when they were last asked
}

// candidate is a replica to ask, or a name that does not resolve.
type candidate struct {
	dial.Target       // Addr is "" where the address is not known before it is dialed
	err         error // why the name has no address now; nil for a replica
}

// dialed is what stands for the replica's address.
func dialed(t dial.Target) string {
	if t.Addr == "" {
		return t.Name
	}
	return t.Addr
}

// candidates yields each replica once. A leader hint that recordAttempt takes in the meantime comes
// first.
func (d *discovery) candidates(ctx context.Context) iter.Seq[candidate] {
	return func(yield func(candidate) bool) {
		// Begin after the replica that was asked last, and end with the silent ones.
		all := d.resolve(ctx)
		if len(all) > 0 {
			d.next %= len(all)
			all = slices.Concat(all[d.next:], all[:d.next])
		}
		sort.SliceStable(all, func(i, j int) bool {
			return !d.silent[dialed(all[i].Target)] && d.silent[dialed(all[j].Target)]
		})

		known := all
		asked := map[dial.Target]bool{}
		for {
			// Take the hint if there is one that was not asked yet, else the next address.
			c := candidate{Target: hinted(d.leaderHint, known)}
			d.leaderHint = ""
			for len(all) > 0 && (c.Name == "" || asked[c.Target]) {
				c, all = all[0], all[1:]
			}
			if c.Name == "" || asked[c.Target] {
				return
			}
			asked[c.Target] = true
			d.next++
			if !yield(c) {
				return
			}
		}
	}
}

// hinted returns the target of an address that a replica has named: one of the known ones, if it is
// among them, so that TLS verifies the configured name.
func hinted(addr string, known []candidate) dial.Target {
	for _, c := range known {
		if c.err == nil && c.Addr == addr {
			return c.Target
		}
	}
	return dial.Target{Name: addr}
}

// recordAttempt notes how an attempt to join a replica, or a session with it, ended.
func (d *discovery) recordAttempt(t dial.Target, err error) {
	if d.silent == nil {
		d.silent = map[string]bool{}
	}
	d.silent[dialed(t)] = errors.Is(err, errSilent)
	if leader := coordpb.RedirectOf(err); leader != "" && leader != t.Name && leader != t.Addr {
		d.leaderHint = leader
	}
}

// resolve returns a candidate for each address of each name, in order. It looks all names up at the
// same time, since each may take as long as a name server does not answer.
func (d *discovery) resolve(ctx context.Context) []candidate {
	found := make([][]candidate, len(d.addrs))
	var wait sync.WaitGroup
	for i, addr := range d.addrs {
		wait.Go(func() {
			targets, err := d.targets(ctx, addr)
			if err != nil {
				found[i] = []candidate{{Target: dial.Target{Name: addr}, err: err}}
			}
			for _, t := range targets {
				found[i] = append(found[i], candidate{Target: t})
			}
		})
	}
	wait.Wait()
	return slices.Concat(found...)
}
