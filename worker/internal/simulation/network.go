package simulation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// network connects hosts by streams in memory. Its methods may be called from any goroutine of the bubble; none of
// them waits for the network while it holds the lock.
type network struct {
	seed uint64

	mu        sync.Mutex
	listeners map[string]*listener // by address
	links     map[[2]string]*link  // by from and to
	conns     []*conn              // both ends of every connection, in the order of dialing
}

// link is one direction between two hosts.
type link struct {
	from, to string
	base     time.Duration // latency
	jitter   time.Duration // on top, at most
	slow     int           // factor; 1 is as drawn
	blocked  int           // how many faults hold it
	dialed   uint64        // connections so far, which numbers their draws
}

func newNetwork(seed uint64) *network {
	return &network{seed: seed, listeners: map[string]*listener{}, links: map[[2]string]*link{}}
}

// linkLocked is the link from one host to another.
func (n *network) linkLocked(from, to string) *link {
	l := n.links[[2]string{from, to}]
	if l == nil {
		r := draw(n.seed, "link", from, to)
		l = &link{from: from, to: to, slow: 1, base: between(r, 50*time.Microsecond, 2*time.Millisecond), jitter: between(r, 10*time.Microsecond, 3*time.Millisecond)}
		n.links[[2]string{from, to}] = l
	}
	return l
}

// latency draws the time that one write takes.
func (l *link) latency(r *rand.Rand) time.Duration {
	return time.Duration(l.slow) * (l.base + time.Duration(r.Int64N(int64(l.jitter))))
}

// each changes the links between two hosts; "" is every other host. oneWay leaves the way back alone.
func (n *network) each(a, b string, oneWay bool, change func(*link)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		there := l.from == a && l.from != l.to && (b == "" || l.to == b)
		back := l.to == a && l.from != l.to && (b == "" || l.from == b)
		if there || back && !oneWay {
			change(l)
		}
	}
	for _, c := range n.conns {
		c.in.wake()
	}
}

// know makes all links between hosts, so that faults on links meet those not used yet.
func (n *network) know(hosts []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range hosts {
		for _, b := range hosts {
			n.linkLocked(a, b)
		}
	}
}

// cut breaks all connections between two hosts: both ends hear of it at once, and what was under way is lost.
func (n *network) cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		if c.host.name == a && c.peer.host.name == b || c.host.name == b && c.peer.host.name == a {
			c.in.chunks, c.in.local = nil, true
			c.in.end(reset, time.Now())
		}
	}
	n.sweepLocked()
}

// sweepLocked forgets connections that both ends have closed.
func (n *network) sweepLocked() {
	n.conns = slices.DeleteFunc(n.conns, func(c *conn) bool { return c.closed && c.peer.closed })
}

// host is one life of a machine's network stack.
type host struct {
	net  *network
	name string
	down bool // guarded by net.mu
}

var reset = &net.OpError{Op: "read", Net: "sim", Err: os.NewSyscallError("read", syscall.ECONNRESET)}

// die takes the host's life off the network. Neighbours hear of it at once if the process alone has died, and nothing
// if the machine has, until revive.
func (h *host) die(silently bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.down = true
	now := time.Now()
	for addr, l := range h.net.listeners {
		if l.host == h {
			delete(h.net.listeners, addr)
		}
	}
	for _, c := range h.net.conns {
		if c.host != h {
			continue
		}
		c.in.chunks, c.in.local = nil, true
		c.in.end(reset, now)
		if silently {
			c.peer.in.chunks = nil
		} else {
			c.peer.in.end(reset, c.peer.in.arrival(now))
		}
	}
}

// revive lets neighbours hear that the machine's earlier life is over.
func (h *host) revive() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	now := time.Now()
	for _, c := range h.net.conns {
		if c.host == h {
			c.peer.in.end(reset, c.peer.in.arrival(now))
		}
	}
}

type address string

// addressOf is a port of a host: cN is 10.0.1.N, wN is 10.0.2.N. Addresses are numbers so that nobody looks them up.
func addressOf(name string, port int) address {
	net := 2
	if name[0] == 'c' {
		net = 1
	}
	return address(fmt.Sprintf("10.0.%d.%s:%d", net, name[1:], port))
}

// nameAt is the inverse of addressOf.
func nameAt(addr string) (string, error) {
	var net, n, port int
	if _, err := fmt.Sscanf(addr, "10.0.%d.%d:%d", &net, &n, &port); err != nil || net < 1 || net > 2 {
		return "", fmt.Errorf("address %q, want 10.0.1.N:port or 10.0.2.N:port", addr)
	}
	return fmt.Sprintf("%c%d", "cw"[net-1], n), nil
}

func (a address) Network() string { return "sim" }
func (a address) String() string  { return string(a) }

// listener takes connections for one address.
type listener struct {
	host  *host
	addr  address
	queue chan *conn
	done  chan struct{}
	once  sync.Once
}

