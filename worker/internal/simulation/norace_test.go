//go:build !race

package simulation

// raced says whether the race detector looks on; it takes ten times as long.
const raced = false
