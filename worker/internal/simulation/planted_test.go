package simulation

import (
	"maps"
	"slices"
	"testing"
	_ "unsafe" // for linkname

	"github.com/dptune/dpt/model/optim"
)

// Bugs are planted in unexported variables of the product, which nothing but this test sets.

//go:linkname plantedNoAgreement github.com/dptune/dpt/coordinator.plantedNoAgreement
var plantedNoAgreement bool

//go:linkname plantedStaleReport github.com/dptune/dpt/coordinator.plantedStaleReport
var plantedStaleReport bool

//go:linkname plantedNoChecksum github.com/dptune/dpt/coordinator/replica.plantedNoChecksum
var plantedNoChecksum bool

//go:linkname plantedUpdate github.com/dptune/dpt/worker.plantedUpdate
var plantedUpdate func(id string, first bool, state *optim.State, again func() error)

//go:linkname plantedRestore github.com/dptune/dpt/worker.plantedRestore
var plantedRestore func(have, sent optim.State) optim.State

// bugs plant themselves in this process.
var bugs = map[string]func(){
	// A worker's memory is bad, and the leader commits without comparing the digests in the
	// reports.
	"digests not compared": func() {
		plantedNoAgreement = true
		plantedUpdate = func(id string, _ bool, s *optim.State, _ func() error) {
			if id == "w2" && s.Step == 4 {
				s.Params[0]++
			}
		}
	},
	// A worker that ran ahead of the commit keeps its state when a generation resumes behind it.
	"stale state kept": func() {
		plantedRestore = func(have, sent optim.State) optim.State {
			if have.Step <= sent.Step {
				return sent
			}
			have.Step = sent.Step
			return have
		}
	},
	// The leader counts a report of a generation that has ended for the present generation.
	"stale report counted": func() { plantedStaleReport = true },
	// A replica does not verify what it reads from its log.
	"checksums not looked at": func() { plantedNoChecksum = true },
	// After a regroup the first step is applied twice.
	"step applied twice": func() {
		plantedUpdate = func(_ string, first bool, s *optim.State, again func() error) {
			if first && s.Step > 1 {
				s.Step--
				_ = again() // cannot fail where it has just worked
			}
		}
	},
}

// plant plants a bug by its name; "" is none.
func plant(t *testing.T, bug string) {
	t.Helper()
	if bug == "" {
		return
	}
	do := bugs[bug]
	if do == nil {
		t.Fatalf("no bug is called %q", bug)
	}
	do()
}

// TestPlantedBugs plants bugs of the protocol, one at a time; the checker must find each within
// 1,000 seeds.
func TestPlantedBugs(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("hundreds of seeds: skipped with -short, and under the race detector")
	}
	for _, bug := range slices.Sorted(maps.Keys(bugs)) {
		t.Run(bug, func(t *testing.T) {
			found := false
			newChildRunner(t, bug).playSeeds(t, 1, 1000, func(o outcome) bool {
				if found = found || len(o.Violations) > 0; found {
					t.Logf("found by seed %d (again: %s): %s", o.Seed, replayCommand(o.Seed, bug), o.Violations[0])
				}
				return !found
			})
			if !found {
				t.Error("not found within 1,000 seeds")
			}
		})
	}
}
