package worker_test

import (
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

	stream, welcome := openSession(t, c.addr)
	if err := stream.Send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Ready{Ready: &coordpb.Ready{
		JobId:       welcome.GetWelcome().GetJobId(),
		ModelDigest: welcome.GetWelcome().GetModelDigest(),
		Engine:      "abacus",
		Numerics:    "abacus/decimal",
	}}}); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.FailedPrecondition || !contains(err, `"abacus/decimal"`, `worker first with "`) {
		t.Errorf("refused with %v, want both numerics named", err)
	}
}
