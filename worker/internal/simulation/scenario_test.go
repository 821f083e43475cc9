package simulation

import (
	"fmt"
	"testing"
	"time"
)

// TestScenarios plays scripts written by hand, each under several seeds, which vary latencies and the time computing takes.
func TestScenarios(t *testing.T) {
	refs := references(t)
	at := func(d time.Duration, dur time.Duration, kind Kind, hosts ...string) (faults []Fault) {
		for _, h := range hosts {
			faults = append(faults, Fault{At: d, For: dur, Kind: kind, Host: h})
		}
		return faults
	}
	const ms = time.Millisecond
	for name, plan := range map[string]Plan{
		"everything loses its power":              {Replicas: 3, Workers: 2, Faults: at(1500*ms, 500*ms, PowerLoss, "c1", "c2", "c3", "w1", "w2")},
		"every process is killed":                 {Replicas: 1, Workers: 3, Faults: at(900*ms, 100*ms, Crash, "c1", "w1", "w2", "w3")},
		"the leader is killed":                    {Replicas: 3, Workers: 3, Faults: at(1500*ms, 2000*ms, Crash, Leader)},
		"the leader is cut off":                   {Replicas: 3, Workers: 3, Faults: at(1500*ms, 4000*ms, Part, Leader)},
		"one leader after the other hangs":        {Replicas: 3, Workers: 2, Faults: append(at(1300*ms, 2000*ms, Hang, Leader), at(3000*ms, 2500*ms, Hang, Leader)...)},
		"a leader's disk fails":                   {Replicas: 3, Workers: 3, Faults: at(1500*ms, 0, BadDisk, Leader)},
		"a leader's disk is full":                 {Replicas: 3, Workers: 3, Faults: at(1500*ms, 0, FullDisk, Leader)},
		"bits flip on one disk after the other":   {Replicas: 3, Workers: 2, Faults: append(at(1200*ms, 300*ms, Rot, "c1"), append(at(2500*ms, 300*ms, Rot, "c2"), at(3800*ms, 300*ms, Rot, "c3")...)...)},
		"the only coordinator's disk fails":       {Replicas: 1, Workers: 3, Faults: at(700*ms, 0, BadDisk, "c1")},
		"all workers are asked to stop, one goes": {Replicas: 1, Workers: 3, Faults: append(at(700*ms, 300*ms, Stop, "w1", "w2", "w3"), at(800*ms, 3000*ms, Crash, "w1")...)},
		"the coordinator is asked to stop":        {Replicas: 1, Workers: 2, Faults: at(800*ms, 300*ms, Stop, "c1")},
		"a worker hears, and is not heard":        {Replicas: 1, Workers: 3, Faults: at(700*ms, 6000*ms, PartWay, "w2")},
		"a worker hangs":                          {Replicas: 1, Workers: 3, Faults: at(700*ms, 30*time.Second, Hang, "w2")},
		"workers join one after the other":        {Replicas: 1, Workers: 1, Faults: append(at(500*ms, 0, Join, "w2"), at(900*ms, 0, Join, "w3")...)},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
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
