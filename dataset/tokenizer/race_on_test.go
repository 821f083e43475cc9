//go:build race

package tokenizer

// raceEnabled: under the race detector sync.Pool drops items on purpose.
const raceEnabled = true
