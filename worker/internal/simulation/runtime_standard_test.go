//go:build !replay

package simulation

// replaysExactly reports whether the Go runtime draws its random numbers from the seed: see command
// replay.
const replaysExactly = false

func seedRuntime(uint64) {}
