//go:build replay

package simulation

import _ "unsafe" // for linkname

// replaysExactly reports whether the Go runtime draws its random numbers from the seed: see command
// replay.
const replaysExactly = true

// seedRuntime makes the runtime draw from seed on.
//
//go:linkname seedRuntime runtime.simulate
func seedRuntime(seed uint64)
