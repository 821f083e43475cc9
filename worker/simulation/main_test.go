package simulation

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

// Seeds are played in processes of their own, one per core, each with one thread at work: goroutines then take turns,
// and a seed plays in another process as it did in the first, but for what Go draws itself.

// outcome is what a child says about a seed.
type outcome struct {
	Seed       uint64
	Digest     string
	Violations []string
	Trace      []string `json:",omitempty"` // where there are violations
	Took       float64  // seconds of simulated time
	Commits    int
	Lives      int
	Crashed    map[string]int
}

// span are the seeds from, from+stride, … below to.
type span struct{ from, to, stride uint64 }

// request is what a child is asked to do, in its environment.
const (
	childSpan = "SIM_CHILD_SPAN" // from:to:stride
	childPlan = "SIM_CHILD_BUG"  // a planted bug
)

func TestMain(m *testing.M) {
	os.Exit(m.Run())
}

// scratch is a directory in memory where there is one.
func scratch() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

// play runs a plan in a bubble of its own.
func play(t *testing.T, plan Plan, options Options) (rep *Report) {
	t.Helper()
	options.Scratch = scratch()
	cryptotest.SetGlobalRandom(t, plan.Seed) // it names jobs
	synctest.Test(t, func(t *testing.T) {
		var err error
		if rep, err = Run(plan, options); err != nil {
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
		rep := play(t, Undisturbed(evaluate), Options{})
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

// TestChild plays the seeds that its environment names and prints a line about each. Alone it does nothing.
func TestChild(t *testing.T) {
	var s span
	if os.Getenv(childSpan) == "" {
		t.Skip("plays seeds for other tests")
	}
	if _, err := fmt.Sscanf(os.Getenv(childSpan), "%d:%d:%d", &s.from, &s.to, &s.stride); err != nil {
		t.Fatal(err)
	}
	refs := references(t)
	plant(t, os.Getenv(childPlan))
	for seed := s.from; seed < s.to; seed += s.stride {
		fmt.Printf("\n@start %d\n", seed)
		plan := PlanOf(seed)
		fix(seed)
		rep := play(t, plan, Options{Reference: refs[plan.Evaluate]})
		o := outcome{Seed: seed, Digest: fmt.Sprintf("%x", rep.Digest()), Violations: rep.Violations, Took: rep.Took.Seconds(), Commits: rep.Commits, Lives: rep.Lives, Crashed: rep.Crashed}
		if len(rep.Violations) > 0 || os.Getenv("SIM_TRACE") != "" {
			o.Trace = rep.Trace
		}
		line, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\n@seed %s\n", line)
		if len(rep.Violations) > 0 && os.Getenv(childPlan) != "" {
			return // found
		}
	}
}

// child plays seeds in a process of its own and passes on what came of each; it stops early if tell says so.
func child(t *testing.T, s span, bug string, tell func(outcome) (more bool)) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run", "^TestChild$", "-test.timeout", "20m")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d:%d:%d", childSpan, s.from, s.to, s.stride), childPlan+"="+bug, "GOMAXPROCS=1")
	if exact {
		cmd.Env = append(cmd.Env, "GOGC=off") // where things lie on the heap orders maps that are keyed by pointers
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	current, rest := "none", []string(nil)
	for lines.Scan() {
		text := lines.Text()
		if seed, ok := strings.CutPrefix(text, "@start "); ok {
			current, rest = seed, nil
			continue
		}
		data, ok := strings.CutPrefix(text, "@seed ")
		if !ok {
			rest = append(rest, text)
			continue
		}
		var o outcome
		if err := json.Unmarshal([]byte(data), &o); err != nil {
			return err
		}
		if !tell(o) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed
			return nil
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("seed %s: %w\n%s\n%s", current, err, strings.Join(rest, "\n"), tail(stderr.String()))
	}
	return lines.Err()
}

// tail is the part of a crash's output that a person can read.
func tail(text string) string {
	const most = 16 << 10
	if len(text) > most {
		text = text[:most] + "\n…"
	}
	return text
}

// spans cuts seeds into what one child plays: all of them, or, where a seed is to replay exactly, each on its own, because
// what was played before leaves its trace in caches and pools.
func spans(from, to, stride uint64) (list []span) {
	if !exact {
		return []span{{from, to, stride}}
	}
	for seed := from; seed < to; seed += stride {
		list = append(list, span{seed, seed + 1, 1})
	}
	return list
}

// sweep plays seeds on all cores and collects what came of each.
func sweep(t *testing.T, from, n uint64, bug string, tell func(outcome) (more bool)) {
	t.Helper()
	children := uint64(min(runtime.NumCPU(), int(n)))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range children {
		wg.Go(func() {
			for _, s := range spans(from+i, from+n, children) {
				if err := child(t, s, bug, func(o outcome) bool {
					mu.Lock()
					defer mu.Unlock()
					return tell(o)
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
