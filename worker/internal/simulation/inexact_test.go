//go:build !replay

package simulation

// exact says whether the runtime draws its numbers from the seed: see package replay.
const exact = false

func fix(uint64) {}
