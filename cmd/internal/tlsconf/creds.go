package tlsconf

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// http2 is the ALPN name of gRPC's protocol.
const http2 = "h2"

// ServerCredentials are for a gRPC server. role names the use of the port in the log. Without TLS
// they secure nothing.
func (c *Conf) ServerCredentials(role string) credentials.TransportCredentials {
	if !c.Enabled() {
		return insecure.NewCredentials()
	}
	return &serverCredentials{conf: c, role: role, refusals: &refusalLog{log: c.log, now: c.now}}
}

type serverCredentials struct {
	conf     *Conf
	role     string
	refusals *refusalLog
}

// ServerHandshake implements credentials.TransportCredentials.
func (s *serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, s.conf.Server(http2))
	err := conn.HandshakeContext(ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != http2 {
		err = errors.New("it did not ask for HTTP/2")
	}
	if err != nil {
		s.refusals.handshakeFailed(s.role, raw.RemoteAddr(), err)
		if bad, ok := errors.AsType[tls.RecordHeaderError](err); ok && bad.Conn != nil {
			answerPlaintext(raw)
		}
		conn.Close()
		return nil, nil, err
	}
	return conn, infoOf(conn), nil
}

// ClientHandshake implements credentials.TransportCredentials: servers do not dial.
func (s *serverCredentials) ClientHandshake(
	context.Context, string, net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these TLS credentials are a server's")
}

func (s *serverCredentials) Info() credentials.ProtocolInfo          { return tlsInfo() }
func (s *serverCredentials) Clone() credentials.TransportCredentials { return s }
func (s *serverCredentials) OverrideServerName(name string) error    { return refuseOverride(name) }

func tlsInfo() credentials.ProtocolInfo { return credentials.ProtocolInfo{SecurityProtocol: "tls"} }

// refuseOverride is the answer to OverrideServerName: the certificate is for the host that is
// dialed.
func refuseOverride(name string) error {
	return fmt.Errorf("server name %q cannot be put in place of the host that is dialed", name)
}

func infoOf(conn *tls.Conn) credentials.TLSInfo {
	return credentials.TLSInfo{
		State:          conn.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}
}

// tlsAlert is the first byte of a TLS alert record (RFC 8446, section 5.1). No HTTP/2 connection
// starts with it: it would be a settings frame of more than a million bytes.
const tlsAlert = 21

// answerPlaintext answers a client that does not speak TLS. The answer is what any TLS library
// takes for a protocol_version alert, and what plainConn recognizes. It then reads what the client
// has sent: closing a connection with unread bytes resets it, and the answer would be lost.
func answerPlaintext(raw net.Conn) {
	if raw.SetDeadline(time.Now().Add(time.Second)) != nil {
		return
	}
	if _, err := raw.Write([]byte{tlsAlert, 3, 3, 0, 2, 2, 70}); err != nil {
		return
	}
	if half, ok := raw.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, raw, 1<<12)
	}
}

// ClientCredentials are for gRPC clients. They verify the host that is dialed.
type ClientCredentials struct {
	conf     *Conf
	role     string
	refusals *refusalLog // nil where the caller reports refusals itself

	mu      sync.Mutex
	refused map[string]*RefusedError // by address
}

// ClientCredentials returns credentials for a client of one kind of peer, which role names. With
// logged, refusals are logged, for clients that retry silently. Without TLS the credentials secure
// nothing.
func (c *Conf) ClientCredentials(role string, logged bool) *ClientCredentials {
	cc := &ClientCredentials{conf: c, role: role, refused: map[string]*RefusedError{}}
	if logged {
		cc.refusals = &refusalLog{log: c.log, now: c.now}
	}
	return cc
}

// Refusal tells why the latest connection to a HOST:PORT was refused, by either side. It is a
// *RefusedError, or nil if the connection was accepted, failed for another reason, or was asked
// about before. An attempt that reaches nobody is no connection: a caller must not take an earlier
// refusal for its result.
func (cc *ClientCredentials) Refusal(addr string) error {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if r := cc.refused[addr]; r != nil {
		delete(cc.refused, addr)
		return r
	}
	return nil
}

