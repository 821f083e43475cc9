package coordinator

import (
	"time"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// generation is a fixed ring of workers at work.
type generation struct {
	number  ids.Generation
	ranks   []*session
	planned ids.Step // the last step whose plan was sent
	steps   map[ids.Step]*stepReports
	pending []*fsmpb.StepCommitted // complete steps that wait for the one that commits them
	offer   *fsmpb.StepCommitted   // a complete step whose state waits for a majority of the replicas
	free    []time.Time            // by rank, when it last became free
	regroup bool                   // a worker waits to join: finish what is planned, then form the next one
}

// rank is the session's in this generation, -1 if it is not part of it.
func (g *generation) rank(s *session) int {
	if s.gen != g {
		return -1
	}
	return s.rank
}

// isCurrent reports whether a message's generation is the present one.
func (c *controller) isCurrent(number uint64) bool {
	return c.gen != nil && uint64(c.gen.number) == number
}

// formGeneration proposes a new generation of all available workers when there are enough. Nothing
// may be on its way to the log: a step that was proposed belongs to the old generation and is
// committed or rejected first.
func (c *controller) formGeneration() {
	need := c.cfg.Nodes
	if c.begun {
		need = c.cfg.MinNodes
	}
	members := c.available()
	now := time.Now()
	if c.forming || c.inFlight > 0 || len(members) < need || now.Before(c.notBefore) || !c.hasState() {
		return
	}
	if len(members) < c.expected && now.Before(c.rejoinBy) {
		return
	}
	s := c.node.Status()
	c.forming = true
	c.propose(&applied{entry: generationStarted(s.Generation+1, s.Step, members), members: members})
}

// onGeneration starts the ring that the log now holds.
func (c *controller) onGeneration(e *fsmpb.GenerationStarted, members []*session) {
	c.forming = false
	for _, s := range members {
		if !c.roster.has(s) {
			return // gone meanwhile: form another
		}
	}
	resume := ids.Step(e.ResumeStep)
	c.gen = &generation{
		number:  ids.Generation(e.Generation),
		ranks:   members,
		planned: resume,
		steps:   map[ids.Step]*stepReports{},
		free:    make([]time.Time, len(members)),
	}
	c.begun, c.expected = true, 0
	status := c.node.Status()
	for r, m := range startGenerationMessages(c.gen.number, members, resume, status.State, status.Blob) {
		s := members[r]
		s.gen, s.rank = c.gen, r
		s.send(m)
		c.cfg.markHalf(HalfGeneration, r, len(members))
	}
	c.lastStep = time.Now()
	c.logger.Info("generation started",
		"generation", c.gen.number, "workers", len(members), "after_step", e.ResumeStep)
	c.progress.Generation(c.gen.number, len(members), resume)
}

// endGeneration abandons the steps in flight. Committed steps stay; the next generation resumes
// after them.
func (c *controller) endGeneration(why error) {
	c.logger.Warn("generation ended", "generation", c.gen.number, "reason", why)
	c.gen = nil
	c.barren++
	delay := regroupDelay << min(c.barren-1, 10)
	c.notBefore = time.Now().Add(min(delay, maxRegroupDelay))
	if c.eval != nil {
		c.eval.abandon()
	}
	if c.barren > maxBarren {
		c.fail("%d generations ended in a row without a committed step; the last because %w", c.barren, why)
	}
}

// regroupNow has the next generation formed without waiting for more reports of a failure, because
// there was none.
func (c *controller) regroupNow() {
	if c.barren <= 3 {
		c.notBefore = time.Now()
	}
}

// rejoin lets workers in that stood down, are back and have rested.
func (c *controller) rejoin() {
	if c.gen == nil || c.gen.regroup {
		return
	}
	for _, s := range c.available() {
		if c.gen.rank(s) < 0 {
			c.gen.regroup = true
		}
	}
}
