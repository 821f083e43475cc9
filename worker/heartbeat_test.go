package worker

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator/coordpb"
)

func TestHeartbeatsOf(t *testing.T) {
	const hour = 3_600_000
	for _, tt := range []struct {
		intervalMs, timeoutMs int64
		interval, timeout     time.Duration
		want                  string // in the error
	}{
		{1000, 7000, time.Second, 7 * time.Second, ""},
		{1000, 1001, time.Second, 1001 * time.Millisecond, ""},
		{hour, 5 * hour, time.Hour, 5 * time.Hour, ""},
		{400, 0, 400 * time.Millisecond, 2 * time.Second, ""}, // an older coordinator
		{0, 0, time.Second, 5 * time.Second, ""},
		{-1, 0, time.Second, 5 * time.Second, ""},
		{0, 2000, time.Second, 2 * time.Second, ""},
		{hour + 1, 0, 0, 0, "heartbeats every 3600001 ms, want at most 3600000"},
		{math.MaxInt64, 0, 0, 0, "heartbeats every"},
		{1000, 1000, 0, 0, "heartbeat timeout of 1000 ms, want more than the interval of 1000 ms and at most 18000000"},
		{1000, -1, 0, 0, "heartbeat timeout of -1 ms"},
		{1000, math.MinInt64, 0, 0, "heartbeat timeout of"},
		{1000, 5*hour + 1, 0, 0, "heartbeat timeout of 18000001 ms"},
		{1000, math.MaxInt64, 0, 0, "heartbeat timeout of"},
	} {
		welcome := &coordpb.Welcome{HeartbeatIntervalMs: tt.intervalMs, HeartbeatTimeoutMs: tt.timeoutMs}
		idle := &coordpb.Idle{HeartbeatIntervalMs: tt.intervalMs, HeartbeatTimeoutMs: tt.timeoutMs}
		for name, get := range map[string]func() (time.Duration, time.Duration, error){
			"welcome": func() (time.Duration, time.Duration, error) { return heartbeatsOf(welcome, nil) },
			"idle":    func() (time.Duration, time.Duration, error) { return heartbeatsOf(nil, idle) },
		} {
			interval, timeout, err := get()
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s of %d and %d ms: error %v, want %q in it",
						name, tt.intervalMs, tt.timeoutMs, err, tt.want)
				}
			} else if err != nil || interval != tt.interval || timeout != tt.timeout {
				t.Errorf("%s of %d and %d ms: %v and %v (%v), want %v and %v",
					name, tt.intervalMs, tt.timeoutMs, interval, timeout, err, tt.interval, tt.timeout)
			}
		}
	}
}
