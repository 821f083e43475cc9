package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/dptune/dpt/allreduce/dial"
)

// handshakeTimeout bounds a handshake on the serving side.
const handshakeTimeout = 10 * time.Second

// Conf secures the connections of one program. Its methods may be called from any goroutine.
type Conf struct {
	source *source // nil without TLS
	now    func() time.Time
	log    *slog.Logger
	dialer dial.Dialer // tests set its Lookup

	// serverNames are the names for which the peers of a role are verified instead of the host that
	// is dialed; serverName is the one that Toward has chosen, "" for the host that is dialed.
	serverNames map[Role]string
	serverName  string
}

// Role is what a peer does that is dialed.
type Role string

// The roles.
const (
	Coordinator Role = "coordinator" // each of its replicas, on both of its ports
	Worker      Role = "worker"      // a ring neighbour
)

// Toward returns the Conf for connections to peers of one role: it verifies the name that
// --tls-server-name gives to the role, or without that the host that is dialed. Without Toward it
// is always the host.
func (c *Conf) Toward(role Role) *Conf {
	toward := *c
	toward.serverName = c.serverNames[role]
	return &toward
}

// verified is the name that a server's certificate must be good for when host is dialed.
func (c *Conf) verified(host string) string {
	if c.serverName != "" {
		return c.serverName
	}
	return host
}

// Open reads the files and checks them. now is the clock for the validity of certificates; nil is
// time.Now.
func Open(files Files, now func() time.Time, log *slog.Logger) (*Conf, error) {
	if now == nil {
		now = time.Now
	}
	s, err := newSource(files, now, log)
	if err != nil {
		return nil, err
	}
	return &Conf{source: s, now: now, log: log}, nil
}

// Plain secures nothing. Its clients still recognize a server that wants TLS, and say so.
func Plain(log *slog.Logger) *Conf { return &Conf{now: time.Now, log: log} }

// Enabled reports whether connections use TLS.
func (c *Conf) Enabled() bool { return c.source != nil }

// CheckHost checks that the host is among the names of this program's certificate, since its peers
// will dial it by that name. Where Toward has chosen another name for this program's role, the
// peers are taken to do the same, and that name must be there. Without TLS there is nothing to
// check.
func (c *Conf) CheckHost(host string) error {
	if !c.Enabled() {
		return nil
	}
	host = c.verified(host)
	leaf := c.source.current().cert.Leaf
	if err := leaf.VerifyHostname(host); err != nil {
		return fmt.Errorf("--tls-cert %s: certificate %q is good for %v, want %s among them, by which this program "+
			"is reached", c.source.files.Cert, nameOf(leaf), names(leaf), host)
	}
	return nil
}

// Server is the configuration of a serving side, for connections that carry the named protocol
// (ALPN). It follows changes of the files. It is nil without TLS.
func (c *Conf) Server(protocol string) *tls.Config {
	if !c.Enabled() {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := c.source.current()
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				Time:         c.now,
				Certificates: []tls.Certificate{m.cert},
				ClientCAs:    m.roots,
				ClientAuth:   tls.RequireAndVerifyClientCert,
				NextProtos:   []string{protocol},
				// A resumed session would skip the check of the certificate.
				SessionTicketsDisabled: true,
				// Small records first would help whoever waits for a first byte; here messages
				// count as a whole.
				DynamicRecordSizingDisabled: true,
			}, nil
		},
	}
}

// Client is the configuration of a dialing side. host is the DNS name or IP address that is dialed.
// The server's certificate must be good for it, or for the name that Toward has chosen. The
// configuration follows changes of the files, so it may
// be kept. It is nil without TLS.
func (c *Conf) Client(host, protocol string) *tls.Config {
	if !c.Enabled() {
		return nil
	}
	host = c.verified(host)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       c.now,
		ServerName: host,
		NextProtos: []string{protocol},

		DynamicRecordSizingDisabled: true,
		// Sent whatever CAs the server says it knows: it can then say what is wrong with it.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &c.source.current().cert, nil
		},
		// The library's own verification has fixed roots; verify does the same with those that the
		// file holds now.
		InsecureSkipVerify: true,
		VerifyConnection:   func(cs tls.ConnectionState) error { return c.verify(cs, host) },
	}
}

// verify is a client's check of a server's certificate.
func (c *Conf) verify(cs tls.ConnectionState, host string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("tls: the server sent no certificate")
	}
	opts := x509.VerifyOptions{
		Roots:         c.source.current().roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   c.now(),
		DNSName:       host,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, cert := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := cs.PeerCertificates[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
	}
	return nil
}

// names are the hosts that a certificate is good for.
func names(c *x509.Certificate) []string {
	list := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	return list
}

// hostOf is the host of HOST:PORT, or all of addr where there is no port.
func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
