// Command replay plays seeds of the simulation exactly. It builds the simulation's test program on
// a Go runtime that draws its random numbers from the seed and does nothing by the clock, and has
// it play a seed in a process of its own on one thread.
//
//	go run ./worker/internal/simulation/replay -seed 17
//	go run ./worker/internal/simulation/replay -o bin/simulation.test
//
// The first form prints the trace of seed 17, the second only builds the program.
//
// The tests of package simulation build and use the same program, so that a seed which fails there
// fails here in the same way.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// simulation is the package whose tests play seeds.
const simulation = "github.com/dptune/dpt/worker/internal/simulation"

func main() {
	if runtime := os.Getenv(linkVariable); runtime != "" {
		exit(runTool(runtime, os.Args[1:]))
	}
	out := flag.String("o", "", "path for the program, which is removed without this flag")
	seed := flag.Int64("seed", -1, "the seed to play; none without this flag")
	bug := flag.String("bug", "", "a bug to plant")
	flag.Parse()
	exit(run(*out, *seed, *bug))
}

// exit ends this program. If err is that of a program it ran, it ends with the same exit status.
func exit(err error) {
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		os.Exit(max(1, failed.ExitCode()))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run builds the program at out, or somewhere if out is "", and has it play seed unless that is
// negative.
func run(out string, seed int64, bug string) error {
	if out == "" && seed < 0 {
		return errors.New("found neither -o nor -seed, want one of them")
	}
	dir, err := os.MkdirTemp("", "dpt-replay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if out == "" {
		out = filepath.Join(dir, "simulation.test")
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	if err := build(dir, out); err != nil {
		return err
	}
	if seed < 0 {
		return nil
	}
	cmd := exec.Command(out, "-test.run", "^TestSimulation$", "-test.v", "-test.timeout", "0")
	cmd.Env = append(os.Environ(), fmt.Sprintf("SIM_FROM=%d", seed), "SIM_SEEDS=1", "SIM_BUG="+bug)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// linkVariable is set when the go command runs this program in place of a build tool. Its value is
// the path of the archive of the edited runtime.
const linkVariable = "DPT_REPLAY_RUNTIME"

// build compiles the edited runtime and links the test program with it. All other packages are as
// in any other build and need not be compiled again: the edits do not change what they see of the
// runtime.
func build(dir, out string) error {
	overlay, trimPaths, err := edit(dir)
	if err != nil {
		return err
	}
	runtime, err := output("go", "list", "-export", "-overlay", overlay,
		"-gcflags", "runtime=-trimpath="+trimPaths, "-f", "{{.Export}}", "runtime")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "test", "-c", "-tags", "replay", "-toolexec", self, "-o", out, simulation)
	cmd.Env = append(os.Environ(), linkVariable+"="+runtime)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the simulation: %w", err)
	}
	return nil
}

// runTool runs a tool of the build. The linker gets the edited runtime's archive in place of the
// usual one.
func runTool(runtime string, args []string) error {
	name := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
	for i, a := range args {
		if name != "link" || a != "-importcfg" || i+1 == len(args) {
			continue
		}
		data, err := os.ReadFile(args[i+1])
		if err != nil {
			return err
		}
		lines := strings.Split(string(data), "\n")
		found := 0
		for k, line := range lines {
			if strings.HasPrefix(line, "packagefile runtime=") {
				lines[k] = "packagefile runtime=" + runtime
				found++
			}
		}
		if found != 1 {
			return fmt.Errorf("%s: found the runtime %d times, want once", args[i+1], found)
		}
		if err := os.WriteFile(args[i+1], []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			return err
		}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// output runs a command and returns what it prints to standard output.
func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
