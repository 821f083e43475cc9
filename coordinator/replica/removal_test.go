package replica_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/internal/replicatest"
	"github.com/dptune/dpt/coordinator/replica"
)

// openThree starts three replicas. The test closes them at its end.
func openThree(t *testing.T) []*replica.Node {
	t.Helper()
	var peers []replica.Peer
	var listeners []net.Listener
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		peers = append(peers, replica.Peer{ID: fmt.Sprint(i), Addr: l.Addr().String()})
	}
	var nodes []*replica.Node
	for i, p := range peers {
		rep := &replica.Replication{ID: p.ID, Peers: peers, Listener: listeners[i]}
		n, err := replica.Open(t.TempDir(), replica.Storage{}, rep, 0, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		nodes = append(nodes, n)
	}
	return nodes
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for began := time.Now(); !condition(); time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("after a minute: %s is not so", what)
		}
	}
}

// TestRemovedLeaderAnswers removes the leader while its state machine is behind: the proposals on
// their way and the removal itself are answered all the same, and the others elect a leader.
func TestRemovedLeaderAnswers(t *testing.T) {
	t.Parallel()
	for !removeLeader(t) {
		t.Log("the leader was deposed before its removal; again with other replicas")
	}
}

// removeLeader reports false if the leader was deposed before it was removed, as happens on a
// machine that is busy with other things.
func removeLeader(t *testing.T) bool {
	nodes := openThree(t)
	var leader *replica.Node
	eventually(t, "one of three leads", func() bool {
		for _, n := range nodes {
			if n.IsLeader() && n.Barrier() == nil {
				leader = n
			}
		}
		return leader != nil
	})

	// The state machine applies nothing as long as View runs.
	var answers []chan error
	answer := func(wait func() error) {
		c := make(chan error, 1)
		answers = append(answers, c)
		go func() { c <- wait() }()
	}
	leader.View(func(*fsm.Machine) {
		for _, e := range append(replicatest.Start(10), replicatest.Steps(1, 4, 8)...) {
			answer(leader.Propose(e).Wait)
		}
		answer(func() error { return leader.Remove(leader.ID()) })
		eventually(t, "the removed replica does not lead", func() bool { return !leader.IsLeader() })
	})
	for i, c := range answers {
		select {
		case err := <-c:
			if errors.Is(err, replica.ErrDeposed) {
				return false
			}
			if err != nil {
				t.Errorf("request %d of %d: %v", i+1, len(answers), err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("request %d of %d has no answer; the last is the removal", i+1, len(answers))
		}
	}

	eventually(t, "the removed replica has stopped", leader.Stopped)
	eventually(t, "another replica leads", func() bool {
		for _, n := range nodes {
			if n != leader && n.IsLeader() && n.Barrier() == nil {
				members, err := n.Members()
				if err != nil || len(members) != 2 || n.Stopped() {
					t.Fatalf("replicas are %v (%v), want two that go on", members, err)
				}
				return true
			}
		}
		return false
	})
	return true
}