func (h *host) listen(port int) *listener {
	l := &listener{host: h, addr: addressOf(h.name, port), queue: make(chan *conn, 64), done: make(chan struct{})}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.listeners[string(l.addr)] = l
	return l
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.host.net.mu.Lock()
		defer l.host.net.mu.Unlock()
		if l.host.net.listeners[string(l.addr)] == l {
			delete(l.host.net.listeners, string(l.addr))
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// dialPoll is how often a dial over a held link looks again.
const dialPoll = 50 * time.Millisecond

// dial connects to an address, after a round trip. Over a held link it waits for as long as ctx allows.
func (h *host) dial(ctx context.Context, addr string) (net.Conn, error) {
	name, err := nameAt(addr)
	if err != nil {
		return nil, err
	}
	n := h.net
	n.mu.Lock()
	there, back := n.linkLocked(h.name, name), n.linkLocked(name, h.name)
	there.dialed++
	r := draw(n.seed, "conn", h.name, name, fmt.Sprint(there.dialed))
	wait := there.latency(r) + back.latency(r)
	n.mu.Unlock()
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		n.mu.Lock()
		if h.down {
			n.mu.Unlock()
			return nil, net.ErrClosed
		}
		if there.blocked == 0 && back.blocked == 0 {
			break
		}
		n.mu.Unlock()
		wait = dialPoll
	}
	defer n.mu.Unlock()
	l := n.listeners[addr]
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "sim", Addr: address(addr), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	a := &conn{host: h, local: address(h.name), remote: address(addr), in: newPipe(n, back, draw(r.Uint64(), "back"))}
	b := &conn{host: l.host, local: address(addr), remote: address(h.name), in: newPipe(n, there, draw(r.Uint64(), "there"))}
	a.peer, b.peer = b, a
	select {
	case l.queue <- b:
	default:
		return nil, &net.OpError{Op: "dial", Net: "sim", Addr: address(addr), Err: errors.New("backlog is full")}
	}
	n.conns = append(n.conns, a, b)
	return a, nil
}

// conn is one end of a connection.
type conn struct {
	host          *host
	peer          *conn
	in            *pipe // what comes from peer
	local, remote address
	closed        bool
}

// pipe carries bytes one way. network.mu guards it.
type pipe struct {
	net      *network
	link     *link
	rand     *rand.Rand
	chunks   []chunk
	last     time.Time // arrival of the last chunk
	err      error     // what the reader gets after the chunks, from errAt on
	errAt    time.Time
	local    bool // err is known here whatever the link does
	deadline time.Time
	changed  chan struct{}
}

type chunk struct {
	at   time.Time
	data []byte
}

func newPipe(n *network, l *link, r *rand.Rand) *pipe {
	return &pipe{net: n, link: l, rand: r, changed: make(chan struct{}, 1)}
}

func (p *pipe) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// arrival is when something sent now gets there: after all that was sent before.
func (p *pipe) arrival(now time.Time) time.Time {
	at := now.Add(p.link.latency(p.rand))
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	return at
}

// end makes the pipe end with err; the first reason counts.
func (p *pipe) end(err error, at time.Time) {
	if p.err == nil {
		p.err, p.errAt = err, at
	}
	p.wake()
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	p := c.in
	for {
		p.net.mu.Lock()
		now := time.Now()
		var next time.Time
		switch {
		case c.closed:
			p.net.mu.Unlock()
			return 0, net.ErrClosed
		case len(b) == 0:
			p.net.mu.Unlock()
			return 0, nil
		case p.link.blocked > 0 && !p.local:
			// Nothing arrives.
		case len(p.chunks) > 0 && !p.chunks[0].at.After(now):
			n := copy(b, p.chunks[0].data)
			if p.chunks[0].data = p.chunks[0].data[n:]; len(p.chunks[0].data) == 0 {
				p.chunks = p.chunks[1:]
			}
			p.net.mu.Unlock()
			return n, nil
		case len(p.chunks) > 0:
			next = p.chunks[0].at
		case p.err != nil && !p.errAt.After(now):
			err := p.err
			p.net.mu.Unlock()
			return 0, err
		case p.err != nil:
			next = p.errAt
		}
		deadline := p.deadline
		p.net.mu.Unlock()
		if !deadline.IsZero() {
			if !deadline.After(now) {
				return 0, os.ErrDeadlineExceeded
			}
			if next.IsZero() || deadline.Before(next) {
				next = deadline
			}
		}
		if next.IsZero() {
			<-p.changed
			continue
		}
		timer := time.NewTimer(next.Sub(now))
		select {
		case <-p.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Write implements net.Conn. It never waits: what is on its way has no bound but that of the protocols above.
func (c *conn) Write(b []byte) (int, error) {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	p := c.peer.in
	if c.host.down || c.peer.host.down || c.peer.closed || p.err != nil {
		return len(b), nil // into the void; the reader of this end learns of it
	}
	p.chunks = append(p.chunks, chunk{at: p.arrival(time.Now()), data: slices.Clone(b)})
	p.wake()
	return len(b), nil
}

// Close implements net.Conn.
func (c *conn) Close() error {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.in.wake()
	if !c.host.down {
		c.peer.in.end(io.EOF, c.peer.in.arrival(time.Now()))
	}
	n.sweepLocked()
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	c.in.deadline = t
	c.in.wake()
	return nil
}

// SetWriteDeadline implements net.Conn. Writes do not wait.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
