package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// lookupTimeout bounds the resolution of a name. A resolver gives a name server that is down
	// five seconds before it asks the next.
	lookupTimeout = 8 * time.Second
	// addressTimeout bounds the connection to one address. It leaves time for a lost packet, which
	// TCP sends again after a second.
	addressTimeout = 3 * time.Second
)

// Func connects to a HOST:PORT. ctx bounds the attempt only, not the connection.
type Func func(ctx context.Context, addr string) (net.Conn, error)

// Lookup returns the IP addresses of a host name, best first.
type Lookup func(ctx context.Context, host string) ([]string, error)

// Dialer connects over TCP. The zero value uses the system's resolver. Any goroutine may call its
// methods.
type Dialer struct {
	// Lookup resolves names; nil is the system's resolver.
	Lookup Lookup
}

// Target is one of the addresses that a HOST:PORT stands for.
type Target struct {
	// Name is the HOST:PORT, for whose host TLS verifies the peer.
	Name string
	// Addr is the address to connect to, as IP:PORT. It is Name where that has an IP, and "" where
	// the name is not resolved.
	Addr string
}

// String is the name, with the address where that is another.
func (t Target) String() string {
	if t.Addr == t.Name || t.Addr == "" {
		return t.Name
	}
	return t.Name + " (" + t.Addr + ")"
}

// Targets resolves the host of addr, HOST:PORT, and returns a target for each of its addresses. The
// error is a *ResolveError where the host has none, and an error of net's where addr is no
// HOST:PORT.
func (d Dialer) Targets(ctx context.Context, addr string) ([]Target, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" { // no host is this machine
		return []Target{{Name: addr, Addr: addr}}, nil
	}
	lookup := d.Lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupHost
	}
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := lookup(bounded, host)
	if err == nil && len(ips) == 0 {
		err = errors.New("it has no address")
	}
	if err != nil {
		return nil, &ResolveError{Host: host, Err: err}
	}
	targets := make([]Target, 0, len(ips))
	for _, ip := range ips {
		t := Target{Name: addr, Addr: net.JoinHostPort(ip, port)}
		if !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	return targets, nil
}

// Dial connects to addr, HOST:PORT: to the first of the host's addresses that answers. If the time
// of ctx does not suffice for addressTimeout at each address, they share it. The error is a
// *ResolveError or a *ConnectError where the host is a name.
func (d Dialer) Dial(ctx context.Context, addr string) (net.Conn, error) {
	targets, err := d.Targets(ctx, addr)
	if err != nil {
		return nil, err
	}
	failed := &ConnectError{Name: addr}
	for i, t := range targets {
		timeout := addressTimeout
		if deadline, ok := ctx.Deadline(); ok {
			timeout = min(timeout, time.Until(deadline)/time.Duration(len(targets)-i))
		}
		conn, err := connect(ctx, t.Addr, timeout)
		if err == nil {
			return conn, nil
		}
		if t.Addr == t.Name {
			return nil, err // it names the address
		}
		failed.Attempts = append(failed.Attempts, Attempt{Addr: t.Addr, Err: err})
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// DialTarget returns a Func that connects to the address of t whatever address it is given, so that
// gRPC knows the peer by its name.
func (d Dialer) DialTarget(t Target) Func {
	return func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := connect(ctx, t.Addr, addressTimeout)
		if err != nil && t.Addr != t.Name {
			err = &ConnectError{Name: t.Name, Attempts: []Attempt{{Addr: t.Addr, Err: err}}}
		}
		return conn, err
	}
}

// LocalIP returns the IP address of this machine from which it reaches addr, HOST:PORT. It sends
// nothing there. The error is a *ResolveError or a *ConnectError where the host is a name.
func (d Dialer) LocalIP(ctx context.Context, addr string) (string, error) {
	targets, err := d.Targets(ctx, addr)
	if err != nil {
		return "", err
	}
	failed := &ConnectError{Name: addr}
	for _, t := range targets {
		conn, err := new(net.Dialer).DialContext(ctx, "udp", t.Addr) // chooses a route, no more
		if err != nil {
			failed.Attempts = append(failed.Attempts, Attempt{Addr: t.Addr, Err: err})
			continue
		}
		host, _, err := net.SplitHostPort(conn.LocalAddr().String())
		return host, errors.Join(err, conn.Close())
	}
	return "", failed
}

// connect connects to an IP:PORT within timeout.
func connect(ctx context.Context, addr string, timeout time.Duration) (net.Conn, error) {
	return (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", addr)
}
