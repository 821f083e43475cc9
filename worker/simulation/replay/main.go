// Command replay builds the simulation's test program on a Go runtime that draws its random numbers from a seed, so that
// one thread plays a seed the same way every time:
//
//	go run ./worker/simulation/replay -o bin/simulation.test
//
// The runtime draws numbers of its own when a select has several cases ready, when a map is walked, when timers fall on one
// instant, and for math/rand; it takes a goroutine off its thread after 10 ms, and looks at the queue of those that yielded
// every 61st time, counted from the start of the process. The overlay changes copies
// of some files of the runtime, and nothing in the Go installation.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// edit replaces one text that must be there exactly once.
type edit struct{ from, to string }

var edits = map[string][]edit{
	"rand.go": {
		{"func rand() uint64 {\n", `func rand() uint64 {
	if simulated[0] != 0 {
		return simulatedRand(0)
	}
`},
		{"func maps_rand() uint64 {\n", `func maps_rand() uint64 {
	if simulated[0] != 0 {
		return simulatedRand(1)
	}
`},
		{"\tglobalRand.state.Init(*seed)\n", "\tclear(seed[:])\n\tglobalRand.state.Init(*seed)\n"},
		{"func allZero(b []byte) bool {\n", `// simulated are the states of a simulation's sources of random numbers: of the program, maps, selects and timers. Each has its
// own, so that a draw more of the one changes nothing in the others. 0 is the real thing.
//
//go:linkname simulated
var simulated [4]uint64

//go:nosplit
func simulatedRand(of int) uint64 {
	simulated[of] += 0x9e3779b97f4a7c15
	z := simulated[of] | 1
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func allZero(b []byte) bool {
`},
	},
	"select.go": {
		{"j := cheaprandn(uint32(norder + 1))\n", `j := cheaprandn(uint32(norder + 1))
		if simulated[0] != 0 {
			j = uint32(simulatedRand(2)>>32) % uint32(norder+1)
		}
`},
	},
	"time.go": {
		{"\t\t\tt.rand = cheaprand()\n", `			t.rand = cheaprand()
			if simulated[0] != 0 {
				t.rand = uint32(simulatedRand(3))
			}
`},
	},
	"proc.go": {
		{"if pp.schedtick%61 == 0 && ", "if simulated[0] == 0 && pp.schedtick%61 == 0 && "},
		{"\nfunc retake(now int64) uint32 {\n", "\nfunc retake(now int64) uint32 {\n\tif simulated[0] != 0 {\n\t\treturn 0\n\t}\n"},
	},
}

func main() {
	out := flag.String("o", "bin/simulation.test", "where to put the program")
	flag.Parse()
	if err := build(*out); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func build(out string) error {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	dir := filepath.Join(filepath.Dir(out), ".simulation.overlay")
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for name, list := range edits {
		path := filepath.Join(strings.TrimSpace(string(root)), "src", "runtime", name)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := string(data)
		for _, e := range list {
			if n := strings.Count(text, e.from); n != 1 {
				return fmt.Errorf("%s: found %q %d times, want once: this version of Go needs other edits", path, e.from, n)
			}
			text = strings.Replace(text, e.from, e.to, 1)
		}
		overlay.Replace[path] = filepath.Join(dir, name)
		if err := os.WriteFile(overlay.Replace[path], []byte(text), 0o644); err != nil {
			return err
		}
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, data, 0o644); err != nil {
		return err
	}
	cmd := exec.Command("go", "test", "-c", "-tags", "replay", "-overlay", list, "-o", out, "./worker/simulation")
	// Addresses of the heap order maps that are keyed by pointers.
	cmd.Env = append(os.Environ(), "GOEXPERIMENT=norandomizedheapbase64")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the simulation: %w", err)
	}
	return nil
}
