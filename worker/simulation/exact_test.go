//go:build replay

package simulation

import (
	"runtime"
	"runtime/debug"
	_ "unsafe" // for linkname
)

//go:linkname simulated runtime.simulated
var simulated [4]uint64

// exact says whether the runtime draws its numbers from the seed: see package replay.
const exact = true

// fix makes the runtime draw from seed on, and keeps the garbage collector from running in between.
func fix(seed uint64) {
	debug.SetGCPercent(-1)
	runtime.GC()
	for i := range simulated {
		simulated[i] = (seed*4+uint64(i))<<1 | 1
	}

}
