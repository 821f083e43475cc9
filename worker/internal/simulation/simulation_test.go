package simulation

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/worker"
)

// TestSimulation plays 1,000 seeds, or SIM_SEEDS seeds from SIM_FROM, with the planted bug SIM_BUG
// if it is set. If there is one seed only, the test prints its trace.
func TestSimulation(t *testing.T) {
	usual := uint64(1000)
	if testing.Short() || raceEnabled {
		usual = 50
	}
	from, n, bug := envNumber(t, "SIM_FROM", 1), envNumber(t, "SIM_SEEDS", usual), os.Getenv("SIM_BUG")
	g := newChildRunner(t, bug)
	began := time.Now()
	var seeds, commits, processes, redone, most int
	var took float64
	crashed := map[string]int{}
	g.playSeeds(t, from, n, func(o outcome) bool {
		seeds++
		commits, processes, took = commits+o.Commits, processes+o.Processes, took+o.Took
		redone, most = redone+o.Redone, max(most, o.MostRedone)
		for point, k := range o.Crashed {
			crashed[point] += k
		}
		if n == 1 && len(o.Violations) == 0 {
			t.Logf("seed %d:\n%s", o.Seed, strings.Join(o.Trace, "\n"))
		}
		if len(o.Violations) > 0 {
			t.Errorf("seed %d (again: %s): %s\n%s", o.Seed, replayCommand(o.Seed, bug),
				strings.Join(o.Violations, "\n"), strings.Join(o.Trace, "\n"))
		}
		return true
	})
	if uint64(seeds) != n {
		t.Errorf("%d seeds were played, want %d", seeds, n)
	}
	t.Logf("%d seeds in %v: %.0f s of simulated time, %d steps committed, %d done again, "+
		"at most %d after one failure, %d processes started, crashes at crash points: %v",
		seeds, time.Since(began).Round(time.Millisecond), took, commits, redone, most, processes, crashed)
	if n >= 1000 {
		for _, point := range slices.Concat(coordinator.Marks(), worker.Marks()) {
			if crashed[point] == 0 {
				t.Errorf("no process crashed at the point %q", point)
			}
		}
	}
}

// TestReplay plays 10 seeds, or SIM_REPLAYS, twice, and compares the traces: the same events at the
// same nanosecond.
func TestReplay(t *testing.T) {
	if _, replays := testProgram(); !replays {
		t.Skip("Go draws from its own sources in this build: see command replay")
	}
	g := newChildRunner(t, "")
	n := envNumber(t, "SIM_REPLAYS", 10)
	first := map[uint64]outcome{}
	g.playSeeds(t, 1, n, func(o outcome) bool { first[o.Seed] = o; return true })
	differ := 0
	g.playSeeds(t, 1, n, func(o outcome) bool {
		a, b := first[o.Seed].Trace, o.Trace
		if o.Digest == first[o.Seed].Digest {
			return true
		}
		differ++
		i := 0
		for i < min(len(a), len(b)) && a[i] == b[i] {
			i++
		}
		t.Errorf("seed %d played differently after %d of %d events: %q and then %q",
			o.Seed, i, len(a), a[i:min(i+1, len(a))], b[i:min(i+1, len(b))])
		return true
	})
	t.Logf("%d of %d seeds played the same way twice", int(n)-differ, n)
}
