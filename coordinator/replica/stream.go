package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/internal/refusals"
)

const (
	// raftGreeting is the first thing that a replica sends on a connection, so that strangers and
	// other versions are told apart from damaged peers. Its last byte is the version of the
	// protocol for workers: a replica that could not serve the others' workers must not come to
	// lead.
	raftGreeting = "dptraft" + string(rune(coordpb.ProtocolVersion))
	// greetingTimeout bounds the wait for a peer's greeting.
	greetingTimeout = 5 * time.Second
	// maxUngreeted bounds the connections to the raft port on which no greeting has come yet.
	maxUngreeted = 64
	// maxRaftRequest bounds what a peer may send before it waits for an answer: a few appends, or a
	// snapshot.
	maxRaftRequest = maxSnapshot + 64<<20
)

// DialFunc connects to another replica's address.
type DialFunc = dial.Func

// raftStream is raft's StreamLayer over a listener and a dialer of the caller's, which may be TLS.
// It owns every connection: Close closes them all, so that no goroutine of raft's waits for a peer.
type raftStream struct {
	net.Listener
	addr   raftAddr
	dial   DialFunc
	logger *slog.Logger

	mu        sync.Mutex // guards the fields below
	conns     map[*raftConn]struct{}
	closed    bool
	ungreeted int              // connections that wait for the peer's greeting
	refused   refusals.Counter // connections beyond maxUngreeted
}

// raftAddr is the address by which the configuration names this replica.
type raftAddr string

func (raftAddr) Network() string  { return "tcp" }
func (a raftAddr) String() string { return string(a) }

func newRaftStream(l net.Listener, addr string, dialPeer DialFunc, logger *slog.Logger) *raftStream {
	if dialPeer == nil {
		dialPeer = dial.Dialer{}.Dial
	}
	return &raftStream{
		Listener: l,
		addr:     raftAddr(addr),
		dial:     dialPeer,
		logger:   logger,
		conns:    map[*raftConn]struct{}{},
	}
}

// Addr implements net.Listener.
func (s *raftStream) Addr() net.Addr { return s.addr }

// Accept implements net.Listener. It does not wait for the greeting, which the connection's first
// Read checks, so that a silent stranger holds up nobody.
func (s *raftStream) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		admitted, refused := s.admit()
		if admitted {
			return s.register(&raftConn{Conn: c, stream: s, awaitsGreeting: true, ungreeted: true})
		}
		_ = c.Close()
		if refused > 0 {
			s.logger.Warn("connections to the raft port refused: too many are open that have not greeted",
				"limit", maxUngreeted, "refused", refused, "last_from", c.RemoteAddr().String())
		}
	}
}

// admit counts an accepted connection among the ungreeted if there is room. If not, it returns how
// many refusals are to be logged, 0 for none now.
func (s *raftStream) admit() (admitted bool, refused int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ungreeted >= maxUngreeted {
		return false, s.refused.Add()
	}
	s.ungreeted++
	return true, 0
}

// noteGreeted takes a connection from the ungreeted, if it is one of them.
func (s *raftStream) noteGreeted(c *raftConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.ungreeted {
		c.ungreeted = false
		s.ungreeted--
	}
}

// Dial implements raft.StreamLayer. It sends the greeting.
func (s *raftStream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := s.dial(ctx, string(addr))
	if err != nil {
		return nil, err
	}
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if _, err := io.WriteString(c, raftGreeting); err != nil {
		return nil, errors.Join(fmt.Errorf("greet replica %s: %w", addr, err), c.Close())
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s.register(&raftConn{Conn: c, stream: s})
}

// register makes Close close the connection, or closes it if that is over.
func (s *raftStream) register(c *raftConn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, c.Conn.Close())
	}
	s.conns[c] = struct{}{}
	return c, nil
}

// Close implements net.Listener. It closes all connections too.
func (s *raftStream) Close() error {
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	err := s.Listener.Close()
	for c := range conns {
		_ = c.Conn.Close() // what it was sending is lost either way
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// raftConn is one connection between replicas. raft reads it from one goroutine at a time.
type raftConn struct {
	net.Conn
	stream *raftStream

	awaitsGreeting bool // the next Read has to check the greeting; only Read uses it
	ungreeted      bool // it counts in stream.ungreeted; under stream.mu

	mu   sync.Mutex
	read int // bytes since the last write; under mu
}

// Read implements net.Conn.
func (c *raftConn) Read(p []byte) (int, error) {
	if c.awaitsGreeting {
		if err := c.readGreeting(); err != nil {
			c.stream.logger.Warn("connection to the raft port refused", "from", c.RemoteAddr().String(), "reason", err)
			return 0, err
		}
		c.awaitsGreeting = false
		c.stream.noteGreeted(c)
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.read += n
	read := c.read
	c.mu.Unlock()
	if read > maxRaftRequest {
		return 0, fmt.Errorf("replica at %s sent %d bytes without waiting for an answer, want at most %d",
			c.RemoteAddr(), read, maxRaftRequest)
	}
	return n, err
}

// readGreeting reads the peer's greeting and refuses any but this replica's own.
func (c *raftConn) readGreeting() error {
	if err := c.SetReadDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return err
	}
	got := make([]byte, len(raftGreeting))
	if n, err := io.ReadFull(c.Conn, got); err != nil {
		return fmt.Errorf("greeting of %d bytes, want %d: %w", n, len(raftGreeting), err)
	}
	last := len(raftGreeting) - 1
	switch {
	case string(got[:last]) != raftGreeting[:last]:
		return fmt.Errorf("greeting %q, want that of a replica", got)
	case got[last] != raftGreeting[last]:
		return fmt.Errorf("the replica speaks protocol %d, this one speaks %d", got[last], raftGreeting[last])
	}
	return c.SetReadDeadline(time.Time{})
}

// Write implements net.Conn.
func (c *raftConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.read = 0
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *raftConn) Close() error {
	c.stream.noteGreeted(c)
	c.stream.mu.Lock()
	delete(c.stream.conns, c)
	c.stream.mu.Unlock()
	return c.Conn.Close()
}
