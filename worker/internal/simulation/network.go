package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// network connects hosts by streams in memory. Its methods may be called from any goroutine of the
// bubble; none of them waits for the network while it holds the lock.
type network struct {
	seed uint64

	mu        sync.Mutex           // guards what follows, and the fields of hosts, links, conns and pipes
	listeners map[string]*listener // by address
	links     map[[2]string]*link  // by from and to
	conns     []*conn              // both ends of every connection, in the order of dialing
}

// link is one direction between two hosts.
type link struct {
	from, to string
	base     time.Duration // the least latency
	jitter   time.Duration // the most that is added to it
	slowdown int           // factor; 1 is as drawn
	holds    int           // how many faults hold it
	dialed   uint64        // connections so far, which numbers their draws
}

func newNetwork(seed uint64) *network {
	return &network{seed: seed, listeners: map[string]*listener{}, links: map[[2]string]*link{}}
}

// linkLocked returns the link from one host to another.
func (n *network) linkLocked(from, to string) *link {
	l := n.links[[2]string{from, to}]
	if l == nil {
		r := seededRand(n.seed, "link", from, to)
		l = &link{
			from:     from,
			to:       to,
			base:     between(r, 50*time.Microsecond, 2*time.Millisecond),
			jitter:   between(r, 10*time.Microsecond, 3*time.Millisecond),
			slowdown: 1,
		}
		n.links[[2]string{from, to}] = l
	}
	return l
}

// latency draws the time that one write takes.
func (l *link) latency(r *rand.Rand) time.Duration {
	return time.Duration(l.slowdown) * (l.base + time.Duration(r.Int64N(int64(l.jitter))))
}

// changeLinks changes the links between two hosts, in both directions unless oneWay. An empty b
// means every other host.
func (n *network) changeLinks(a, b string, oneWay bool, change func(*link)) {
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

// createLinks makes all links between hosts, so that changeLinks affects those that are not used
// yet.
func (n *network) createLinks(hosts []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range hosts {
		for _, b := range hosts {
			n.linkLocked(a, b)
		}
	}
}

// disconnect breaks all connections between two hosts. Both ends learn of it at once, and what is
// under way is lost.
func (n *network) disconnect(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		if c.host.name == a && c.peer.host.name == b || c.host.name == b && c.peer.host.name == a {
			c.in.chunks, c.in.immediate = nil, true
			c.in.endWith(errReset, time.Now())
		}
	}
	n.dropClosedLocked()
}

// dropClosedLocked drops the connections that both ends have closed.
func (n *network) dropClosedLocked() {
	n.conns = slices.DeleteFunc(n.conns, func(c *conn) bool { return c.closed && c.peer.closed })
}

// host is a machine's network stack, for one process.
type host struct {
	net  *network
	name string
	down bool // its process has ended; guarded by net.mu
}

var errReset = &net.OpError{Op: "read", Net: "sim", Err: os.NewSyscallError("read", syscall.ECONNRESET)}

// takeDown ends the host's listeners and connections. The other ends learn of it, unless silently
// because the machine has lost its power: then they learn nothing until revive.
func (h *host) takeDown(silently bool) {
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
		c.in.chunks, c.in.immediate = nil, true
		c.in.endWith(errReset, now)
		if silently {
			c.peer.in.chunks = nil
		} else {
			c.peer.in.endWith(errReset, c.peer.in.arrival(now))
		}
	}
}

// revive lets the other ends of the host's connections learn that these have ended: the machine
// runs again.
func (h *host) revive() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	now := time.Now()
	for _, c := range h.net.conns {
		if c.host == h {
			c.peer.in.endWith(errReset, c.peer.in.arrival(now))
		}
	}
}

// address is an address of the simulated network. It implements net.Addr.
type address string

// addressOf returns the address of a host's port: cN is 10.0.1.N, wN is 10.0.2.N. Hosts are
// numbers, so that no names are looked up.
func addressOf(name string, port int) address {
	net := 2
	if name[0] == 'c' {
		net = 1
	}
	return address(fmt.Sprintf("10.0.%d.%s:%d", net, name[1:], port))
}

// nameAt returns the name of the host at an address of addressOf.
func nameAt(addr string) (string, error) {
	var net, n, port int
	if _, err := fmt.Sscanf(addr, "10.0.%d.%d:%d", &net, &n, &port); err != nil || net < 1 || net > 2 {
		return "", fmt.Errorf("address %q, want 10.0.1.N:port or 10.0.2.N:port", addr)
	}
	return fmt.Sprintf("%c%d", "cw"[net-1], n), nil
}

func (a address) Network() string { return "sim" }
func (a address) String() string  { return string(a) }

// listener accepts the connections to one address.
type listener struct {
	host  *host
	addr  address
	queue chan *conn
	done  chan struct{}
	once  sync.Once
}

// listen listens on a port of the host.
func (h *host) listen(port int) *listener {
	l := &listener{
		host:  h,
		addr:  addressOf(h.name, port),
		queue: make(chan *conn, 64),
		done:  make(chan struct{}),
	}
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

// dialPoll is the interval at which a dial over a held link tries again.
const dialPoll = 50 * time.Millisecond

// dial connects to an address, which takes a round trip. Over a held link it waits for as long as
// ctx allows.
func (h *host) dial(ctx context.Context, addr string) (net.Conn, error) {
	name, err := nameAt(addr)
	if err != nil {
		return nil, err
	}

	// Wait for a round trip, until neither direction is held.
	n := h.net
	n.mu.Lock()
	there, back := n.linkLocked(h.name, name), n.linkLocked(name, h.name)
	there.dialed++
	r := seededRand(n.seed, "conn", h.name, name, fmt.Sprint(there.dialed))
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
		if there.holds == 0 && back.holds == 0 {
			break
		}
		n.mu.Unlock()
		wait = dialPoll
	}
	defer n.mu.Unlock()

	// Connect both ends.
	dialError := func(err error) error {
		return &net.OpError{Op: "dial", Net: "sim", Addr: address(addr), Err: err}
	}
	l := n.listeners[addr]
	if l == nil {
		return nil, dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	a := &conn{
		host:   h,
		local:  address(h.name),
		remote: address(addr),
		in:     newPipe(n, back, seededRand(r.Uint64(), "back")),
	}
	b := &conn{
		host:   l.host,
		local:  address(addr),
		remote: address(h.name),
		in:     newPipe(n, there, seededRand(r.Uint64(), "there")),
	}
	a.peer, b.peer = b, a
	select {
	case l.queue <- b:
	default:
		return nil, dialError(errors.New("backlog is full"))
	}
	n.conns = append(n.conns, a, b)
	return a, nil
}
