package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/dptune/dpt/coordinator/coordpb"
)

const (
	// defaultHeartbeat is the interval between heartbeats if the coordinator names none.
	defaultHeartbeat = time.Second
	// maxHeartbeat and maxSilence bound the interval and the timeout that the coordinator may name,
	// so that a worker does not wait long for a coordinator that is gone.
	maxHeartbeat = time.Hour
	maxSilence   = missedHeartbeats * maxHeartbeat
	// missedHeartbeats is the timeout in intervals if the coordinator names none: its build is
	// older than the field.
	missedHeartbeats = 5
)

// heartbeatsOf returns what the coordinator's first answer, a Welcome or an Idle, names: the
// interval between heartbeats, and the silence after which this worker gives the coordinator up.
func heartbeatsOf(
	welcome *coordpb.Welcome, idle *coordpb.Idle,
) (interval, timeout time.Duration, err error) {
	intervalMs, timeoutMs := welcome.GetHeartbeatIntervalMs(), welcome.GetHeartbeatTimeoutMs()
	if idle != nil {
		intervalMs, timeoutMs = idle.HeartbeatIntervalMs, idle.HeartbeatTimeoutMs
	}
	interval = defaultHeartbeat
	if intervalMs > maxHeartbeat.Milliseconds() {
		return 0, 0, fmt.Errorf("heartbeats every %d ms, want at most %d", intervalMs, maxHeartbeat.Milliseconds())
	} else if intervalMs > 0 {
		interval = time.Duration(intervalMs) * time.Millisecond
	}
	if timeoutMs == 0 {
		return interval, missedHeartbeats * interval, nil
	}
	if timeoutMs <= interval.Milliseconds() || timeoutMs > maxSilence.Milliseconds() {
		return 0, 0, fmt.Errorf("heartbeat timeout of %d ms, want more than the interval of %d ms and at most %d",
			timeoutMs, interval.Milliseconds(), maxSilence.Milliseconds())
	}
	return interval, time.Duration(timeoutMs) * time.Millisecond, nil
}

// sendHeartbeats tells the coordinator that this process is alive, also while it loads or computes.
func (s *session) sendHeartbeats(ctx context.Context, interval time.Duration) {
	heartbeat := &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Heartbeat{Heartbeat: &coordpb.Heartbeat{}}}
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if s.send(heartbeat) != nil {
				return // the reader learns why
			}
		}
	}
}
