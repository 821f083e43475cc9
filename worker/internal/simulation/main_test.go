package simulation

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

// Each seed is played in a process of its own, one per core at a time, each with one thread at work, by a program whose Go runtime draws from the
// seed: see package replay. Where that program cannot be built, and under the race detector, this one plays many seeds in a process; goroutines
// then take turns too, but Go draws for itself in which order.

// outcome is what a child says about a seed.
type outcome struct {
	Seed       uint64
	Digest     string
	Violations []string
	Trace      []string
	Took       float64 // seconds of simulated time
	Commits    int
	Lives      int
	Redone     int
	Most       int
	Crashed    map[string]int
}

// span are the seeds from, from+stride, … below to.
type span struct{ from, to, stride uint64 }

// A child's environment is the same in each run but for these values, and it works in a directory of its own: what differs from run to run would
// lie differently on the heap.
const (
	childSpan      = "SIM_CHILD_SPAN" // from:to:stride
	childBug       = "SIM_CHILD_BUG"  // a planted bug
	childRuntime   = "SIM_RUNTIME"    // the runtime draws from the seed from its start
	referencesFile = "references.json"
)

// program is the test program that plays seeds, and whether it plays them exactly.
var program = sync.OnceValues(func() (path string, replays bool) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	if exact || raced || testing.Short() {
		return self, exact
	}
	built := filepath.Join(workshop(), "simulation.test")
	cmd := exec.Command("go", "run", "github.com/dptune/dpt/worker/internal/simulation/replay", "-o", built)
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "seeds do not replay exactly here, because package replay cannot build its program: %v\n%s\n", err, out)
		return self, false
	}
	return built, true
})

// again is the command that plays a seed again.
func again(seed uint64, bug string) string {
	_, replays := program()
	switch {
	case replays && bug == "":
		return fmt.Sprintf("go run ./worker/internal/simulation/replay -seed %d", seed)
	case replays:
		return fmt.Sprintf("go run ./worker/internal/simulation/replay -seed %d -bug %q", seed, bug)
	}
	return fmt.Sprintf("SIM_FROM=%d SIM_SEEDS=1 SIM_BUG=%q go test -count=1 -run '^TestSimulation$' ./worker/internal/simulation (this build draws another order of events)", seed, bug)
}

// workshop is a directory for all that the tests of this process make.
var workshop = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp(scratch(), "dpt-sim-")
	if err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv(childSpan) == "" {
		if err := os.RemoveAll(workshop()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
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
	if options.Scratch == "" {
		options.Scratch = workshop()
	}
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
	var refs []*Reference // without and with evaluations
	data, err := os.ReadFile(referencesFile)
	if err == nil {
		err = json.Unmarshal(data, &refs)
	}
	if err != nil {
		t.Fatal(err)
	}
	plant(t, os.Getenv(childBug))
	ref := map[bool]*Reference{false: refs[0], true: refs[1]}
	for seed := s.from; seed < s.to; seed += s.stride {
		fmt.Printf("\n@start %d\n", seed)
		plan := PlanOf(seed)
		fix(seed)
		rep := play(t, plan, Options{Reference: ref[plan.Evaluate], Scratch: "."})
		line, err := json.Marshal(outcome{Seed: seed, Digest: fmt.Sprintf("%x", rep.Digest()), Violations: rep.Violations, Trace: rep.Trace, Took: rep.Took.Seconds(),
			Commits: rep.Commits, Lives: rep.Lives, Redone: rep.Redone, Most: rep.Most, Crashed: rep.Crashed})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\n@seed %s\n", line)
	}
}

// stage is where the children of one test play.
type stage struct {
	bug        string
	references []byte
	count      atomic.Int64 // of children
}

func newStage(t *testing.T, bug string) *stage {
	t.Helper()
	refs := references(t)
	for _, ref := range refs {
		for i := range ref.Steps {
			ref.Steps[i].Seconds = 0 // how long the undisturbed run took is nobody's concern
		}
	}
	data, err := json.Marshal([]*Reference{refs[false], refs[true]})
	if err != nil {
		t.Fatal(err)
	}
	return &stage{bug: bug, references: data}
}

// child plays seeds in a process of its own and passes on what came of each; it stops early if tell says so.
func (g *stage) child(ctx context.Context, s span, tell func(outcome) (more bool)) error {
	exe, replays := program()
	dir := filepath.Join(workshop(), fmt.Sprintf("%09d", g.count.Add(1)))
	if g.bug != "" {
		dir += " " + g.bug
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, referencesFile), g.references, 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, "-test.run", "^TestChild$", "-test.timeout", "20m")
	cmd.Dir = dir
	cmd.Env = []string{fmt.Sprintf("%s=%d:%d:%d", childSpan, s.from, s.to, s.stride), childBug + "=" + g.bug, "GOMAXPROCS=1"}
	if replays {
		cmd.Env = append(cmd.Env, childRuntime+"=1", "GOGC=off")
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
		if ctx.Err() != nil {
			return nil // nobody wants to know any more
		}
		seed, unknown := strconv.ParseUint(current, 10, 64)
		if unknown != nil {
			return fmt.Errorf("before the first seed: %w\n%s\n%s", err, strings.Join(rest, "\n"), tail(stderr.String()))
		}
		tell(outcome{Seed: seed, Violations: []string{fmt.Sprintf("the program that plays it ended: %v", err)}, Trace: append(rest, tail(stderr.String()))})
		return nil
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

// spans cuts seeds into what one child plays: all of them, or, where a seed replays exactly, each on its own, because
// what was played before leaves its trace in caches and pools.
func spans(from, to, stride uint64) (list []span) {
	if _, replays := program(); !replays {
		return []span{{from, to, stride}}
	}
	for seed := from; seed < to; seed += stride {
		list = append(list, span{seed, seed + 1, 1})
	}
	return list
}

// sweep plays seeds on all cores and collects what came of each, until tell says that it is enough.
func (g *stage) sweep(t *testing.T, from, n uint64, tell func(outcome) (more bool)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	children := uint64(min(runtime.NumCPU(), int(n)))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range children {
		wg.Go(func() {
			for _, s := range spans(from+i, from+n, children) {
				if ctx.Err() != nil {
					return
				}
				if err := g.child(ctx, s, func(o outcome) bool {
					mu.Lock()
					defer mu.Unlock()
					if ctx.Err() != nil {
						return false
					}
					if !tell(o) {
						stop()
					}
					return ctx.Err() == nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
