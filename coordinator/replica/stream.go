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

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/internal/refusals"
)

const (
	// raftGreeting opens every connection between replicas, so that a stranger or another version
	// is told apart from a damaged peer. Its last byte is the version of the protocol: what
	// replicas say to each other changes with what they say to workers, as a replica that could not
	// serve the others' workers must not come to lead.
	raftGreeting = "dptraft" + string(rune(coordpb.ProtocolVersion))
	// greetingTimeout bounds the wait for it.
	greetingTimeout = 5 * time.Second
	// maxUngreeted bounds the connections to the raft port that have not greeted.
	maxUngreeted = 64
	// maxRaftRequest bounds what a peer may send without having been answered: a few appends in
	// flight, or a snapshot.
	maxRaftRequest = maxSnapshot + 64<<20
)

// DialFunc connects to another replica.
type DialFunc func(ctx context.Context, addr string) (net.Conn, error)

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// raftStream is raft's StreamLayer over a listener and a dialer of the caller's, which may be TLS.
// It owns every connection: Close ends them all, so that nothing of raft's waits for a peer.
type raftStream struct {
	net.Listener
	addr   raftAddr
	dial   DialFunc
	logger *slog.Logger

	mu      sync.Mutex
	conns   map[*raftConn]struct{}
	closed  bool
	silent  int // connections that have not greeted
	refused refusals.Counter
}

// raftAddr is the address by which the configuration names this replica.
type raftAddr string

func (raftAddr) Network() string  { return "tcp" }
func (a raftAddr) String() string { return string(a) }

func newRaftStream(l net.Listener, addr string, dial DialFunc, logger *slog.Logger) *raftStream {
	if dial == nil {
		dial = dialTCP
	}
	return &raftStream{Listener: l, addr: raftAddr(addr), dial: dial, logger: logger, conns: map[*raftConn]struct{}{}}
}

// Addr implements net.Listener.
func (s *raftStream) Addr() net.Addr { return s.addr }

// Accept implements net.Listener. The greeting is read with the first bytes, so that a silent
// stranger holds up nobody.
func (s *raftStream) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		full, say := s.silent >= maxUngreeted, 0
		if full {
			say = s.refused.Add()
		} else {
			s.silent++
		}
		s.mu.Unlock()
		if !full {
			return s.own(&raftConn{Conn: c, stream: s, greet: true, silent: true})
		}
		_ = c.Close()
		if say > 0 {
			s.logger.Warn("connections to the raft port refused: too many are open that have not greeted", "limit", maxUngreeted, "refused", say, "last_from", c.RemoteAddr().String())
		}
	}
}

// heard takes a connection from those that have not greeted.
func (s *raftStream) heard(c *raftConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.silent {
		c.silent = false
		s.silent--
	}
}

// Dial implements raft.StreamLayer.
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
	return s.own(&raftConn{Conn: c, stream: s})
}

func (s *raftStream) own(c *raftConn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, c.Conn.Close())
	}
	s.conns[c] = struct{}{}
	return c, nil
}

// Close implements net.Listener. It ends all connections too.
func (s *raftStream) Close() error {
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	err := s.Listener.Close()
	for c := range conns {
		_ = c.Conn.Close() // what was under way on it is lost either way
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
	greet  bool // the greeting is still to be read
	silent bool // it counts among those that have not greeted; under stream.mu

	mu   sync.Mutex
	read int // bytes since the last write
}

// Read implements net.Conn.
func (c *raftConn) Read(p []byte) (int, error) {
	if c.greet {
		if err := c.greeting(); err != nil {
			c.stream.logger.Warn("connection to the raft port refused", "from", c.RemoteAddr().String(), "reason", err)
			return 0, err
		}
		c.greet = false
		c.stream.heard(c)
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.read += n
	over := c.read > maxRaftRequest
	c.mu.Unlock()
	if over {
		return 0, fmt.Errorf("replica at %s sent %d bytes without waiting for an answer, want at most %d", c.RemoteAddr(), c.read, maxRaftRequest)
	}
	return n, err
}

func (c *raftConn) greeting() error {
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
	c.stream.heard(c)
	c.stream.mu.Lock()
	delete(c.stream.conns, c)
	c.stream.mu.Unlock()
	return c.Conn.Close()
}
