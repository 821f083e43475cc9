package worker_test

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/dptune/dpt/coordinator/replica"
)

// faultyNetwork tracks connections over loopback, so that a test can cut off a host by name.
type faultyNetwork struct {
	names map[string]string // host names by address; constant once connections are made

	mu    sync.Mutex                   // guards what follows
	cut   map[string]bool              // hosts that are cut off
	conns map[*trackedConn]connEndings // open connections
}

// connEndings are the names of a connection's ends; "" is unknown.
type connEndings struct{ from, to string }

func newFaultyNetwork() *faultyNetwork {
	return &faultyNetwork{
		names: map[string]string{},
		cut:   map[string]bool{},
		conns: map[*trackedConn]connEndings{},
	}
}

var errCut = errors.New("the connection is cut")

// track returns c as a connection that ends when one of its hosts is cut off.
func (n *faultyNetwork) track(c net.Conn, from, to string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[from] || n.cut[to] {
		return nil, errors.Join(errCut, c.Close())
	}
	t := &trackedConn{Conn: c, network: n}
	n.conns[t] = connEndings{from, to}
	return t, nil
}

// dialFrom returns a function that dials from the named host.
func (n *faultyNetwork) dialFrom(from string) replica.DialFunc {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return n.track(c, from, n.names[addr])
	}
}

// setCut cuts a host off, or heals it. Cutting closes its connections.
func (n *faultyNetwork) setCut(name string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[name] = cut
	for c, ends := range n.conns {
		if cut && (ends.from == name || ends.to == name) {
			delete(n.conns, c)
			c.Conn.Close()
		}
	}
}

// trackedConn is a connection that a faultyNetwork can cut.
type trackedConn struct {
	net.Conn
	network *faultyNetwork
}

func (c *trackedConn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}

// trackedListener accepts trackedConns for the named host.
type trackedListener struct {
	net.Listener
	network *faultyNetwork
	name    string
}

func (l *trackedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if t, err := l.network.track(c, "", l.name); err == nil {
			return t, nil
		}
	}
}
