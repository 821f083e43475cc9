package progress

import (
	"testing"
	"time"
)

// A day of a run of millions of steps: nanoseconds times steps exceed an int64.
func TestRemainingOfLongRuns(t *testing.T) {
	if got := remaining(time.Now().Add(-24*time.Hour), 1_000_000, 3_000_000); got < 71*time.Hour || got > 73*time.Hour {
		t.Errorf("3 of 4 million steps after a day: %v left, want about 72h", got)
	}
	if got := remaining(time.Now(), 0, 10); got != 0 {
		t.Errorf("before the first step: %v, want 0", got)
	}
}

func TestRound(t *testing.T) {
	for _, c := range []struct {
		v      float64
		digits int
		want   float64
	}{{1.23456, 4, 1.2346}, {-0.5, 0, -0}, {3, 4, 3}, {1e-9, 5, 0}} {
		if got := round(c.v, c.digits); got != c.want {
			t.Errorf("round(%v, %d) = %v, want %v", c.v, c.digits, got, c.want)
		}
	}
}
