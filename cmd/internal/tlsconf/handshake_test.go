package tlsconf

import (
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/dptune/dpt/cmd/internal/certs"
	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

func peerOf(info credentials.AuthInfo) *x509.Certificate {
	if tls, ok := info.(credentials.TLSInfo); ok && len(tls.State.PeerCertificates) > 0 {
		return tls.State.PeerCertificates[0]
	}
	return nil
}

// side is one program in a test.
type side struct {
	leaf  *certs.KeyPair
	cas   []*certs.KeyPair
	plain bool
	after time.Duration // its clock, after start: certificates made for a day hold from then
}

func (s side) open(t *testing.T, r *record) *Conf {
	if s.plain {
		return Plain(r.logger())
	}
	c := newClock()
	conf := open(t, files(t, s.leaf, s.cas...), c, r) // all is well at the start
	c.advance(s.after)
	return conf
}

func TestWhoIsRefusedAndWhatBothSidesSay(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	a, b, foreign := newLeaf(t, ours, "a", start), newLeaf(t, ours, "b", start), newLeaf(t, theirs, "foreign", start)
	// At 22 hours one has an hour left, the other ended an hour ago.
	fresh := side{leaf: newLeaf(t, ours, "fresh", start.Add(-time.Hour)), cas: []*certs.KeyPair{ours},
		after: 22 * time.Hour}
	old := side{leaf: newLeaf(t, ours, "old", start.Add(-3*time.Hour)), cas: []*certs.KeyPair{ours},
		after: 22 * time.Hour}
	for _, test := range []struct {
		name                     string
		server, client           side
		serverReason, clientSays string // "" where they accept each other
	}{
		{"of one CA", side{leaf: a, cas: []*certs.KeyPair{ours}}, side{leaf: b, cas: []*certs.KeyPair{ours}}, "", ""},
		{"of two CAs that both know", side{leaf: a, cas: []*certs.KeyPair{theirs, ours}},
			side{leaf: foreign, cas: []*certs.KeyPair{ours, theirs}}, "", ""},
		{"no TLS at all", side{plain: true}, side{plain: true}, "", ""},
		{"foreign client", side{leaf: a, cas: []*certs.KeyPair{ours}},
			side{leaf: foreign, cas: []*certs.KeyPair{ours, theirs}},
			`certificate that is not accepted here, \"foreign\": x509: certificate signed by unknown authority`,
			"refused the connection: it does not know the CA that signed this program's certificate (tls: unknown " +
				"certificate authority)"},
		{"foreign server", side{leaf: foreign, cas: []*certs.KeyPair{ours, theirs}},
			side{leaf: a, cas: []*certs.KeyPair{ours}},
			"it refused the connection: it does not accept this program's certificate (tls: bad certificate)",
			`has a certificate that is not accepted here, "foreign": x509: certificate signed by unknown authority`},
		{"expired client", fresh, old, `\"old\": x509: certificate has expired or is not yet valid`,
			"refused the connection: by its clock this program's certificate has expired or is not valid yet (tls: " +
				"expired certificate)"},
		{"expired server", old, fresh, "it refused the connection",
			`certificate that is not accepted here, "old": x509: certificate has expired`},
		{"plain client", side{leaf: a, cas: []*certs.KeyPair{ours}}, side{plain: true}, "it does not speak TLS",
			"wants TLS: give --tls-cert, --tls-key and --tls-ca"},
		{"plain server", side{plain: true}, side{leaf: a, cas: []*certs.KeyPair{ours}}, "", "does not speak TLS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkMeeting(t, test.server, test.client, test.serverReason, test.clientSays)
		})
	}
}

func checkMeeting(t *testing.T, server, client side, serverReason, clientSays string) {
	t.Helper()
	var serverLog, clientLog record
	m, refused := meet(t, server.open(t, &serverLog), client.open(t, &clientLog))
	if serverReason == "" && clientSays == "" {
		if m.client != nil || refused != nil || strings.Contains(serverLog.String()+clientLog.String(), "refused") {
			t.Errorf("client %v (refusal %v), server %v, want them to meet", m.client, refused, m.server)
		}
		is := func(got, want *x509.Certificate) bool { return got != nil && got.Equal(want) }
		if !server.plain && (!is(m.clientSaw, server.leaf.Cert) || !is(m.srvrSaw, client.leaf.Cert)) {
			t.Error("the sides do not see each other's certificates")
		}
		return
	}
	var typed *RefusedError
	if m.client == nil || !errors.As(m.client, &typed) || !strings.Contains(m.client.Error(), clientSays) ||
		strings.Contains(m.client.Error(), "\n") {
		t.Errorf("the client says %v, want a refusal with %q", m.client, clientSays)
	}
	if refused == nil || refused.Error() != m.client.Error() {
		t.Errorf("the client's refusal is %v, want %v", refused, m.client)
	}
	if client.plain {
		if !strings.Contains(clientLog.String(), "wants TLS") {
			t.Errorf("the client's log says nothing of it: %s", &clientLog)
		}
	} else if !strings.Contains(clientLog.String(),
		`level=WARN msg="connection refused" to="the coordinator" remote=127.0.0.1:`) {
		t.Errorf("the client's log says nothing of it: %s", &clientLog)
	}
	if server.plain {
		return
	}
	if !serverLog.Await(`level=WARN msg="connection refused" port_for=workers remote=127.0.0.1:`, serverReason) {
		t.Errorf("the server logs %s, want %q", &serverLog, serverReason)
	}
}

