package refusals

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestCounterLogsEachIntervalOnce: the first refusal is logged at once; those that follow are
// counted, and logged together once the interval is over.
func TestCounterLogsEachIntervalOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Counter
		for i, step := range []struct {
			after time.Duration // since the refusal before
			want  int
		}{
			{0, 1},
			{0, 0},
			{interval / 2, 0},
			{interval/2 - 1, 0},
			{1, 4}, // an interval after the first log line
			{interval - 1, 0},
			{1, 2},
			{10 * interval, 1}, // nothing was refused meanwhile
		} {
			time.Sleep(step.after)
			if got := c.Add(); got != step.want {
				t.Errorf("refusal %d: %d to log, want %d", i, got, step.want)
			}
		}
	})
}
