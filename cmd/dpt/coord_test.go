package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
)

// startReplica runs a replica without workers and returns its addresses for workers and for replicas.
func startReplica(t *testing.T, id string, join bool) (work, raft string) {
	t.Helper()
	var listeners []net.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
	}
	raft = listeners[1].Addr().String()
	s := job.DefaultSettings()
	s.Model, s.PromptLength, s.Bottleneck = tinyModel, 4, 2
	cfg := coordinator.Config{Settings: s, Nodes: 1, MinNodes: 1, Listener: listeners[0], Out: t.TempDir(), HeartbeatTimeout: 5 * time.Second, StepTimeout: time.Minute,
		Version: "test", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Replication: &replica.Replication{ID: id, Peers: []replica.Peer{{ID: id, Addr: raft}}, Join: join, Listener: listeners[1]}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = coordinator.Run(ctx, cfg) }() // it ends by being stopped or removed
	t.Cleanup(func() { stop(); <-ended })
	return listeners[0].Addr().String(), raft
}

// coordAsk runs dpt until it succeeds: a replica that has just started does not lead yet.
func coordAsk(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	for range 100 {
		out.Reset()
		errs.Reset()
		if cli.Run(t.Context(), "dpt", run, args, cli.IO{Out: &out, Err: &errs}) == cli.ExitDone {
			return out.String()
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%v: %s", args, errs.String())
	return ""
}

func TestCoordAddAndRemove(t *testing.T) {
	workA, raftA := startReplica(t, "a", false)
	workB, raftB := startReplica(t, "b", true)
	if got, want := coordAsk(t, "coord", "add", "--coord", workA, "--id", "b", "--addr", raftB), "a\t"+raftA+"\tleader\nb\t"+raftB+"\n"; got != want {
		t.Errorf("after the addition:\n%s, want\n%s", got, want)
	}
	// The new replica sends us to the one that leads.
	if got, want := coordAsk(t, "coord", "remove", "--coord", workB, "--id", "b"), "a\t"+raftA+"\tleader\n"; got != want {
		t.Errorf("after the removal:\n%s, want\n%s", got, want)
	}
	for _, c := range []struct{ args, says string }{
		{"coord remove --id x --coord " + workA, `no replica is called "x", want one of a`},
		{"coord remove --id a --coord " + workA, "replica a is the only one"},
		{"coord", "want add or remove"},
		{"coord list", "unknown command coord list"},
		{"coord add --id d --addr nowhere", "--addr nowhere: want HOST:PORT"},
		{"coord add --id d --addr h:1 --coord 10.0.0.1:1", "a loopback address or --insecure"},
	} {
		var errs bytes.Buffer
		if code := cli.Run(t.Context(), "dpt", run, strings.Fields(c.args), cli.IO{Out: io.Discard, Err: &errs}); code == cli.ExitDone || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%s: exit %d, says %q; want %q in it", c.args, code, errs.String(), c.says)
		}
	}
}
