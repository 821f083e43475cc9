package coordinator

import "github.com/dptune/dpt/coordinator/outputs"

// Hooks for the simulation of a whole cluster.

// The points at which Config.Mark is called: a crash there separates two effects that belong
// together. Package outputs has some more.
const (
	// BeforePropose: no other replica has heard of the entry.
	BeforePropose = "coordinator: before propose"
	// AfterPropose: it may or may not be in the log.
	AfterPropose = "coordinator: after propose"
	// AfterCommit: it is in the log, and no worker has been told.
	AfterCommit = "coordinator: after commit"
	// HalfGeneration: half of the members have been told of the generation.
	HalfGeneration = "coordinator: half a generation sent"
	// HalfPlan: half of the ranks have their plan.
	HalfPlan = "coordinator: half a plan sent"
)

// Marks returns all points in the order in which a job meets them.
func Marks() []string {
	return []string{
		BeforePropose,
		AfterPropose,
		AfterCommit,
		HalfGeneration,
		HalfPlan,
		outputs.BeforeOutput,
		outputs.AfterOutput,
		outputs.BeforePrompts,
		outputs.AfterPrompts,
	}
}

// mark calls Mark at a point that the process has reached.
func (c *Config) mark(point string) {
	if c.Mark != nil {
		c.Mark(point)
	}
}

// markHalf marks the middle of what is sent to n receivers, after receiver i.
func (c *Config) markHalf(point string, i, n int) {
	if i == (n-1)/2 {
		c.mark(point)
	}
}

// Bugs of the protocol that the simulation's tests plant, to see that they are found. Nothing else
// sets them.
var (
	plantedNoAgreement bool // the first report counts, whatever digests the others have
	plantedStaleReport bool // a report of an ended generation counts for the present one
)
