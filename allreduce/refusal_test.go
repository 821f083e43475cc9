package allreduce

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
)

// A neighbour that cannot be reached is tried again; one that refuses for good is not.
func TestJoinEndsAtARefusal(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unused := lis.Addr().String()
	lis.Close()
	refused := errors.New("it wants a certificate")
	var attempts atomic.Int32
	node := newTestNode(t, func(c *Config) {
		c.Refusal = func(addr string) error {
			if addr != unused {
				t.Errorf("asked about %s, want %s", addr, unused)
			}
			if attempts.Add(1) < 3 {
				return nil
			}
			return refused
		}
	})
	_, err = node.Join(context.Background(), testJob, 1, 0, []Member{{"a", node.Addr()}, {"b", unused}})
	if peer := peerErrorOf(t, err); peer.Rank != 1 || peer.ID != "b" || peer.Action != Joining ||
		!errors.Is(err, refused) {
		t.Errorf("join: %v, want a PeerError about b with the refusal", err)
	}
	if n := attempts.Load(); n != 3 {
		t.Errorf("%d attempts, want 3", n)
	}
}