// ClientHandshake implements credentials.TransportCredentials. It returns when the server has
// accepted this client's certificate and sent its first byte.
func (cc *ClientCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn,
	credentials.AuthInfo, error) {
	if !cc.conf.Enabled() {
		_, info, err := insecure.NewCredentials().ClientHandshake(ctx, authority, raw)
		return &plainConn{Conn: raw, peer: authority, recordOutcome: cc.recordOutcome}, info, err
	}
	conn := tls.Client(raw, cc.conf.Client(hostOf(authority), http2))
	first := make([]byte, 1<<10)
	err := conn.HandshakeContext(ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != http2 {
		err = errors.New("it did not agree to HTTP/2")
	}
	if err == nil {
		var n int
		n, err = readFirst(ctx, conn, first)
		first = first[:n]
	}
	if err = cc.recordOutcome(authority, raw, err); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return &prereadConn{Conn: conn, first: first}, infoOf(conn), nil
}

// recordOutcome records whether the connection raw to peer was refused, for Refusal and the log. It
// returns err, as a *RefusedError where it is a refusal.
func (cc *ClientCredentials) recordOutcome(peer string, raw net.Conn, err error) error {
	var r *RefusedError
	if err != nil {
		r = refusal(peerName(peer, raw), err)
	}
	cc.mu.Lock()
	if r == nil {
		delete(cc.refused, peer)
	} else {
		cc.refused[peer] = r
	}
	cc.mu.Unlock()
	if r == nil {
		return err
	}
	if cc.refusals != nil {
		cc.refusals.warn("connection refused", "to", cc.role, "remote", r.Peer, "reason", "it "+r.Reason)
	}
	return r
}

// ServerHandshake implements credentials.TransportCredentials: clients do not serve.
func (cc *ClientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these TLS credentials are a client's")
}

// Info implements credentials.TransportCredentials.
func (cc *ClientCredentials) Info() credentials.ProtocolInfo {
	if !cc.conf.Enabled() {
		return insecure.NewCredentials().Info()
	}
	return tlsInfo()
}

// Clone implements credentials.TransportCredentials. The copy shares its state, so that Refusal
// knows about all connections.
func (cc *ClientCredentials) Clone() credentials.TransportCredentials { return cc }

// OverrideServerName implements credentials.TransportCredentials.
func (cc *ClientCredentials) OverrideServerName(name string) error { return refuseOverride(name) }

// readFirst reads the server's first bytes, until ctx ends.
func readFirst(ctx context.Context, conn net.Conn, buf []byte) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	n, err := conn.Read(buf)
	if !stop() {
		return n, context.Cause(ctx)
	}
	return n, err
}

// prereadConn is a connection whose first bytes have been read.
type prereadConn struct {
	*tls.Conn
	first []byte
}

func (g *prereadConn) Read(p []byte) (int, error) {
	if len(g.first) > 0 {
		n := copy(p, g.first)
		g.first = g.first[n:]
		return n, nil
	}
	return g.Conn.Read(p)
}

// plainConn is a client's connection in plain text. It recognizes the answer of answerPlaintext.
type plainConn struct {
	net.Conn
	peer          string
	recordOutcome func(peer string, raw net.Conn, err error) error
	hasRead       bool // Read is called from one goroutine at a time
}

func (p *plainConn) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if n > 0 && !p.hasRead {
		p.hasRead = true
		var refused error
		if b[0] == tlsAlert {
			refused = &RefusedError{
				Peer:   peerName(p.peer, p.Conn),
				Reason: "wants TLS: give --tls-cert, --tls-key and --tls-ca",
			}
		}
		if refused = p.recordOutcome(p.peer, p.Conn, refused); refused != nil {
			return 0, refused
		}
	}
	return n, err
}

var _ interface {
	credentials.TransportCredentials
	Refusal(addr string) error
} = (*ClientCredentials)(nil)
