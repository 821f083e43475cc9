// Package ids holds the types by which all processes of a job name the same thing: a step, a
// generation of workers, a digest, and a trainer state by its digest. It imports nothing of the
// project, so that workers and blob stores can name what the log holds without importing the
// replicated state machine.
package ids

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Step counts committed optimizer steps. Step s is the s-th update; the state "after step 0" is the
// initial one.
type Step int64

// Generation numbers a fixed ring of workers. It only grows.
type Generation uint64

// Digest is a SHA-256.
type Digest [sha256.Size]byte

// Sum is the digest of data.
func Sum(data []byte) Digest { return sha256.Sum256(data) }

// String is the digest as 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short is the first 12 hexadecimal digits, for messages to people.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// DigestOf is the digest whose bytes are b; an error unless there are 32 of them.
func DigestOf(b []byte) (Digest, error) {
	var d Digest
	if len(b) != len(d) {
		return d, fmt.Errorf("digest of %d bytes, want %d", len(b), len(d))
	}
	copy(d[:], b)
	return d, nil
}

// ParseDigest reads what String writes, and nothing else: upper-case digits are an error.
func ParseDigest(text string) (Digest, error) {
	b, err := hex.DecodeString(text)
	if err != nil || text != hex.EncodeToString(b) {
		return Digest{}, fmt.Errorf("digest %q, want %d lower-case hexadecimal digits", text, 2*sha256.Size)
	}
	return DigestOf(b)
}

// Blob names a trainer state that is too large for a log entry: replicas keep it as a file, and the
// log holds its name.
type Blob struct {
	Digest Digest
	Size   int64 // in bytes; 0 is no blob
}
