package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// change replaces one text in a file of the runtime. The text must occur exactly once, and what
// replaces it must have as many lines, so that everything else keeps its place: the linker compares
// what packages know of each other, source positions included.
type change struct{ from, to string }

// edits replace the runtime's sources of order that neither the program nor the seed decides. They
// take effect when SIM_RUNTIME is in the environment.
//
//   - Random numbers: those of the program (math/rand, seeds of maps), of iteration over maps, of
//     the choice among the ready cases of a select, and of timers that are due at one instant. A
//     new thread draws none of them.
//   - Time: the runtime preempts a goroutine after 10 ms, takes the processor of a thread that is
//     in a system call for 20 µs, makes a mutex fair after a wait of a millisecond, looks into the
//     global queue first at every 61st scheduling since the start of the process, and wakes the
//     scavenger.
//   - Memory: the garbage collector decides when finalizers run and pools are emptied. It is off,
//     and does not run when the program asks for it either. Addresses order iteration over maps
//     whose keys are pointers, so the heap must grow in the same way.
//   - Threads: a goroutine that is locked to one makes the scheduler find another, which it starts
//     or not. With one processor no goroutine needs its own thread.
var edits = map[string][]change{
	"rand.go": {
		{"func rand() uint64 {\n", "func rand() uint64 { if simulating() { return simulatedRand(0) }\n"},
		{"func maps_rand() uint64 {\n", "func maps_rand() uint64 { if simulating() { return simulatedRand(1) }\n"},
		{"\tmp.cheaprand = rand()\n", "\tmp.cheaprand = bootstrapRand()\n"},
		{"\tglobalRand.state.Init(*seed)\n", "\tclear(seed[:]); globalRand.state.Init(*seed)\n"},
	},
	"select.go": {
		{
			"j := cheaprandn(uint32(norder + 1))\n",
			"j := cheaprandn(uint32(norder + 1)); " +
				"if simulating() { j = uint32(simulatedRand(2)>>32) % uint32(norder+1) }\n",
		},
	},
	"time.go": {
		{
			"\t\t\tt.rand = cheaprand()\n",
			"\t\t\tt.rand = cheaprand(); if simulating() { t.rand = uint32(simulatedRand(3)) }\n",
		},
	},
	"sema.go": {
		{
			"func internal_sync_nanotime() int64 {\n",
			"func internal_sync_nanotime() int64 { if simulating() { return 1 }\n",
		},
	},
	"mgc.go": {
		{"\nfunc GC() {\n", "\nfunc GC() { if simulating() { return }\n"},
	},
	"mheap.go": {
		{
			"\nfunc runtime_debug_freeOSMemory() {\n",
			"\nfunc runtime_debug_freeOSMemory() { if simulating() { return }\n",
		},
	},
	"proc.go": {
		{
			"\tgoenvs()\n\tsecure()\n",
			"\tgoenvs(); if gogetenv(\"SIM_RUNTIME\") != \"\" { simulate(1) }\n\tsecure()\n",
		},
		{"if pp.schedtick%61 == 0 && ", "if !simulating() && pp.schedtick%61 == 0 && "},
		{
			"\nfunc retake(now int64) uint32 {\n",
			"\nfunc retake(now int64) uint32 { if simulating() { return 0 }\n",
		},
		{
			"if scavenger.sysmonWake.Load() != 0 {",
			"if !simulating() && scavenger.sysmonWake.Load() != 0 {",
		},
		{"\nfunc LockOSThread() {\n", "\nfunc LockOSThread() { if simulating() { return }\n"},
		{"\nfunc lockOSThread() {\n", "\nfunc lockOSThread() { if simulating() { return }\n"},
		{"\nfunc unlockOSThread() {\n", "\nfunc unlockOSThread() { if simulating() { return }\n"},
	},
}

// addition is appended to rand.go. A linkname makes a function known by its name. There is no new
// variable, because variables are known by numbers, and a new one would shift the numbers of those
// after it.
const addition = `
// The 32 bytes of seed are of no use to the program's own random numbers any more. They hold the
// states of a simulation's sources of random numbers: of the program, maps, selects and timers.
// Each has its own, so that one draw more from one changes nothing in the others. 0 is the real
// runtime.

//go:linkname simulating
//go:nosplit
func simulating() bool { return *(*uint64)(unsafe.Pointer(&globalRand.seed)) != 0 }

//go:linkname simulate
func simulate(seed uint64) {
	for i := range 4 {
		((*[4]uint64)(unsafe.Pointer(&globalRand.seed)))[i] = (seed*4+uint64(i))<<1 | 1
	}
}

//go:linkname simulatedRand
//go:nosplit
func simulatedRand(of int) uint64 {
	at := &((*[4]uint64)(unsafe.Pointer(&globalRand.seed)))[of]
	*at += 0x9e3779b97f4a7c15
	z := *at | 1
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
`

// edit writes edited copies of the runtime's files into dir. It returns the path of the go
// command's overlay that lists them, and for the compiler's -trimpath the names of the originals.
// The installation stays as it is.
func edit(dir string) (overlay, trimPaths string, err error) {
	root, err := output("go", "env", "GOROOT")
	if err != nil {
		return "", "", err
	}
	var list struct{ Replace map[string]string }
	list.Replace = map[string]string{}
	for name, changes := range edits {
		path := filepath.Join(root, "src", "runtime", name)
		data, err := os.ReadFile(path)
		if err != nil {
			return "", "", err
		}
		text := string(data)
		for _, c := range changes {
			if n := strings.Count(text, c.from); n != 1 {
				return "", "", fmt.Errorf("%s: found %q %d times, want once: this version of Go needs other edits",
					path, c.from, n)
			}
			text = strings.Replace(text, c.from, c.to, 1)
		}
		if name == "rand.go" {
			text += addition
		}
		list.Replace[path] = filepath.Join(dir, name)
		trimPaths += list.Replace[path] + "=>$GOROOT/src/runtime/" + name + ";"
		if err := os.WriteFile(list.Replace[path], []byte(text), 0o644); err != nil {
			return "", "", err
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return "", "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, trimPaths, os.WriteFile(overlay, data, 0o644)
}
