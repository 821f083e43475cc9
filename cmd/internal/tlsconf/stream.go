package tlsconf

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// Some protocols let the dialing side speak first, raft's is one. There the server says one byte of its own when it has
// accepted the client, and Dial waits for it.
const accepted = 1

// Listen returns l with TLS, for connections that carry the protocol named (ALPN) and that Dial made; role says in the log what
// the port is for. Accept does not wait for a handshake: the first Read or Write of a connection makes it. Without TLS it
// returns l.
func (c *Conf) Listen(l net.Listener, role, protocol string) net.Listener {
	if !c.Enabled() {
		return l
	}
	return &listener{Listener: l, config: c.Server(protocol), role: role, doorman: &doorman{log: c.log, now: c.now}}
}

type listener struct {
	net.Listener
	config  *tls.Config
	role    string
	doorman *doorman
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
			s.listener.doorman.turnAway(s.listener.role, s.RemoteAddr(), s.err)
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

// Dial connects to a HOST:PORT that Listen serves. It returns when that has accepted this program's certificate; the error
// is a *RefusedError where one side refused the other. ctx bounds the whole.
func (c *Conf) Dial(ctx context.Context, addr, protocol string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
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
		if r := refusal(addr, err); r != nil {
			return nil, r
		}
		return nil, err
	}
	return conn, nil
}
