//go:build replay

package simulation

import _ "unsafe" // for linkname

// exact says whether the runtime draws its numbers from the seed: see package replay.
const exact = true

// fix makes the runtime draw from seed on.
//
//go:linkname fix runtime.simulate
func fix(seed uint64)
