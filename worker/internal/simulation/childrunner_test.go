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

// The tests play each seed in a process of its own, a child, at most one per core at a time and
// each on one thread. The child's program has a Go runtime that draws from the seed: see command
// replay. Where that program cannot be built, and under the race detector, a child is this program
// and plays many seeds; its goroutines take turns too, but in an order that Go draws for itself.

// outcome is what a child reports about a seed.
type outcome struct {
	Seed       uint64
	Digest     string
	Violations []string
	Trace      []string
	Took       float64 // seconds of simulated time
	Commits    int
	Processes  int
	Redone     int
	MostRedone int
	Crashed    map[string]int
}

// seedRange is the seeds from, from+stride, … below to.
type seedRange struct{ from, to, stride uint64 }

// A child's environment is the same in each run but for the values of these variables, and it works
// in a directory of its own: whatever differs from run to run would lie differently on the heap.
const (
	childSpan      = "SIM_CHILD_SPAN" // from:to:stride
	childBug       = "SIM_CHILD_BUG"  // a planted bug
	childRuntime   = "SIM_RUNTIME"    // the runtime draws from the seed from its start
	referencesFile = "references.json"
)

// testProgram returns the path of the program that plays seeds, which it builds, and whether that
// replays them exactly.
var testProgram = sync.OnceValues(func() (path string, replays bool) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	if replaysExactly || raceEnabled || testing.Short() {
		return self, replaysExactly
	}
	built := filepath.Join(scratchDir(), "simulation.test")
	cmd := exec.Command("go", "run", "github.com/dptune/dpt/worker/internal/simulation/replay", "-o", built)
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "seeds do not replay exactly here, because command replay "+
			"cannot build its program: %v\n%s\n", err, out)
		return self, false
	}
	return built, true
})

// replayCommand returns the command that plays a seed again.
func replayCommand(seed uint64, bug string) string {
	_, replays := testProgram()
	switch {
	case replays && bug == "":
		return fmt.Sprintf("go run ./worker/internal/simulation/replay -seed %d", seed)
	case replays:
		return fmt.Sprintf("go run ./worker/internal/simulation/replay -seed %d -bug %q", seed, bug)
	}
	return fmt.Sprintf("SIM_FROM=%d SIM_SEEDS=1 SIM_BUG=%q go test -count=1 -run '^TestSimulation$' "+
		"./worker/internal/simulation (this build draws another order of events)", seed, bug)
}

// scratchDir returns a directory for all files of this process's tests.
var scratchDir = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp(memoryDir(), "dpt-sim-")
	if err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv(childSpan) == "" {
		if err := os.RemoveAll(scratchDir()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// memoryDir returns a directory in memory if there is one, else "".
func memoryDir() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

// play runs a plan in a bubble of its own.
func play(t *testing.T, plan Plan, options Options) (rep *Report) {
	t.Helper()
	if options.Scratch == "" {
		options.Scratch = scratchDir()
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

// references returns the undisturbed runs, without and with evaluations.
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

// envNumber returns the value of an environment variable, or otherwise if it is not set.
func envNumber(t *testing.T, name string, otherwise uint64) uint64 {
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

// TestChild plays the seeds that its environment names and prints a line about each. It is skipped
// unless another test starts it as a child.
func TestChild(t *testing.T) {
	var s seedRange
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
		seedRuntime(seed)
		rep := play(t, plan, Options{Reference: ref[plan.Evaluate], Scratch: "."})
		line, err := json.Marshal(outcome{
			Seed:       seed,
			Digest:     fmt.Sprintf("%x", rep.Digest()),
			Violations: rep.Violations,
			Trace:      rep.Trace,
			Took:       rep.Took.Seconds(),
			Commits:    rep.Commits,
			Processes:  rep.Processes,
			Redone:     rep.Redone,
			MostRedone: rep.MostRedone,
			Crashed:    rep.Crashed,
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\n@seed %s\n", line)
	}
}

// childRunner runs the children of one test.
type childRunner struct {
	bug        string       // planted in every child; "" is none
	references []byte       // the reference runs, as the children read them
	count      atomic.Int64 // of children so far
}

func newChildRunner(t *testing.T, bug string) *childRunner {
	t.Helper()
	refs := references(t)
	for _, ref := range refs {
		for i := range ref.Steps {
			ref.Steps[i].Seconds = 0 // the real time differs from run to run
		}
	}
	data, err := json.Marshal([]*Reference{refs[false], refs[true]})
	if err != nil {
		t.Fatal(err)
	}
	return &childRunner{bug: bug, references: data}
}

// run plays seeds in a child and passes each outcome to tell. It stops early if tell returns false.
func (g *childRunner) run(ctx context.Context, s seedRange, tell func(outcome) (more bool)) error {
	exe, replays := testProgram()
	dir := filepath.Join(scratchDir(), fmt.Sprintf("%09d", g.count.Add(1)))
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
	cmd.Env = []string{
		fmt.Sprintf("%s=%d:%d:%d", childSpan, s.from, s.to, s.stride),
		childBug + "=" + g.bug,
		"GOMAXPROCS=1",
	}
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

	// Read the outcomes. The lines after a seed's start belong to a crash's output.
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

	// A child that crashes is a violation of the seed that it was playing.
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil // another child has stopped the test
		}
		seed, unknown := strconv.ParseUint(current, 10, 64)
		if unknown != nil {
			return fmt.Errorf("before the first seed: %w\n%s\n%s", err, strings.Join(rest, "\n"), head(stderr.String()))
		}
		tell(outcome{
			Seed:       seed,
			Violations: []string{fmt.Sprintf("the program that plays it ended: %v", err)},
			Trace:      append(rest, head(stderr.String())),
		})
		return nil
	}
	return lines.Err()
}

// head returns as much of a crash's output, from its beginning, as a person can read.
func head(text string) string {
	const most = 16 << 10
	if len(text) > most {
		text = text[:most] + "\n…"
	}
	return text
}

// seedRanges cuts seeds into what one child plays each: all of them, or, where seeds replay
// exactly, a single one, because the seeds before it leave their traces in caches and pools.
func seedRanges(from, to, stride uint64) (list []seedRange) {
	if _, replays := testProgram(); !replays {
		return []seedRange{{from, to, stride}}
	}
	for seed := from; seed < to; seed += stride {
		list = append(list, seedRange{seed, seed + 1, 1})
	}
	return list
}

// playSeeds plays n seeds on all cores and passes each outcome to tell, one at a time. It stops
// early if tell returns false.
func (g *childRunner) playSeeds(t *testing.T, from, n uint64, tell func(outcome) (more bool)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	children := uint64(min(runtime.NumCPU(), int(n)))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range children {
		wg.Go(func() {
			for _, s := range seedRanges(from+i, from+n, children) {
				if ctx.Err() != nil {
					return
				}
				if err := g.run(ctx, s, func(o outcome) bool {
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
