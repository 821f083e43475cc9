package job

import "github.com/dptune/dpt/model/optim"

// InlineState is the largest trainer state that log entries and messages carry, in bytes. A larger
// one is a blob.
const InlineState = 16 << 20

const (
	// statePerStep bounds the trainer states that full fine-tuning puts into the log, in bytes a
	// step on average: a larger state is committed less often.
	statePerStep = 2 << 20
	// blobPerStep bounds the states that are blobs in the same way: each replica writes them, and
	// the worker that sends one does not compute meanwhile.
	blobPerStep = 8 << 20
)

// StateSize is the size of the job's encoded trainer state in bytes.
func (s Spec) StateSize() int { return optim.StateSize(s.Parameters) }

// NeedsBlobs reports whether the job's states are too large for entries and messages, which carry
// up to inline bytes.
func (s Spec) NeedsBlobs(inline int) bool { return s.StateSize() > inline }

// CommitInterval is the number of steps between commits: every, as the user asks, or more if the
// state is so large that more than statePerStep or blobPerStep bytes a step would be written.
// inline is that of NeedsBlobs.
func (s Spec) CommitInterval(every int64, inline int) int64 {
	state, perStep := int64(s.StateSize()), int64(statePerStep)
	switch {
	case s.NeedsBlobs(inline):
		perStep = blobPerStep
	case !s.FineTunes():
		return every
	}
	return max(every, (state+perStep-1)/perStep)
}
