package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/cmdtest"
	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
)

// startReplica runs a replica without workers and returns its addresses for workers and for
// replicas.
func startReplica(t *testing.T, id string, join bool) (work, raft string) {
	t.Helper()
	workers, replicas := cmdtest.Listen(t), cmdtest.Listen(t)
	raft = replicas.Addr().String()
	s := job.DefaultSettings()
	s.Model, s.PromptLength, s.Bottleneck = tinyModel, 4, 2
	cfg := coordinator.Config{
		Settings: s, Nodes: 1, MinNodes: 1, Listener: workers, Out: t.TempDir(),
		HeartbeatTimeout: 5 * time.Second, StepTimeout: time.Minute,
		Version: "test", Logger: slog.New(slog.DiscardHandler),
		Replication: &replica.Replication{
			ID: id, Peers: []replica.Peer{{ID: id, Addr: raft}}, Join: join, Listener: replicas,
		},
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = coordinator.Run(ctx, cfg) }() // it ends by being stopped or removed
	t.Cleanup(func() { stop(); <-ended })
	return workers.Addr().String(), raft
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
	both, alone := "a\t"+raftA+"\tleader\nb\t"+raftB+"\n", "a\t"+raftA+"\tleader\n"
	if got := coordAsk(t, "coord", "add", "--coord", workA, "--id", "b", "--addr", raftB); got != both {
		t.Errorf("after the addition:\n%s, want\n%s", got, both)
	}
	// The new replica redirects to the leader.
	if got := coordAsk(t, "coord", "remove", "--coord", workB, "--id", "b"); got != alone {
		t.Errorf("after the removal:\n%s, want\n%s", got, alone)
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
		std := cli.IO{Out: io.Discard, Err: &errs}
		code := cli.Run(t.Context(), "dpt", run, strings.Fields(c.args), std)
		if code == cli.ExitDone || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%s: exit %d, says %q; want %q in it", c.args, code, errs.String(), c.says)
		}
	}
}
