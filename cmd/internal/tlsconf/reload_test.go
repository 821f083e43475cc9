package tlsconf

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

// mustMeet connects the two and wants the server to show a certificate of this name, and the client
// of that.
func mustMeet(t *testing.T, server, client *Conf, serverName, clientName string) {
	t.Helper()
	m, _ := meet(t, server, client)
	if m.client != nil {
		t.Fatalf("client: %v (server: %v)", m.client, m.server)
	}
	if got := nameOf(m.clientSaw); got != serverName {
		t.Errorf("the server shows %s, want %s", got, serverName)
	}
	if got := nameOf(m.srvrSaw); got != clientName {
		t.Errorf("the client shows %s, want %s", got, clientName)
	}
}

func TestReplacedCertificatesAreTakenUp(t *testing.T) {
	ca := newCA(t, "ca")
	c := newClock()
	var log record
	sf, cf := files(t, newLeaf(t, ca, "server-1", start), ca), files(t, newLeaf(t, ca, "client-1", start), ca)
	server, client := open(t, sf, c, &log), open(t, cf, c, &log)
	kept := client.Client("127.0.0.1", "test") // a configuration that is kept follows, too
	mustMeet(t, server, client, "server-1", "client-1")
	if strings.Contains(log.String(), "read again") {
		t.Errorf("files that did not change were read again: %s", &log)
	}

	sf.put(t, newLeaf(t, ca, "server-2", start), ca)
	mustMeet(t, server, client, "server-2", "client-1")
	cf.put(t, newLeaf(t, ca, "client-2", start), ca)
	mustMeet(t, server, client, "server-2", "client-2")
	if cert, err := kept.GetClientCertificate(nil); err != nil || nameOf(cert.Leaf) != "client-2" {
		t.Errorf("a kept configuration shows %v, %v, want client-2", nameOf(cert.Leaf), err)
	}
	if n := strings.Count(log.String(), `msg="TLS files read again"`); n != 2 {
		t.Errorf("%d lines of files read again, want 2: %s", n, &log)
	}

	// Written in place, without a new inode.
	next := newLeaf(t, ca, "server-3", start)
	for path, data := range map[string][]byte{sf.Cert: next.CertPEM, sf.Key: next.KeyPEM} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, start, start); err != nil { // sets it apart whatever the file system's resolution
			t.Fatal(err)
		}
	}
	mustMeet(t, server, client, "server-3", "client-2")
}

func TestCertificateThatEndedIsReplacedWithoutARestart(t *testing.T) {
	ca := newCA(t, "ca")
	c := newClock()
	var log record
	sf, cf := files(t, newLeaf(t, ca, "server", start.Add(-time.Hour)), ca),
		files(t, newLeaf(t, ca, "client", start), ca)
	server, client := open(t, sf, c, &log), open(t, cf, c, &log)
	mustMeet(t, server, client, "server", "client")
	c.advance(23*time.Hour + 30*time.Minute)
	if m, _ := meet(t, server, client); m.client == nil || !strings.Contains(m.client.Error(), "has expired") {
		t.Fatalf("expired server: %v", m.client)
	}
	sf.put(t, newLeaf(t, ca, "server-2", start), ca)
	mustMeet(t, server, client, "server-2", "client")
}

func TestBrokenFilesLeaveTheOldCertificate(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	clock := newClock()
	var log record
	good := newLeaf(t, ca, "a", start)
	f := files(t, good, ca)
	conf := open(t, f, clock, &log)
	for _, c := range []struct {
		want    string
		breakIt func()
	}{
		{"nothing of PEM", func() { cmdtest.WriteFile(t, f.Cert, []byte("half a fi")) }},
		{"is not the key of", func() { cmdtest.WriteFile(t, f.Cert, newLeaf(t, ca, "b", start).CertPEM) }},
		{"no such file", func() { cmdtest.RemoveFile(t, f.Key) }},
		{"is not signed by", func() { f.put(t, newLeaf(t, other, "c", start), ca) }},
		{"is not valid before", func() { f.put(t, newLeaf(t, ca, "early", start.Add(time.Hour)), ca) }},
	} {
		f.put(t, good, ca) // so that nothing is wrong but what this case breaks
		mustMeet(t, conf, conf, "a", "a")
		log.Reset()
		c.breakIt()
		for range 3 {
			mustMeet(t, conf, conf, "a", "a")
		}
		got := log.String()
		if strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, c.want) ||
			!strings.Contains(got, "the certificate from before stays in use") {
			t.Errorf("want one error with %q, got: %s", c.want, got)
		}
	}
	log.Reset()
	f.put(t, newLeaf(t, ca, "d", start), ca)
	mustMeet(t, conf, conf, "d", "d")

	// A certificate that was put there before its time is taken up when that comes.
	f.put(t, newLeaf(t, ca, "early", start.Add(time.Hour)), ca)
	mustMeet(t, conf, conf, "d", "d")
	clock.advance(time.Hour)
	mustMeet(t, conf, conf, "early", "early")
}

func TestAuthorityIsReplacedWithoutARestart(t *testing.T) {
	before, after := newCA(t, "before"), newCA(t, "after")
	c := newClock()
	var log record
	af, bf := files(t, newLeaf(t, before, "a-1", start), before), files(t, newLeaf(t, before, "b-1", start), before)
	a, b := open(t, af, c, &log), open(t, bf, c, &log)
	both := func(aName, bName string) {
		t.Helper()
		mustMeet(t, a, b, aName, bName)
		mustMeet(t, b, a, bName, aName)
	}
	both("a-1", "b-1")
	// First everyone trusts both, then each changes its certificate, then nobody trusts the old
	// one.
	trust := append(append([]byte{}, before.CertPEM...), after.CertPEM...)
	cmdtest.WriteFile(t, af.CA, trust)
	both("a-1", "b-1")
	cmdtest.WriteFile(t, bf.CA, trust)
	both("a-1", "b-1")
	af.put(t, newLeaf(t, after, "a-2", start), before, after)
	both("a-2", "b-1")
	bf.put(t, newLeaf(t, after, "b-2", start), after, before)
	both("a-2", "b-2")
	cmdtest.WriteFile(t, af.CA, after.CertPEM)
	cmdtest.WriteFile(t, bf.CA, after.CertPEM)
	both("a-2", "b-2")

	stale := open(t, files(t, newLeaf(t, before, "stale", start), before, after), c, &log)
	if _, refused := meet(t, a, stale); refused == nil || !strings.Contains(refused.Error(), "does not know the CA") {
		t.Errorf("a certificate of the CA that went: %v", refused)
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the change was not smooth: %s", &log)
	}
}

// TestFilesChangeUnderHandshakes is for the race detector, and for the rule that a certificate goes
// with its own key.
func TestFilesChangeUnderHandshakes(t *testing.T) {
	ca := newCA(t, "ca")
	var log record
	f := files(t, newLeaf(t, ca, "a", start), ca)
	conf := open(t, f, newClock(), &log)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if m, _ := meet(t, conf, conf); m.client != nil {
					t.Errorf("while files change: %v", m.client)
				}
			}
		})
	}
	for range 20 {
		f.put(t, newLeaf(t, ca, "a", start), ca)
	}
	wg.Wait()
}
