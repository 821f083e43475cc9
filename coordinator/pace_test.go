package coordinator

import (
	"testing"
	"time"
)

func TestPaceFollowsAChangeAndNotAnOutlier(t *testing.T) {
	var p pace
	for range 5 {
		p.measure(300, time.Second)
	}
	if p.speed != 300 {
		t.Fatalf("speed %v, want 300", p.speed)
	}
	p.measure(100, time.Second)
	if p.speed < 200 {
		t.Errorf("after one slow step the speed is %v, want it to move by less than half", p.speed)
	}
	p.measure(100, time.Second)
	if p.speed != 100 {
		t.Errorf("after two slow steps the speed is %v, want 100", p.speed)
	}
	p.measure(300, time.Second)
	p.measure(300, time.Second)
	if p.speed != 300 {
		t.Errorf("after two fast steps the speed is %v, want 300", p.speed)
	}
	p.provisional = true
	if p.measure(50, time.Second); p.speed != 50 || p.provisional {
		t.Errorf("after a measurement in place of a rough one the speed is %v, want 50", p.speed)
	}
	if p.measure(0, 0); !(p.speed > 0) {
		t.Errorf("speed %v, want a positive one", p.speed)
	}
}
