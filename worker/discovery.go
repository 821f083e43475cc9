package worker

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net"
	"slices"
	"sort"

	"github.com/dptune/dpt/coordinator/coordpb"
)

// discovery orders the coordinator's replicas for a worker that looks for the leader: first the
// replica that another one has just named as the leader, then all in turn, beginning after the one
// that was asked last, and last those that did not answer the last time. One goroutine uses it.
type discovery struct {
	addrs  []string // as configured: host:port, where a host may stand for several replicas
	logger *slog.Logger

	leaderHint string          // the leader as a replica has just named it; "" once it was asked
	next       int             // where the next round begins among the resolved addresses
	silent     map[string]bool // replicas that did not answer when they were last asked
}

// candidates yields each replica's address once. A leader hint that recordAttempt takes in the
// meantime comes first.
func (d *discovery) candidates(ctx context.Context) iter.Seq[string] {
	return func(yield func(string) bool) {
		// Begin after the replica that was asked last, and end with the silent ones.
		all := resolveAddrs(ctx, d.addrs, d.logger)
		if len(all) > 0 {
			d.next %= len(all)
			all = slices.Concat(all[d.next:], all[:d.next])
		}
		sort.SliceStable(all, func(i, j int) bool { return !d.silent[all[i]] && d.silent[all[j]] })

		asked := map[string]bool{}
		for {
			// Take the hint if there is one that was not asked yet, else the next address.
			addr := d.leaderHint
			d.leaderHint = ""
			for len(all) > 0 && (addr == "" || asked[addr]) {
				addr, all = all[0], all[1:]
			}
			if addr == "" || asked[addr] {
				return
			}
			asked[addr] = true
			d.next++
			if !yield(addr) {
				return
			}
		}
	}
}

// recordAttempt notes how an attempt to join a replica, or a session with it, ended.
func (d *discovery) recordAttempt(addr string, err error) {
	if d.silent == nil {
		d.silent = map[string]bool{}
	}
	d.silent[addr] = errors.Is(err, errSilent)
	if leader := coordpb.RedirectOf(err); leader != "" && leader != addr {
		d.leaderHint = leader
	}
}

// resolveAddrs replaces a name that has several addresses by all of them. A name with one address
// stays a name.
func resolveAddrs(ctx context.Context, addrs []string, logger *slog.Logger) []string {
	var all []string
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || net.ParseIP(host) != nil {
			all = append(all, addr)
			continue
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			logger.Debug("name not found now", "coordinator", addr, "reason", err)
		}
		if len(ips) < 2 {
			all = append(all, addr)
			continue
		}
		for _, ip := range ips {
			all = append(all, net.JoinHostPort(ip, port))
		}
	}
	return all
}
