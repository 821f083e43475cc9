package worker_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/coordpb"
)

// A worker that would compute other bits is refused before it computes any. The reason names both
// workers' numerics.
func TestWorkerOfOtherNumericsIsRefused(t *testing.T) {
	c := startCoordinator(t, settings(), 2, t.TempDir(), "")
	c.startWorker("first", nil)
	c.awaitLog("worker joined")

	conn := dial(t, c.addr)
	defer conn.Close()
	stream, err := coordpb.NewCoordinatorClient(conn).Session(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	send := func(m *coordpb.WorkerMessage) {
		t.Helper()
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Hello{Hello: &coordpb.Hello{
		Protocol: coordpb.ProtocolVersion,
		Version:  "test",
		WorkerId: "other",
		RingAddr: "127.0.0.1:1",
		Host:     "host",
	}}})
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Ready{Ready: &coordpb.Ready{
		JobId:       m.GetWelcome().GetJobId(),
		ModelDigest: m.GetWelcome().GetModelDigest(),
		Engine:      "abacus",
		Numerics:    "abacus/decimal",
	}}})
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.FailedPrecondition || !contains(err, `"abacus/decimal"`, `worker first with "`) {
		t.Errorf("refused with %v, want both numerics named", err)
	}
}
