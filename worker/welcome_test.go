package worker_test

import (
	"context"
	"io"
	"testing"

	"github.com/dptune/dpt/coordinator/coordpb"
)

// openSession opens a session as a worker called other, once the coordinator takes workers, and
// returns its stream and the coordinator's first answer.
func openSession(t *testing.T, addr string) (
	stream coordpb.Coordinator_SessionClient, first *coordpb.CoordinatorMessage,
) {
	t.Helper()
	conn := dial(t, addr)
	t.Cleanup(func() { conn.Close() })
	if err := retryWhileUnavailable(func() (err error) {
		stream, err = coordpb.NewCoordinatorClient(conn).Session(context.Background())
		if err != nil {
			return err
		}
		err = stream.Send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Hello{Hello: &coordpb.Hello{
			Protocol: coordpb.ProtocolVersion,
			Version:  "test",
			WorkerId: "other",
			RingAddr: "127.0.0.1:1",
			Host:     "host",
		}}})
		if err != nil && err != io.EOF { // io.EOF means that Recv tells why
			return err
		}
		first, err = stream.Recv()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return stream, first
}

// The coordinator's first answer names the interval of heartbeats and the silence after which a
// worker gives up, with a job and without one.
func TestFirstAnswerNamesTheHeartbeats(t *testing.T) {
	job := startCoordinator(t, settings(), 1, t.TempDir(), "")
	_, m := openSession(t, job.addr)
	if w := m.GetWelcome(); w.GetHeartbeatIntervalMs() != 1000 || w.GetHeartbeatTimeoutMs() != 5000 {
		t.Errorf("first answer %v, want a welcome with heartbeats of 1000 and 5000 ms", m)
	}
	queue := startQueue(t, 1, t.TempDir(), "")
	_, m = openSession(t, queue.addr)
	if i := m.GetIdle(); i.GetHeartbeatIntervalMs() != 1000 || i.GetHeartbeatTimeoutMs() != 5000 {
		t.Errorf("first answer %v, want an idle with heartbeats of 1000 and 5000 ms", m)
	}
}
