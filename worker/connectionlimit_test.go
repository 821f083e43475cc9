package worker_test

import (
	"io"
	"net"
	"testing"
	"time"
)

// The coordinator bounds the connections that do not introduce themselves, and they do not disturb
// the workers that have joined.
func TestSilentConnectionsAreBounded(t *testing.T) {
	s := settings()
	prompt, job := undisturbed(t, s)
	c := startCoordinator(t, s, 2, t.TempDir(), "")
	c.startWorker("a", nil)
	c.awaitLog("worker joined")
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	silent := func() bool { // reports whether the coordinator accepts it: then it speaks first
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadFull(conn, make([]byte, 9))
		return err == nil
	}
	const limit = 256
	for i := range limit {
		if !silent() {
			t.Fatalf("connection %d is refused, want %d to be taken", i+1, limit)
		}
	}
	if silent() {
		t.Error("one more connection is taken")
	}
	c.awaitLog("connections refused: too many are open on which nobody has introduced himself")
	for _, conn := range open {
		conn.Close()
	}
	open = nil
	c.startWorker("b", nil) // tries again until there is room
	c.finish()
	c.mustEqual(prompt, job)
}
