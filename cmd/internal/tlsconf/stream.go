package tlsconf

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// accepted is the one byte that the server sends when it has accepted the client. In some
// protocols, such as raft's, the dialing side speaks first; Dial waits for this byte before that.
const accepted = 1

// Listen returns l with TLS, for connections that Dial makes and that carry the named protocol
// (ALPN). role names the use of the port in the log. Accept does not wait for a handshake: the
// first Read or Write of a connection makes it. Without TLS Listen returns l.
func (c *Conf) Listen(l net.Listener, role, protocol string) net.Listener {
	if !c.Enabled() {
		return l
	}
	return &listener{Listener: l, config: c.Server(protocol), role: role, refusals: &refusalLog{log: c.log, now: c.now}}
}

type listener struct {
	net.Listener
	config   *tls.Config
	role     string
	refusals *refusalLog
}

func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &servedConn{Conn: tls.Server(raw, l.config), listener: l}, nil
}

// servedConn makes its handshake when it is first used.
type servedConn struct {
	*tls.Conn
	listener *listener
	once     sync.Once
	err      error
}

func (s *servedConn) handshake() error {
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
		defer cancel()
		if s.err = s.HandshakeContext(ctx); s.err != nil {
			s.listener.refusals.handshakeFailed(s.listener.role, s.RemoteAddr(), s.err)
			return
		}
		_, s.err = s.Conn.Write([]byte{accepted})
	})
	return s.err
}

func (s *servedConn) Read(p []byte) (int, error) {
	if err := s.handshake(); err != nil {
		return 0, err
	}
	return s.Conn.Read(p)
}

func (s *servedConn) Write(p []byte) (int, error) {
	if err := s.handshake(); err != nil {
		return 0, err
	}
	return s.Conn.Write(p)
}

// Dial connects to a HOST:PORT that Listen serves. It returns when the server has accepted this
// program's certificate. The error is a *RefusedError where one side refused the other. ctx bounds
// all of it.
func (c *Conf) Dial(ctx context.Context, addr, protocol string) (net.Conn, error) {
	raw, err := c.dialer.Dial(ctx, addr)
	if err != nil || !c.Enabled() {
		return raw, err
	}
	conn := tls.Client(raw, c.Client(hostOf(addr), protocol))
	if err = conn.HandshakeContext(ctx); err == nil {
		var verdict [1]byte
		_, err = readFirst(ctx, conn, verdict[:])
	}
	if err != nil {
		conn.Close()
		if r := refusal(peerName(addr, raw), err); r != nil {
			return nil, r
		}
		return nil, err
	}
	return conn, nil
}
