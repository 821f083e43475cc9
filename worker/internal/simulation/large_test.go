package simulation

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRingOf64 has 64 members in a generation: two lose the connection between them, one crashes,
// the leader crashes, one hangs, and the job ends with the undisturbed run's bits. While some are
// away, the ring has sizes that are no powers of two, too.
func TestRingOf64(t *testing.T) {
	const ms = time.Millisecond
	workers := 64
	if raceEnabled {
		workers = 19 // under the detector a run takes ten times as long
	}
	plan := Plan{Seed: 64, Replicas: 3, Workers: workers, CommitEvery: 1, CommitWindow: 1, Faults: []Fault{
		{At: 1150 * ms, For: 300 * ms, Kind: Disconnect, Host: "w1", Other: "w10"}, // ranks 0 and 1,
		{At: 1550 * ms, For: 400 * ms, Kind: Crash, Host: "w17"},
		{At: 1900 * ms, For: 2000 * ms, Kind: Crash, Host: Leader},
		{At: 3350 * ms, For: 2000 * ms, Kind: Hang, Host: "w5"},
	}}
	rep := play(t, plan, Options{Reference: references(t)[false]})
	trace := strings.Join(rep.Trace, "\n")
	for _, v := range rep.Violations {
		t.Error(v)
	}
	if t.Failed() {
		t.Log(trace)
	}
	if rep.Commits == 0 || rep.Processes < workers+3+2 {
		t.Errorf("%d commits and %d processes, want some and at least %d:\n%s",
			rep.Commits, rep.Processes, workers+3+2, trace)
	}
	for _, want := range []string{
		fmt.Sprintf("generation 1 of %d workers", workers),
		"generation 2 of ",
		fmt.Sprintf(" of %d workers", workers-1),
		"goes on after step",
	} {
		if !strings.Contains(trace, want) {
			t.Errorf("the faults came at other times than they should: no %q in\n%s", want, trace)
		}
	}
	t.Logf("%d commits in %v of simulated time, %d processes", rep.Commits, rep.Took, rep.Processes)
}
