package simulation

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/worker"
)

// TestSimulation plays 1,000 seeds, or SIM_SEEDS seeds from SIM_FROM. With one seed its trace is printed.
func TestSimulation(t *testing.T) {
	usual := uint64(1000)
	if testing.Short() || raced {
		usual = 50
	}
	from, n := number(t, "SIM_FROM", 1), number(t, "SIM_SEEDS", usual)
	began := time.Now()
	var seeds, commits, lives int
	var took float64
	crashed := map[string]int{}
	if n == 1 {
		t.Setenv("SIM_TRACE", "1")
	}
	sweep(t, from, n, "", func(o outcome) bool {
		seeds++
		commits, lives, took = commits+o.Commits, lives+o.Lives, took+o.Took
		for point, k := range o.Crashed {
			crashed[point] += k
		}
		if n == 1 && len(o.Violations) == 0 {
			t.Logf("seed %d:\n%s", o.Seed, strings.Join(o.Trace, "\n"))
		}
		if len(o.Violations) > 0 {
			t.Errorf("seed %d (again: SIM_FROM=%d SIM_SEEDS=1 go test -run '^TestSimulation$' ./worker/simulation): %s\n%s",
				o.Seed, o.Seed, strings.Join(o.Violations, "\n"), strings.Join(o.Trace, "\n"))
		}
		return true
	})
	if uint64(seeds) != n {
		t.Errorf("%d seeds were played, want %d", seeds, n)
	}
	t.Logf("%d seeds in %v: %.0f s of simulated time, %d steps committed, %d processes started, crashes at marked points: %v",
		seeds, time.Since(began).Round(time.Millisecond), took, commits, lives, crashed)
	if n >= 1000 {
		for _, point := range slices.Concat(coordinator.Marks(), worker.Marks()) {
			if crashed[point] == 0 {
				t.Errorf("no process crashed at the point %q", point)
			}
		}
	}
}

// TestReplay plays seeds twice, in processes of their own, and compares the traces: same events at the same instants. It says
// how many differ, which is no failure as long as the runtime still has sources of order that are not fixed.
func TestReplay(t *testing.T) {
	if !exact {
		t.Skip("Go draws from its own sources in this build; make simulate builds one in which most of that is drawn from the seed")
	}
	n := number(t, "SIM_REPLAYS", 20)
	digests := map[uint64]string{}
	traces := map[uint64][]string{}
	t.Setenv("SIM_TRACE", "1")
	sweep(t, 1, n, "", func(o outcome) bool { digests[o.Seed], traces[o.Seed] = o.Digest, o.Trace; return true })
	differ := 0
	for seed := uint64(1); seed <= n; seed++ {
		err := child(t, span{seed, seed + 1, 1}, "", func(o outcome) bool {
			if o.Digest != digests[seed] {
				differ++
				a, b := traces[seed], o.Trace
				for i := range a {
					if i >= len(b) || a[i] != b[i] {
						t.Logf("seed %d differs at line %d of %d and %d: %q and %q", seed, i, len(a), len(b), a[i], b[min(i, len(b)-1)])
						break
					}
				}
			}
			return true
		})
		if err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d of %d seeds played differently", differ, n)
	if differ == int(n) {
		t.Error("no seed plays the same way twice: does the runtime draw from the seed?")
	}
}
