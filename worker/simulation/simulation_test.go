package simulation

import (
	"io"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// scratch is a directory in memory where there is one.
func scratch() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

// play runs a plan in a bubble of its own.
func play(t *testing.T, plan Plan, ref *Reference, log io.Writer) (rep *Report) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if rep, err = Run(plan, Options{Reference: ref, Scratch: scratch(), Log: log}); err != nil {
			t.Fatal(err)
		}
	})
	return rep
}

// references are the undisturbed runs, without and with evaluations.
func references(t *testing.T) map[bool]*Reference {
	t.Helper()
	refs := map[bool]*Reference{}
	for _, evaluate := range []bool{false, true} {
		rep := play(t, Undisturbed(evaluate), nil, nil)
		if len(rep.Violations) > 0 || rep.Reference == nil {
			t.Fatalf("undisturbed run: %q", rep.Violations)
		}
		refs[evaluate] = rep.Reference
	}
	return refs
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q, want a number", name, text)
	}
	return n
}

func TestSweep(t *testing.T) {
	refs := references(t)
	from, n := number(t, "SIM_FROM", 1), number(t, "SIM_SEEDS", 20)
	var log io.Writer
	if n == 1 {
		log = os.Stderr
	}
	for seed := from; seed < from+n; seed++ {
		println("seed", seed)
		began := time.Now()
		plan := PlanOf(seed)
		rep := play(t, plan, refs[plan.Evaluate], log)
		if d := time.Since(began); d > time.Second {
			t.Logf("seed %d took %v", seed, d)
		}
		if len(rep.Violations) > 0 {
			t.Errorf("seed %d (%d replicas): %q", seed, plan.Replicas, rep.Violations)
		}
	}
}
