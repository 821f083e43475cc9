package replica_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator/internal/replicatest"
	"github.com/dptune/dpt/coordinator/replica"
)

// TestStrangerOnTheRaftPort: whoever is no replica is sent away, and the replica goes on.
func TestStrangerOnTheRaftPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	rep := &replica.Replication{ID: "a", Peers: []replica.Peer{{ID: "a", Addr: addr}}, Listener: l}
	n, err := replica.Open(t.TempDir(), replica.Storage{}, rep, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Stop()
	replicatest.AwaitLeadership(t, n)
	for name, sent := range map[string]string{
		"web":     "GET / HTTP/1.1\r\n\r\n",
		"newer":   "dptraft\x09xxxx",
		"garbage": replica.Greeting + strings.Repeat("\xff", 4096),
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: answered %q, %v; want the connection closed", name, got, err)
		}
		c.Close()
	}
	replicatest.Commit(t, n, replicatest.Start(10)...)
}
