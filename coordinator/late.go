package coordinator

import (
	"fmt"
	"time"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// How fast workers are, and what becomes of one that keeps the others waiting.

const (
	// speedWeight is the weight of the newest measurement in a worker's moving average of its speed.
	speedWeight = 0.3
	// speedJump is by how much two measurements in a row must differ from the average, to the same side, for the average to jump.
	speedJump = 1.25
	// minSpeed stands in for the speed of a worker whose clock saw no time pass.
	minSpeed = 1e-3
	// lateFactor is how many times longer than expected a rank may compute while all others wait for it.
	lateFactor = 3
	// lateUnmeasured is the same for a rank whose speed is not known yet.
	lateUnmeasured = 10
	// lateFloor is how long it may in any case: less than a new generation costs is no reason for one.
	lateFloor = time.Second
	// silentBeats is after how many missed heartbeats a rank that all others wait for is taken for hung.
	silentBeats = 2.5
	// firstRest is how long a worker that was late twice stays out; it doubles with each time, up to maxRest.
	firstRest = 2 * time.Second
	maxRest   = time.Minute
	// steadySteps is after how many steps in time it is forgotten that a worker was late.
	steadySteps = 50
	// firstProbe is after how many steps without work a rank is measured again; it doubles with each time, up to maxProbe.
	firstProbe = 32
	maxProbe   = 1024
)

// pace is what is known of a worker's speed.
type pace struct {
	speed float64 // rows a second; 0 until measured
	last  float64 // the latest measurement
	rough bool    // speed comes from a step that was abandoned: the next measurement replaces it
	idle  int     // steps since the last measurement
	probe int     // after how many the worker is measured again
}

// measure takes in a measurement: cost rows in took.
func (p *pace) measure(cost int64, took time.Duration) {
	v := max(minSpeed, float64(cost)/max(took.Seconds(), 1e-9))
	before := p.last
	p.last = v
	jumped := func(v float64) bool { return v > p.speed*speedJump }
	fell := func(v float64) bool { return v*speedJump < p.speed }
	switch {
	case p.speed == 0 || p.rough:
		p.speed = v
	case jumped(v) && jumped(before) || fell(v) && fell(before):
		p.speed = (v + before) / 2
	default:
		p.speed += speedWeight * (v - p.speed)
	}
	p.rough, p.idle = false, 0
}

// speeds are the ranks' speeds; those not measured yet get the mean of the others.
func (g *generation) speeds() []float64 {
	list := make([]float64, len(g.ranks))
	var known, sum float64
	for _, s := range g.ranks {
		if s.speed > 0 {
			known++
			sum += s.speed
		}
	}
	for r, s := range g.ranks {
		switch {
		case s.speed > 0:
			list[r] = s.speed
		case known > 0:
			list[r] = sum / known
		default:
			list[r] = 1
		}
	}
	return list
}

// onProgress notes what a rank has computed: it need not be computed again if the step is done again.
func (c *controller) onProgress(s *session, p *coordpb.Progress) {
	if c.gen == nil || uint64(c.gen.number) != p.Generation {
		return
	}
	rank, t := c.gen.rank(s), ids.Step(p.Step)
	if reports := c.gen.reports[t]; rank >= 0 && reports != nil {
		c.computed(t, reports, rank, int(p.Done))
	}
}

func (c *controller) computed(t ids.Step, reports *stepReports, rank, done int) {
	list := reports.dealt[rank]
	done = min(max(done, reports.done[rank]), len(list))
	if c.held[t] == nil {
		c.held[t] = map[int]string{}
	}
	for _, micro := range list[reports.done[rank]:done] {
		c.held[t][micro] = c.gen.ranks[rank].id
	}
	reports.done[rank] = done
	if done == len(list) && !reports.waits[rank] {
		reports.waits[rank] = true
		reports.waiting = time.Now()
	}
}

// heldBy are the contributions to step t that ranks have from before, by micro-batch.
func (c *controller) heldBy(t ids.Step) map[int]int {
	if len(c.held[t]) == 0 {
		return nil
	}
	ranks := make(map[string]int, len(c.gen.ranks))
	for r, s := range c.gen.ranks {
		ranks[s.id] = r
	}
	list := map[int]int{}
	for micro, id := range c.held[t] {
		if r, ok := ranks[id]; ok {
			list[micro] = r
		}
	}
	return list
}

// relieve ends a generation in which all wait for ranks that take far longer than they should. The others go on at once with what
// they have computed, and share what is missing; the late ones come back when they answer.
//
// A new generation without them is the one exact way there is: the ring is fixed, so a rank that does not take part stops the
// step whoever computes its share, and the sums are the same integers however they are dealt.
func (c *controller) relieve(now time.Time) {
	g := c.gen
	if g == nil || len(g.ranks) < 2 || len(g.reports) == 0 {
		return
	}
	first := g.planned
	for t := range g.reports {
		first = min(first, t)
	}
	reports := g.reports[first]
	speeds := g.speeds()
	silence := time.Duration(silentBeats * float64(c.cfg.beat()))
	late := map[int]error{}
	waiting := 0
	for r, s := range g.ranks {
		since := reports.sent
		for _, at := range []time.Time{g.free[r], c.hiccup, c.states.last(s.id)} {
			if at.After(since) {
				since = at
			}
		}
		took := now.Sub(since)
		unheard := now.Sub(time.Unix(0, s.seen.Load()))
		expected, factor := time.Duration(float64(time.Second)*float64(reports.cost[r])/speeds[r]), time.Duration(lateFactor)
		if s.speed == 0 {
			factor = lateUnmeasured
			if !anyMeasured(g) {
				expected = max(0, reports.waiting.Sub(reports.sent)) // what the others took, if they wait
			}
		}
		switch {
		case reports.got[r] != nil:
			waiting++
		case reports.waits[r] && unheard > silence && now.Sub(reports.waiting) > lateFloor:
			late[r] = fmt.Errorf("not heard for %v while the others wait", unheard.Round(time.Millisecond))
		case reports.waits[r]:
			waiting++
		case took > lateFloor+factor*expected:
			late[r] = fmt.Errorf("%d of %d micro-batches of step %d after %v, expected all within %v", reports.done[r], len(reports.dealt[r]), first,
				took.Round(time.Millisecond), expected.Round(time.Millisecond))
		case unheard > silence && took > lateFloor:
			late[r] = fmt.Errorf("not heard for %v while the others wait", unheard.Round(time.Millisecond))
		default:
			return // it computes, and may
		}
	}
	if len(late) == 0 || waiting == 0 || waiting < c.cfg.MinNodes {
		return
	}
	var why error
	for r, s := range g.ranks {
		if late[r] == nil {
			continue
		}
		if why == nil {
			why = fmt.Errorf("%s is late: %w", s, late[r])
		}
		c.standDown(s, reports, r, now, late[r])
	}
	c.endGeneration(why)
	c.regroupAtOnce()
}

func anyMeasured(g *generation) bool {
	for _, s := range g.ranks {
		if s.speed > 0 {
			return true
		}
	}
	return false
}

// standDown takes a late worker out until it answers.
func (c *controller) standDown(s *session, reports *stepReports, rank int, now time.Time, why error) {
	s.standing = true
	s.lates++
	s.steady = 0
	if s.lates > 1 {
		s.rest = now.Add(min(firstRest<<min(s.lates-2, 10), maxRest))
	}
	if list := reports.dealt[rank]; len(list) > 0 {
		// It has done at most one micro-batch more than it has said.
		var cost int
		for _, i := range list[:min(reports.done[rank]+1, len(list))] {
			cost += reports.costs[i]
		}
		if v := max(minSpeed, float64(cost)/now.Sub(reports.sent).Seconds()); s.speed == 0 || v < s.speed {
			s.speed, s.rough = v, true
		}
	}
	c.logger.Warn("worker stands down", "worker", s.id, "host", s.host, "reason", why, "times", s.lates)
	s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_StandDown{StandDown: &coordpb.StandDown{Generation: uint64(c.gen.number)}}})
}