func TestHostsAreVerified(t *testing.T) {
	ca := newCA(t, "ca")
	var log record
	conf := open(t, files(t, newLeaf(t, ca, "trainer.example", start), ca), newClock(), &log)
	for host, good := range map[string]bool{
		"trainer.example": true, "127.0.0.1": true, "::1": true, "localhost": true,
		"other.example": false, "10.0.0.1": false, "": false,
	} {
		if err := conf.CheckHost(host); (err == nil) != good {
			t.Errorf("CheckHost(%q) = %v, want good: %v", host, err, good)
		}
		if host == "" {
			continue
		}
		client, server := net.Pipe()
		addr := net.JoinHostPort(host, "7070")
		creds, served := conf.ClientCredentials("peer", false), make(chan error, 1)
		go func() {
			conn, _, err := conf.ServerCredentials("workers").ServerHandshake(server)
			if err == nil {
				_, err = conn.Write([]byte(greeting))
			}
			served <- err
		}()
		_, _, err := creds.ClientHandshake(t.Context(), addr, client)
		if refused := creds.Refusal(addr); (err == nil) != good || good == (refused != nil) {
			t.Errorf("dialed as %q: %v, refusal %v; want accepted: %v", host, err, refused, good)
		}
		if refused := creds.Refusal(addr); refused != nil {
			t.Errorf("dialed as %q: the refusal %v is told twice", host, refused)
		}
		client.Close()
		server.Close()
		<-served
	}
}

func TestClientWithoutACertificateIsRefused(t *testing.T) {
	ca := newCA(t, "ca")
	var log, clientLog record
	server := open(t, files(t, newLeaf(t, ca, "a", start), ca), newClock(), &log)
	client := open(t, files(t, newLeaf(t, ca, "b", start), ca), newClock(), &clientLog)
	client.source.good.cert.Certificate = nil // the program itself cannot be started without
	m, refused := meet(t, server, client)
	if m.client == nil || refused == nil ||
		!strings.Contains(refused.Error(), "it wants a certificate and was given none (tls: certificate required)") {
		t.Errorf("the client says %v", m.client)
	}
	if !log.Await(`reason="it presented no certificate"`) {
		t.Errorf("the server logs %s", &log)
	}
}

func TestNetworkFailuresAreNoRefusals(t *testing.T) {
	ca := newCA(t, "ca")
	var log record
	conf := open(t, files(t, newLeaf(t, ca, "a", start), ca), newClock(), &log)
	l := cmdtest.Listen(t)
	hungUp := make(chan struct{})
	go func() {
		defer close(hungUp)
		if raw, err := l.Accept(); err == nil {
			raw.Close()
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	creds := conf.ClientCredentials("peer", true)
	if _, _, err := creds.ClientHandshake(t.Context(), l.Addr().String(), raw); err == nil {
		t.Error("a handshake with a peer that hangs up succeeds")
	} else if refused := creds.Refusal(l.Addr().String()); refused != nil {
		t.Errorf("a peer that hangs up counts as a refusal: %v", refused)
	}
	<-hungUp

	client, server := net.Pipe()
	client.Close()
	if _, _, err := conf.ServerCredentials("workers").ServerHandshake(server); err == nil {
		t.Error("a handshake with nobody succeeds")
	}
	if strings.Contains(log.String(), "WARN") {
		t.Errorf("a client that connects and says nothing is worth a warning: %s", &log)
	}
}

func TestRefusalsDoNotFloodTheLog(t *testing.T) {
	var log record
	c := newClock()
	d := &refusalLog{log: log.logger(), now: c.now}
	for range 1000 {
		d.warn("refused")
	}
	if n := strings.Count(log.String(), "\n"); n != refusalBurst {
		t.Errorf("%d lines for 1000 refusals at once, want %d", n, refusalBurst)
	}
	c.advance(refusalEvery)
	d.warn("refused")
	d.warn("refused")
	if n := strings.Count(log.String(), "\n"); n != refusalBurst+1 ||
		!strings.Contains(log.String(), "not_logged_before=990") {
		t.Errorf("%d lines, want one more, with the number of those not logged:\n%s", n, &log)
	}
	c.advance(-time.Hour) // a clock that is set back neither floods nor gives a debt
	d.warn("refused")
	c.advance(time.Hour + refusalEvery*refusalBurst*2)
	for range 100 {
		d.warn("refused")
	}
	if n := strings.Count(log.String(), "\n"); n != 2*refusalBurst+1 {
		t.Errorf("%d lines, want the burst again after a silence", n)
	}
}
