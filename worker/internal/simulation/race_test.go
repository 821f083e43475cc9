//go:build race

package simulation

// raceEnabled reports whether the race detector is on: a test takes ten times as long then.
const raceEnabled = true
