package worker

import (
	"context"
	"iter"
	"log/slog"
	"net"

	"github.com/dptune/dpt/coordinator/coordpb"
)

// finder says in which order to ask the coordinator's replicas: first the one that was last said to lead, then all in
// turn, going on after the one that was asked last.
type finder struct {
	addrs  []string
	logger *slog.Logger
	hint   string // what the last refusal named
	next   int
}

// round yields each replica's address once; a hint that comes on the way goes first.
func (f *finder) round(ctx context.Context) iter.Seq[string] {
	return func(yield func(string) bool) {
		asked := map[string]bool{}
		ask := func(addr string) bool {
			if addr == "" || asked[addr] {
				return true
			}
			asked[addr] = true
			return yield(addr)
		}
		all := resolve(ctx, f.addrs, f.logger)
		for i := range all {
			for f.hint != "" {
				hint := f.hint
				f.hint = ""
				if !ask(hint) {
					f.hint = hint // it took us: ask it first next time
					return
				}
			}
			addr := all[(f.next+i)%len(all)]
			if !ask(addr) {
				f.next = (f.next + i) % len(all)
				return
			}
		}
		if hint := f.hint; hint != "" {
			f.hint = ""
			if !ask(hint) {
				f.hint = hint
			}
		}
		f.next++
	}
}

// refused takes note of what a replica that does not lead says.
func (f *finder) refused(addr string, err error) {
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
