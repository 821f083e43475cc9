package main

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/coordinator/coordpb"
)

// --coord is a name, of whose addresses only the last one answers; a proxy of the environment is
// not asked.
func TestAskByName(t *testing.T) {
	addr, raft := startReplica(t, "a", false)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	lookup := func(_ context.Context, host string) ([]string, error) {
		if host != "trainer.test" {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []string{"::1", "127.0.0.1"}, nil
	}
	ask := func(host string) (*coordpb.ReplicaList, error) {
		f := &coordFlags{coord: []string{host + ":" + port}, dialer: dial.Dialer{Lookup: lookup}}
		return askCoordinator(t.Context(), f,
			func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.ReplicaList, error) {
				// A replica that is there already: the answer is the list of replicas.
				replica := &coordpb.Replica{Id: "a", Addr: raft}
				return coordpb.NewReplicasClient(c).Add(ctx, &coordpb.AddReplica{Replica: replica})
			})
	}
	if list, err := ask("trainer.test"); err != nil || len(list.Replicas) != 1 {
		t.Errorf("replicas %v, %v; want one", list, err)
	}
	_, err = ask("other.test")
	want := "coordinator other.test:" + port + ": cannot resolve other.test: no such host"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("unknown name: %v, want %q", err, want)
	}
}
