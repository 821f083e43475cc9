package simulation

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"time"
)

// conn is one end of a connection. It implements net.Conn.
type conn struct {
	host          *host
	peer          *conn
	in            *pipe // from peer
	local, remote address
	closed        bool // guarded by network.mu
}

// pipe carries bytes in one direction. network.mu guards its fields.
type pipe struct {
	net       *network
	link      *link
	rand      *rand.Rand    // of latencies
	chunks    []chunk       // what is under way, or has arrived and is not read yet
	last      time.Time     // when the last chunk arrives
	err       error         // what the reader gets after the chunks, from errAt on
	errAt     time.Time     // when err arrives
	immediate bool          // err comes from the reader's own host, so a held link does not hold it
	deadline  time.Time     // of the reader
	changed   chan struct{} // tells the reader to look again
}

// chunk is the data of one write and when it arrives.
type chunk struct {
	at   time.Time
	data []byte
}

func newPipe(n *network, l *link, r *rand.Rand) *pipe {
	return &pipe{net: n, link: l, rand: r, changed: make(chan struct{}, 1)}
}

// wake makes the reader look again.
func (p *pipe) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// arrival returns when something sent now arrives: not before what was sent earlier.
func (p *pipe) arrival(now time.Time) time.Time {
	at := now.Add(p.link.latency(p.rand))
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	return at
}

// endWith makes the pipe end with err at a time. The first reason counts.
func (p *pipe) endWith(err error, at time.Time) {
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
		case p.link.holds > 0 && !p.immediate:
			// Nothing arrives on a held link.
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

// Write implements net.Conn. It never waits: only the protocols above bound what is under way.
func (c *conn) Write(b []byte) (int, error) {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	p := c.peer.in
	if c.host.down || c.peer.host.down || c.peer.closed || p.err != nil {
		return len(b), nil // it is lost; the reader of this end learns that the connection has ended
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
		c.peer.in.endWith(io.EOF, c.peer.in.arrival(time.Now()))
	}
	n.dropClosedLocked()
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
