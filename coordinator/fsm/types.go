package fsm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Step counts committed optimizer steps. Step s is the s-th update; the state "after step 0" is the initial one.
type Step int64

// Generation numbers a fixed ring of workers. It only grows.
type Generation uint64

// Digest is a SHA-256.
type Digest [sha256.Size]byte

// Sum is the digest of data.
func Sum(data []byte) Digest { return sha256.Sum256(data) }

// String is the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short is the first 12 hexadecimal digits, for messages to people.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// DigestOf checks that b has a digest's length.
func DigestOf(b []byte) (Digest, error) {
	var d Digest
	if len(b) != len(d) {
		return d, fmt.Errorf("digest of %d bytes, want %d", len(b), len(d))
	}
	copy(d[:], b)
	return d, nil
}

// ParseDigest reads what String writes.
func ParseDigest(text string) (Digest, error) {
	b, err := hex.DecodeString(text)
	if err != nil || text != hex.EncodeToString(b) {
		return Digest{}, fmt.Errorf("digest %q, want %d hexadecimal digits", text, 2*sha256.Size)
	}
	return DigestOf(b)
}

// Blob names a trainer state that is too large for an entry: replicas keep it as a file, and the log holds its name.
type Blob struct {
	Digest Digest
	Size   int64 // in bytes; 0 is no blob
}

// Offer is a blob that the leader asks the replicas to take before it proposes the step that leads to it.
type Offer struct {
	Generation Generation
	Step       Step
	Blob
}

// Member is one worker of a generation; its index in the list is its rank.
type Member struct {
	ID   string
	Addr string
}

// Evaluation is a committed evaluation.
type Evaluation struct {
	Step     Step
	Split    string
	Loss     float64 // mean token loss
	Metrics  []byte  // JSON object, in percent
	Score    float64 // what "best" compares, greater is better
	Examples int64
	Seconds  float64
	Probe    []byte // JSON object of what the rank probe sees; empty for other methods
}

// Failure is why a job cannot go on: something in its data that fails on every machine.
type Failure struct {
	Step   Step
	Reason string
}

// EpochStat sums the training loss of one epoch: each example counted once, under the state it met.
type EpochStat struct {
	LossSum float64
	Tokens  int64
}

// Mean is the epoch's mean token loss.
func (e EpochStat) Mean() float64 {
	if e.Tokens == 0 {
		return 0
	}
	return e.LossSum / float64(e.Tokens)
}

// Best is the state with the highest evaluation score so far, and among equal scores the lowest loss: a metric over few
// examples often stands still while the loss falls.
type Best struct {
	Step  Step
	Score float64
	Loss  float64
	State []byte // nil where Blob names it
	Blob  Blob
}

// BeatenBy says whether e is better; anything is better than nil.
func (b *Best) BeatenBy(e Evaluation) bool {
	return b == nil || e.Score > b.Score || e.Score == b.Score && e.Loss < b.Loss
}

// StepRecord is what a committed step leaves for the metrics, without the state.
type StepRecord struct {
	Generation   Generation
	Step         Step
	BatchDigest  Digest
	StateDigest  Digest
	LossSum      float64
	Tokens       int64
	LearningRate float64
	GradNorm     float64
	Seconds      float64
	Workers      int
}

// Loss is the mean token loss of the step's global batch, before the update.
func (r StepRecord) Loss() float64 { return r.LossSum / float64(r.Tokens) }
