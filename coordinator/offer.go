package coordinator

import (
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// The controller's part in large states: nothing is committed before a majority of the replicas has it on disk, so that whoever leads next can have it.

// nameOf is a blob's digest for a message; nil of no blob.
func nameOf(b ids.Blob) []byte {
	if b.Size == 0 {
		return nil
	}
	return b.Digest[:]
}

// blobOf is the blob of the state that a report is about.
func (c *controller) blobOf(r *coordpb.Report) (b ids.Blob) {
	copy(b.Digest[:], r.StateDigest)
	b.Size = int64(c.job.Spec.StateSize())
	return b
}

// stateHere says whether this replica can give workers the committed state.
func (c *controller) stateHere() bool {
	var blob ids.Blob
	c.node.view(func(m *fsm.Machine) { blob = m.Blob() })
	return c.states.has(blob)
}

// offer asks the replicas to take the state after a complete step, which is here; with no others, the step is proposed at once.
func (c *controller) offer(e *fsmpb.StepCommitted) {
	e.StateSize = int64(c.job.Spec.StateSize())
	if c.node.alone() {
		c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: e}}})
		return
	}
	c.gen.offer = e
	c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_StateOffered{StateOffered: &fsmpb.StateOffered{
		Generation: e.Generation, Step: e.Step, Digest: e.StateDigest, Size: e.StateSize,
	}}}})
}

// settleOffer proposes the step whose state is offered, once a majority has it.
func (c *controller) settleOffer() {
	if c.gen == nil || c.gen.offer == nil {
		return
	}
	e := c.gen.offer
	var offer *fsm.Offer
	c.node.view(func(m *fsm.Machine) { offer = m.Offered() })
	if offer == nil || offer.Step != ids.Step(e.Step) || offer.Generation != c.gen.number {
		return // it is on its way to the log
	}
	enough, err := c.states.heldByMajority(*offer)
	if err != nil {
		c.logger.Debug("offered state not settled", "step", e.Step, "reason", err)
		return
	}
	if enough {
		c.gen.offer = nil
		c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: e}}})
	}
}
