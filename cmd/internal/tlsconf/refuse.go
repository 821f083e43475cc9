package tlsconf

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dptune/dpt/allreduce/dial"
)

// RefusedError tells why this side or the peer refused a connection.
type RefusedError struct {
	Peer   string // its address; for a name with the address that was reached
	Reason string // a clause about the peer: "does not speak TLS"
	Err    error  // may be nil
}

func (e *RefusedError) Error() string { return e.Peer + " " + e.Reason }
func (e *RefusedError) Unwrap() error { return e.Err }

// peerName is a dialed HOST:PORT in messages. A name may stand for several machines, so the address
// that raw has reached stands beside it.
func peerName(addr string, raw net.Conn) string {
	return dial.Target{Name: addr, Addr: raw.RemoteAddr().String()}.String()
}

// refusal returns the refusal that err is, or nil where the network or the peer has failed. err is
// the error of a handshake or of the first read after it.
func refusal(peer string, err error) *RefusedError {
	if already, ok := errors.AsType[*RefusedError](err); ok {
		return already
	}
	r := &RefusedError{Peer: peer, Err: err}
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		r.Reason = "has a certificate that is not accepted here"
		if len(bad.UnverifiedCertificates) > 0 {
			r.Reason += fmt.Sprintf(", %q", nameOf(bad.UnverifiedCertificates[0]))
		}
		r.Reason += fmt.Sprintf(": %v", bad.Err)
		return r
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		r.Reason = "does not speak TLS"
		return r
	}
	// The library does not export the type of alerts, only that one came.
	if remote, ok := errors.AsType[*net.OpError](err); ok && remote.Op == "remote error" {
		what := "refused the connection"
		if said, ok := alerts[remote.Err.Error()]; ok {
			what += ": " + said
		}
		r.Reason = fmt.Sprintf("%s (%v)", what, remote.Err)
		return r
	}
	if isNetworkError(err) {
		return nil
	}
	if strings.Contains(err.Error(), "didn't provide a certificate") { // the library has no type for it
		r.Reason = "presented no certificate"
		return r
	}
	r.Reason = fmt.Sprintf("failed the TLS handshake: %v", err)
	return r
}

// alerts explain the alerts of a peer, by crypto/tls's text for them (RFC 8446, section 6.2).
var alerts = map[string]string{
	"tls: certificate required":           "it wants a certificate and was given none",
	"tls: unknown certificate authority":  "it does not know the CA that signed this program's certificate",
	"tls: expired certificate":            "by its clock this program's certificate has expired or is not valid yet",
	"tls: bad certificate":                "it does not accept this program's certificate",
	"tls: protocol version not supported": "it has no TLS version in common with this program, which wants 1.3",
	"tls: no application protocol":        "it serves another protocol there",
}

// isNetworkError reports whether err means that the network failed or the peer vanished.
func isNetworkError(err error) bool {
	op, isOp := errors.AsType[*net.OpError](err)
	isOp = isOp && op.Op != "remote error" && op.Op != "local error" // those are TLS alerts
	return isOp || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || isTimeout(err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// refusalLog logs refused connections at a bounded rate, since anybody who reaches the port
// determines their number.
type refusalLog struct {
	log *slog.Logger
	now func() time.Time

	mu       sync.Mutex // guards the fields below
	tokens   float64    // lines that may be logged now: a token bucket
	filled   time.Time  // when tokens was last updated; zero before the first refusal
	unlogged int        // refusals since the last line
}

const (
	// refusalBurst refusals may be logged at once, and then one every refusalEvery.
	refusalBurst = 10
	refusalEvery = 10 * time.Second
)

// warn logs a refusal at level warn. The line also counts the refusals before it that were not
// logged.
func (d *refusalLog) warn(message string, attrs ...any) {
	d.mu.Lock()
	now := d.now()
	if d.filled.IsZero() {
		d.tokens = refusalBurst
	} else {
		d.tokens = min(refusalBurst, d.tokens+max(0, float64(now.Sub(d.filled))/float64(refusalEvery)))
	}
	d.filled = now
	if d.tokens < 1 {
		d.unlogged++
		d.mu.Unlock()
		return
	}
	d.tokens--
	unlogged := d.unlogged
	d.unlogged = 0
	d.mu.Unlock()
	if unlogged > 0 {
		attrs = append(attrs, "not_logged_before", unlogged)
	}
	d.log.Warn(message, attrs...)
}

// handshakeFailed logs why the serving side refused a connection.
func (d *refusalLog) handshakeFailed(role string, remote net.Addr, err error) {
	switch {
	case isTimeout(err):
		reason := fmt.Sprintf("no TLS handshake within %v", handshakeTimeout)
		d.warn("connection given up", "port_for", role, "remote", remote.String(), "reason", reason)
	case isNetworkError(err):
		// Port scans and health checks connect and say nothing.
		d.log.Debug("connection ended in its TLS handshake", "port_for", role, "remote", remote.String(), "reason", err)
	default:
		reason := err.Error()
		if r := refusal(remote.String(), err); r != nil {
			reason = "it " + r.Reason
		}
		d.warn("connection refused", "port_for", role, "remote", remote.String(), "reason", reason)
	}
}
