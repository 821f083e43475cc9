package tlsconf

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/certs"
	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

// Certificates come from the code behind dpt certs; the clock is the test's, so nothing waits for
// an end.

var start = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

// clock is set by hand. The handshake's own timeouts do not look at it.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: start} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// newCA is an authority for ten days from start.
func newCA(t testing.TB, name string) *certs.KeyPair {
	t.Helper()
	ca, err := certs.NewCA(name, certs.ValidFor(start, 240*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// newLeaf is a certificate for loopback, for a day from the given time.
func newLeaf(t testing.TB, ca *certs.KeyPair, name string, from time.Time) *certs.KeyPair {
	t.Helper()
	leaf, err := certs.Issue(ca, []string{name}, certs.Validity{From: from, Until: from.Add(24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// files writes a program's three files to a new directory.
func files(t testing.TB, leaf *certs.KeyPair, cas ...*certs.KeyPair) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
		CA: filepath.Join(dir, "ca.pem")}
	f.put(t, leaf, cas...)
	return f
}

// put replaces the files as certificate managers do: written aside and renamed.
func (f Files) put(t testing.TB, leaf *certs.KeyPair, cas ...*certs.KeyPair) {
	t.Helper()
	var trusted []byte
	for _, ca := range cas {
		trusted = append(trusted, ca.CertPEM...)
	}
	cmdtest.WriteFile(t, f.CA, trusted)
	cmdtest.WriteFile(t, f.Key, leaf.KeyPEM)
	cmdtest.WriteFile(t, f.Cert, leaf.CertPEM)
}

// record keeps the lines of a logger.
type record struct{ cmdtest.Output }

func (r *record) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func open(t testing.TB, f Files, c *clock, r *record) *Conf {
	t.Helper()
	conf, err := Open(f, c.now, r.logger())
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// meeting is what came of one connection.
type meeting struct {
	client, server     error
	clientSaw, srvrSaw *x509.Certificate // the other side's
}

// greeting is a gRPC server's first word: an empty settings frame of HTTP/2.
const greeting = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// meet connects two sides by their gRPC credentials.
func meet(t testing.TB, server, client *Conf) (m meeting, refused error) {
	t.Helper()
	l := cmdtest.Listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			m.server = err
			return
		}
		defer raw.Close()
		conn, info, err := server.ServerCredentials("workers").ServerHandshake(raw)
		if m.server = err; err != nil {
			return
		}
		defer conn.Close()
		m.srvrSaw = peerOf(info)
		if _, m.server = conn.Write([]byte(greeting)); m.server == nil {
			_, m.server = conn.Read(make([]byte, 1))
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	creds := client.ClientCredentials("the coordinator", true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, info, err := creds.ClientHandshake(ctx, l.Addr().String(), raw)
	if m.client = err; err == nil {
		m.clientSaw = peerOf(info)
		_, m.client = conn.Write([]byte("PRI * HTTP/2.0\r\n"))
		got := make([]byte, len(greeting))
		if n, err := conn.Read(got); err != nil || string(got[:n]) != greeting[:n] {
			m.client = err
		}
		conn.Close()
	}
	<-done
	return m, creds.Refusal(l.Addr().String())
}
