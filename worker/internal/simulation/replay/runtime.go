package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// change replaces one text of a file of the runtime. The text must be there exactly once, and what replaces it has as many lines, so that
// everything else keeps its place: the linker compares what packages know of each other, places included.
type change struct{ from, to string }

// edits are the runtime's sources of order that neither the program nor the seed decides. They apply when SIM_RUNTIME is in the environment.
//
//   - Random numbers: of the program (math/rand, seeds of maps), of walks over maps, of the choice among ready cases of a select, of timers
//     that are due at one instant. A new thread takes none of them.
//   - Time: a goroutine is taken off its thread after 10 ms; a thread in a system call loses its processor after 20 µs; a mutex becomes
//     fair when somebody has waited for a millisecond; every 61st time, counted from the start of the process, the queue of those that yielded
//     comes first; the scavenger is woken.
//   - Memory: the collector decides when finalizers run and pools are emptied. It is off, and does not run when asked to either.
//     Addresses order walks over maps whose keys are pointers, so the heap has to grow in the same way.
//   - Threads: a goroutine locked to one makes the scheduler find another, which it starts or not. With one processor none needs its own.
var edits = map[string][]change{
	"rand.go": {
		{"func rand() uint64 {\n", "func rand() uint64 { if simulating() { return simulatedRand(0) }\n"},
		{"func maps_rand() uint64 {\n", "func maps_rand() uint64 { if simulating() { return simulatedRand(1) }\n"},
		{"\tmp.cheaprand = rand()\n", "\tmp.cheaprand = bootstrapRand()\n"},
		{"\tglobalRand.state.Init(*seed)\n", "\tclear(seed[:]); globalRand.state.Init(*seed)\n"},
	},
	"select.go": {
		{"j := cheaprandn(uint32(norder + 1))\n", "j := cheaprandn(uint32(norder + 1)); if simulating() { j = uint32(simulatedRand(2)>>32) % uint32(norder+1) }\n"},
	},
	"time.go": {
		{"\t\t\tt.rand = cheaprand()\n", "\t\t\tt.rand = cheaprand(); if simulating() { t.rand = uint32(simulatedRand(3)) }\n"},
	},
	"sema.go": {
		{"func internal_sync_nanotime() int64 {\n", "func internal_sync_nanotime() int64 { if simulating() { return 1 }\n"},
	},
	"mgc.go": {
		{"\nfunc GC() {\n", "\nfunc GC() { if simulating() { return }\n"},
	},
	"mheap.go": {
		{"\nfunc runtime_debug_freeOSMemory() {\n", "\nfunc runtime_debug_freeOSMemory() { if simulating() { return }\n"},
	},
	"proc.go": {
		{"\tgoenvs()\n\tsecure()\n", "\tgoenvs(); if gogetenv(\"SIM_RUNTIME\") != \"\" { simulate(1) }\n\tsecure()\n"},
		{"if pp.schedtick%61 == 0 && ", "if !simulating() && pp.schedtick%61 == 0 && "},
		{"\nfunc retake(now int64) uint32 {\n", "\nfunc retake(now int64) uint32 { if simulating() { return 0 }\n"},
		{"if scavenger.sysmonWake.Load() != 0 {", "if !simulating() && scavenger.sysmonWake.Load() != 0 {"},
		{"\nfunc LockOSThread() {\n", "\nfunc LockOSThread() { if simulating() { return }\n"},
		{"\nfunc lockOSThread() {\n", "\nfunc lockOSThread() { if simulating() { return }\n"},
		{"\nfunc unlockOSThread() {\n", "\nfunc unlockOSThread() { if simulating() { return }\n"},
	},
}

// addition goes to the end of rand.go. A linkname makes a function known by its name; what is known by its number would shift the
// numbers of what comes after it, so there is no new variable.
const addition = `
// The 32 bytes that the program's own random numbers came from are of no use any more. They hold the states of a simulation's
// sources of random numbers: of the program, maps, selects and timers. Each has its own, so that a draw more of the one changes nothing
// in the others. 0 is the real thing.

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

// edit writes edited copies of the runtime's files into dir and returns the list of them for the go command, and for the compiler what to call
// them. The installation stays as it is.
func edit(dir string) (overlay, places string, err error) {
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
				return "", "", fmt.Errorf("%s: found %q %d times, want once: this version of Go needs other edits", path, c.from, n)
			}
			text = strings.Replace(text, c.from, c.to, 1)
		}
		if name == "rand.go" {
			text += addition
		}
		list.Replace[path] = filepath.Join(dir, name)
		places += list.Replace[path] + "=>$GOROOT/src/runtime/" + name + ";"
		if err := os.WriteFile(list.Replace[path], []byte(text), 0o644); err != nil {
			return "", "", err
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return "", "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, places, os.WriteFile(overlay, data, 0o644)
}
