package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/tlsconf"
	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/replica"
)

// peerEntry checks for one replica as ID=HOST:PORT.
func peerEntry(v string) error {
	id, addr, ok := strings.Cut(v, "=")
	if !ok || id == "" {
		return errors.New("want ID=HOST:PORT")
	}
	return cli.HostPort(addr)
}

// replication turns the flags into the configuration of a replica; without --peers there is none.
func (o *options) replication(cmd *cli.Command, cfg *coordinator.Config) error {
	if len(o.peers) == 0 {
		for _, f := range []string{"id", "raft-listen", "advertise", "join", "election-timeout"} {
			if cmd.Changed(f) {
				return cmd.Usagef("--%s without --peers, want both or neither", f)
			}
		}
		return nil
	}
	if o.id == "" {
		return cmd.Usagef("--peers without --id, want the id of this replica among them")
	}
	r := &replica.Replication{ID: o.id, Join: o.join, ElectionTimeout: o.election}
	own, seen := "", map[string]bool{}
	for _, v := range o.peers {
		id, addr, _ := strings.Cut(v, "=")
		if seen[id] || seen[addr] {
			return cmd.Usagef("--peers %s: %s is there twice, want every id and address once",
				strings.Join(o.peers, ","), v)
		}
		seen[id], seen[addr] = true, true
		if id == o.id {
			own = addr
		}
		if err := o.security.Check(cmd, tlsconf.Address{Flag: "peers", Addr: addr}); err != nil {
			return err
		}
		r.Peers = append(r.Peers, replica.Peer{ID: id, Addr: addr})
	}
	if own == "" {
		return cmd.Usagef("--id %s: want one of --peers %s", o.id, strings.Join(o.peers, ","))
	}
	if len(r.Peers)%2 == 0 && !o.join {
		return cmd.Usagef("--peers %s: found %d replicas, want an odd number such as 3 or 5",
			strings.Join(o.peers, ","), len(r.Peers))
	}
	if o.raftListen == "" {
		o.raftListen = own
	}
	if err := o.security.Check(cmd, tlsconf.Address{Flag: "raft-listen", Addr: o.raftListen}); err != nil {
		return err
	}
	cfg.Replication = r
	return nil
}

const (
	// listenWait bounds the wait for a name to listen on, which a cluster may make only after it
	// has started this process; listenRetry is the pause before it is looked up again.
	listenWait  = 30 * time.Second
	listenRetry = time.Second
	// listenLookup bounds one look-up.
	listenLookup = 8 * time.Second
)

// listenForReplicas listens on addr, which is this replica's in --peers and so often a name. While
// the name does not resolve, it says so and tries again, for listenWait.
func listenForReplicas(ctx context.Context, addr string, logger *slog.Logger) (net.Listener, error) {
	warned := false
	for deadline := time.Now().Add(listenWait); ; {
		lookup, cancel := context.WithTimeout(ctx, listenLookup)
		l, err := new(net.ListenConfig).Listen(lookup, "tcp", addr)
		cancel()
		if _, unresolved := errors.AsType[*net.DNSError](err); !unresolved || time.Now().After(deadline) {
			return l, err
		}
		if !warned {
			warned = true
			logger.Warn("the address for the other replicas does not resolve yet; trying again",
				"address", addr, "for", listenWait, "reason", err)
		}
		select {
		case <-time.After(listenRetry):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// workerAddr is the address that workers are sent to. It is the address of the listener; where that
// listens on every interface, its host is the one by which the other replicas know this one.
func (o *options) workerAddr(listening net.Addr) string {
	if o.advertise != "" {
		return o.advertise
	}
	tcp, ok := listening.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return listening.String()
	}
	_, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return listening.String()
	}
	for _, v := range o.peers {
		id, addr, _ := strings.Cut(v, "=")
		if host, _, err := net.SplitHostPort(addr); id == o.id && err == nil {
			return net.JoinHostPort(host, port)
		}
	}
	return listening.String()
}
