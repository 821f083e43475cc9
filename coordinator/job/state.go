package job

import "github.com/dptune/dpt/model/optim"

// InlineState is the largest trainer state that log entries and messages carry, in bytes. A larger
// one is a blob.
const InlineState = 16 << 20

// StateSize is how many bytes the encoding of the job's trainer state has.
func (s Spec) StateSize() int { return optim.StateSize(s.Parameters) }

// NeedsBlobs reports whether the job's states are too large for entries and messages, which carry
// up to inline bytes.
func (s Spec) NeedsBlobs(inline int) bool { return s.StateSize() > inline }

// CommitInterval is how many steps lie between commits when the user asks for every: more where the
// state is large, so that at most statePerStep or blobPerStep bytes of it are written a step.
func (s Spec) CommitInterval(every int64, inline int) int64 {
	state, per := int64(s.StateSize()), int64(statePerStep)
	switch {
	case s.NeedsBlobs(inline):
		per = blobPerStep
	case !s.FineTunes():
		return every
	}
	return max(every, (state+per-1)/per)
}
