package simulation

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestScenarios plays scripts that are written by hand, each under several seeds, which vary the
// latencies and how long computing takes.
func TestScenarios(t *testing.T) {
	seeds := uint64(5)
	if testing.Short() || raceEnabled {
		seeds = 2
	}
	refs := references(t)
	cluster := func(replicas, workers int, faults ...[]Fault) Plan {
		return Plan{Replicas: replicas, Workers: workers, Faults: slices.Concat(faults...)}
	}
	at := func(begin, length time.Duration, kind Kind, hosts ...string) (faults []Fault) {
		for _, h := range hosts {
			faults = append(faults, Fault{At: begin, For: length, Kind: kind, Host: h})
		}
		return faults
	}
	const ms = time.Millisecond
	for name, plan := range map[string]Plan{
		"everything loses its power": cluster(3, 2,
			at(1500*ms, 500*ms, PowerLoss, "c1", "c2", "c3", "w1", "w2")),
		"every process is killed": cluster(1, 3,
			at(900*ms, 100*ms, Crash, "c1", "w1", "w2", "w3")),
		"the leader is killed": cluster(3, 3,
			at(1500*ms, 2000*ms, Crash, Leader)),
		"the leader is partitioned": cluster(3, 3,
			at(1500*ms, 4000*ms, Partition, Leader)),
		"one leader after the other hangs": cluster(3, 2,
			at(1300*ms, 2000*ms, Hang, Leader),
			at(3000*ms, 2500*ms, Hang, Leader)),
		"a leader's disk fails": cluster(3, 3,
			at(1500*ms, 0, DiskError, Leader)),
		"a leader's disk is full": cluster(3, 3,
			at(1500*ms, 0, DiskFull, Leader)),
		"bits flip on one disk after the other": cluster(3, 2,
			at(1200*ms, 300*ms, BitFlip, "c1"),
			at(2500*ms, 300*ms, BitFlip, "c2"),
			at(3800*ms, 300*ms, BitFlip, "c3")),
		"the only coordinator's disk fails": cluster(1, 3,
			at(700*ms, 0, DiskError, "c1")),
		"all workers are asked to stop, one crashes": cluster(1, 3,
			at(700*ms, 300*ms, Stop, "w1", "w2", "w3"),
			at(800*ms, 3000*ms, Crash, "w1")),
		"the coordinator is asked to stop": cluster(1, 2,
			at(800*ms, 300*ms, Stop, "c1")),
		"a worker receives, and cannot send": cluster(1, 3,
			at(700*ms, 6000*ms, OneWayPartition, "w2")),
		"a worker hangs": cluster(1, 3,
			at(700*ms, 30*time.Second, Hang, "w2")),
		"workers join one after the other": cluster(1, 1,
			at(500*ms, 0, Join, "w2"),
			at(900*ms, 0, Join, "w3")),
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range seeds {
				plan.Seed, plan.CommitEvery, plan.CommitWindow, plan.Large = seed, 1, 1, seed%2 == 1
				rep := play(t, plan, Options{Reference: refs[false]})
				for _, v := range rep.Violations {
					t.Errorf("seed %d: %s", seed, v)
				}
				if t.Failed() {
					for _, line := range rep.Trace {
						fmt.Println(line)
					}
					return
				}
			}
		})
	}
}
