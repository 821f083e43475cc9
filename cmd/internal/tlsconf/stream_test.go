package tlsconf

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

// echo serves a listener whose clients speak first, until the test ends.
func echo(t *testing.T, l net.Listener) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
}

func TestStreams(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	var log, clientLog record
	server := open(t, files(t, newLeaf(t, ours, "a", start), ours), newClock(), &log)
	client := open(t, files(t, newLeaf(t, ours, "b", start), ours), newClock(), &clientLog)
	foreign := open(t, files(t, newLeaf(t, theirs, "c", start), theirs, ours), newClock(), &clientLog)
	l := cmdtest.Listen(t)
	addr := l.Addr().String()
	echo(t, server.Listen(l, "replicas", "dpt-test"))

	conn, err := client.Dial(t.Context(), addr, "dpt-test")
	if err != nil {
		t.Fatal(err)
	}
	const said = "the dialing side speaks first"
	got := make([]byte, len(said))
	if _, err := conn.Write([]byte(said)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != said {
		t.Fatalf("echo %q, %v", got, err)
	}
	conn.Close()

	var refused *RefusedError
	if _, err := foreign.Dial(t.Context(), addr, "dpt-test"); !errors.As(err, &refused) ||
		!strings.Contains(err.Error(), "it does not know the CA") {
		t.Errorf("foreign client: %v, want a refusal that says so", err)
	}
	if !log.Await(`msg="connection refused" port_for=replicas`, "unknown authority") {
		t.Errorf("the server logs %s", &log)
	}
	if _, err := client.Dial(t.Context(), addr, "another"); !errors.As(err, &refused) ||
		!strings.Contains(err.Error(), "it serves another protocol there") {
		t.Errorf("another protocol: %v, want a refusal that says so", err)
	}
	if _, err := client.Dial(t.Context(), "localhost:1", "dpt-test"); err == nil || errors.As(err, &refused) {
		t.Errorf("nobody there: %v, want an error that is no refusal", err)
	}

	// A name is dialed address by address, and verified as the name: that a's certificate is good
	// for the address, too, is not enough.
	client.dialer.Lookup = func(context.Context, string) ([]string, error) {
		return []string{"::1", "127.0.0.1"}, nil
	}
	_, port, _ := net.SplitHostPort(addr)
	if conn, err := client.Dial(t.Context(), "a:"+port, "dpt-test"); err != nil {
		t.Errorf("a name of two addresses: %v", err)
	} else {
		conn.Close()
	}
	_, err = client.Dial(t.Context(), "other:"+port, "dpt-test")
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "other:"+port+" (127.0.0.1:"+port+") has a "+
		`certificate that is not accepted here, "a"`) || !strings.Contains(err.Error(), "not other") {
		t.Errorf("another name: %v, want a refusal that says so", err)
	}
	client.serverNames = map[Role]string{Coordinator: "a"}
	if conn, err := client.Toward(Coordinator).Dial(t.Context(), "other:"+port, "dpt-test"); err != nil {
		t.Errorf("another name with --tls-server-name: %v", err)
	} else {
		conn.Close()
	}

	plain := Plain(clientLog.logger())
	open := cmdtest.Listen(t)
	if plain.Listen(open, "replicas", "dpt-test") != open || plain.Server("x") != nil || plain.Client("a", "x") != nil {
		t.Error("without TLS something is secured")
	}
	echo(t, open)
	if conn, err := plain.Dial(t.Context(), open.Addr().String(), "dpt-test"); err != nil {
		t.Errorf("without TLS: %v", err)
	} else {
		conn.Close()
	}
}

// raftStream is raft's transport as the listener and dialer secure it.
type raftStream struct {
	net.Listener
	dial func(raft.ServerAddress, time.Duration) (net.Conn, error)
}

func (s raftStream) Dial(a raft.ServerAddress, d time.Duration) (net.Conn, error) {
	return s.dial(a, d)
}

func TestRaftSpeaksOverStreams(t *testing.T) {
	ca := newCA(t, "ca")
	var log record
	conf := open(t, files(t, newLeaf(t, ca, "a", start), ca), newClock(), &log)
	layer := func() raftStream {
		return raftStream{Listener: conf.Listen(cmdtest.Listen(t), "replicas", "dpt-raft"),
			dial: func(a raft.ServerAddress, _ time.Duration) (net.Conn, error) {
				return conf.Dial(t.Context(), string(a), "dpt-raft")
			}}
	}
	transport := func() *raft.NetworkTransport {
		n := raft.NewNetworkTransport(layer(), 2, time.Minute, io.Discard)
		t.Cleanup(func() { n.Close() })
		return n
	}
	a, b := transport(), transport()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		rpc := <-b.Consumer()
		rpc.Respond(&raft.RequestVoteResponse{Term: rpc.Command.(*raft.RequestVoteRequest).Term, Granted: true}, nil)
	}()
	var resp raft.RequestVoteResponse
	if err := a.RequestVote("b", b.LocalAddr(), &raft.RequestVoteRequest{Term: 7}, &resp); err != nil ||
		resp.Term != 7 || !resp.Granted {
		t.Errorf("vote: %+v, %v", resp, err)
	}
	<-answered
}
