package coordinator

import (
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// The leader's part in large states (package blobsync): no step is committed before a majority of
// the replicas has its state on disk, so that whoever leads next can have it.

// statesAreBlobs reports whether the job's trainer states are too large for entries and messages.
func (c *controller) statesAreBlobs() bool { return c.job.Spec.NeedsBlobs(c.cfg.Storage.inline()) }

// reportedBlob is the blob of the state that a report is about.
func (c *controller) reportedBlob(r *coordpb.Report) (b ids.Blob) {
	copy(b.Digest[:], r.StateDigest)
	b.Size = int64(c.job.Spec.StateSize())
	return b
}

// hasState reports whether this replica can give workers the committed state.
func (c *controller) hasState() bool { return c.blobs.Has(c.node.Status().Blob) }

// offerState asks the replicas to take the state after a complete step, which is here. With no
// other replicas it proposes the step at once.
func (c *controller) offerState(e *fsmpb.StepCommitted) {
	e.StateSize = int64(c.job.Spec.StateSize())
	if c.node.Alone() {
		c.propose(&applied{entry: stepCommitted(e)})
		return
	}
	c.gen.offer = e
	c.propose(&applied{entry: stateOffered(e)})
}

// settleOffer proposes the step whose state is offered, once a majority has it.
func (c *controller) settleOffer() {
	if c.gen == nil || c.gen.offer == nil {
		return
	}
	e := c.gen.offer
	offer := c.node.Status().Offer
	if offer == nil || offer.Step != ids.Step(e.Step) || offer.Generation != c.gen.number {
		return // it is on its way to the log
	}
	enough, err := c.blobs.HeldByQuorum(*offer)
	if err != nil {
		c.logger.Debug("offered state not settled", "step", e.Step, "reason", err)
		return
	}
	if enough {
		c.gen.offer = nil
		c.propose(&applied{entry: stepCommitted(e)})
	}
}