// onStandby takes back a worker that was late and has answered.
func (c *controller) onStandby(s *session, m *coordpb.Standby) {
	if !s.standing {
		return
	}
	s.standing, s.probe = false, 1
	if m.GradientCost > 0 && m.GradientNs > 0 {
		s.rough = true
		s.measure(m.GradientCost, time.Duration(m.GradientNs))
		s.rough = true
	}
	c.logger.Info("worker is back", "worker", s.id, "host", s.host, "rests", max(0, time.Until(s.rest)).Round(time.Millisecond))
}

// rejoin lets workers in that stood down, are back and have rested.
func (c *controller) rejoin() {
	if c.gen == nil || c.gen.regroup {
		return
	}
	for _, s := range c.able() {
		if c.gen.rank(s) < 0 {
			c.gen.regroup = true
		}
	}
}

// able are the ready workers that can take part now. Where they are too few, those that rest can too.
func (c *controller) able() (list []*session) {
	var resting int
	now := time.Now()
	ready := c.ready()
	for _, s := range ready {
		switch {
		case s.standing:
		case s.rest.After(now):
			resting++
		default:
			list = append(list, s)
		}
	}
	if len(list) < c.cfg.MinNodes && resting > 0 {
		list = nil
		for _, s := range ready {
			if !s.standing {
				list = append(list, s)
			}
		}
	}
	if rest := c.dispute.without(list); len(rest) >= c.cfg.MinNodes {
		return rest
	}
	return list
}

// settled counts the steps that each rank has done in time, and those that it had no work in.
func (c *controller) settled(reports *stepReports) {
	for r, s := range c.gen.ranks {
		if s.steady++; s.steady >= steadySteps {
			s.lates = 0
		}
		if reports.got[r].GradientCost == 0 {
			s.idle++
		} else if len(reports.shard[r]) > 0 {
			s.probe = firstProbe
		} else {
			s.probe = min(max(2*s.probe, firstProbe), maxProbe)
		}
	}
}

// probes are the ranks to measure again.
func (c *controller) probes() map[int]bool {
	list := map[int]bool{}
	for r, s := range c.gen.ranks {
		if after := max(s.probe, 1); s.idle >= after {
			list[r] = true
		}
	}
	return list
}
