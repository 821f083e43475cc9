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

// finder says in which order to ask the coordinator's replicas: first the one that was last said to lead, then all in
// turn, going on after the one that was asked last, and at the end those that did not answer when they were last asked.
type finder struct {
	addrs  []string
	logger *slog.Logger
	hint   string // the leader, as a replica has just named it
	next   int
	silent map[string]bool
}

// round yields each replica's address once; a hint that comes on the way goes first.
func (f *finder) round(ctx context.Context) iter.Seq[string] {
	return func(yield func(string) bool) {
		all := resolve(ctx, f.addrs, f.logger)
		if len(all) > 0 {
			f.next %= len(all)
			all = slices.Concat(all[f.next:], all[:f.next])
		}
		sort.SliceStable(all, func(i, j int) bool { return !f.silent[all[i]] && f.silent[all[j]] })
		asked := map[string]bool{}
		for {
			addr := f.hint
			f.hint = ""
			for len(all) > 0 && (addr == "" || asked[addr]) {
				addr, all = all[0], all[1:]
			}
			if addr == "" || asked[addr] {
				return
			}
			asked[addr] = true
			f.next++
			if !yield(addr) {
				return
			}
		}
	}
}

// heard takes note of how an attempt or a session with a replica ended.
func (f *finder) heard(addr string, err error) {
	if f.silent == nil {
		f.silent = map[string]bool{}
	}
	f.silent[addr] = errors.Is(err, errSilent)
	if leader := coordpb.RedirectOf(err); leader != "" && leader != addr {
		f.hint = leader
	}
}

// resolve replaces a name that has several addresses by all of them. A name that has one stays a name.
func resolve(ctx context.Context, addrs []string, logger *slog.Logger) []string {
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
