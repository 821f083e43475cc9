package coordinator

import (
	"fmt"
	"time"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// How fast workers are, and what becomes of one that keeps the others waiting: a straggler.

const (
	// speedWeight is the weight of the newest measurement in a worker's moving average of its
	// speed.
	speedWeight = 0.3
	// speedJump is the factor by which two measurements in a row must differ from the average, to
	// the same side, for the average to jump.
	speedJump = 1.25
	// minSpeed stands in for the speed of a worker whose clock saw no time pass.
	minSpeed = 1e-3
)

// pace is what is known of a worker's speed.
type pace struct {
	speed        float64 // rows a second; 0 until measured
	last         float64 // the latest measurement
	provisional  bool    // speed comes from a step that was abandoned: the next measurement replaces it
	unmeasured   int     // steps since the last measurement
	measureAfter int     // how many such steps call for the next one
}

// measure takes in a measurement: the cost in rows, and how long it took.
func (p *pace) measure(cost int64, took time.Duration) {
	v := max(minSpeed, float64(cost)/max(took.Seconds(), 1e-9))
	before := p.last
	p.last = v
	rose := func(v float64) bool { return v > p.speed*speedJump }
	fell := func(v float64) bool { return v*speedJump < p.speed }
	switch {
	case p.speed == 0 || p.provisional:
		p.speed = v
	case rose(v) && rose(before) || fell(v) && fell(before):
		p.speed = (v + before) / 2
	default:
		p.speed += speedWeight * (v - p.speed)
	}
	p.provisional, p.unmeasured = false, 0
}

// attendance is how reliably a worker has taken part.
type attendance struct {
	standsDown bool      // taken out of its generation, and has not said that it has left it
	restsUntil time.Time // it stays out
	delays     int       // how often it was a straggler, until it is forgotten
	steady     int       // steps in time since then
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

// anyMeasured reports whether the speed of any rank is known.
func (g *generation) anyMeasured() bool {
	for _, s := range g.ranks {
		if s.speed > 0 {
			return true
		}
	}
	return false
}

// oldestStep is the first step under way; nil if none is.
func (g *generation) oldestStep() (t ids.Step, reports *stepReports) {
	for u, r := range g.steps {
		if reports == nil || u < t {
			t, reports = u, r
		}
	}
	return t, reports
}

// relieveStragglers ends a generation in which all wait for ranks that take far longer than they
// should. The others go on at once with what they have computed, and share what is missing; the
// stragglers come back when they answer.
//
// A new generation without them is the one exact way there is: the ring is fixed, so a rank that
// does not take part stops the step whoever computes its share, and the sums are the same integers
// however they are dealt.
func (c *controller) relieveStragglers(now time.Time) {
	g := c.gen
	if g == nil || len(g.ranks) < 2 || len(g.steps) == 0 {
		return
	}
	step, reports := g.oldestStep()
	late, waiting, busy := c.lateRanks(step, reports, now)
	if busy || len(late) == 0 || waiting == 0 || waiting < c.cfg.MinNodes {
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
	c.regroupNow()
}

// lateRanks are the ranks that keep the others waiting in a step, and why each is late. waiting
// counts the ranks that have done their part. busy reports that a rank still computes, and may.
func (c *controller) lateRanks(step ids.Step, reports *stepReports, now time.Time) (
	late map[int]error, waiting int, busy bool) {
	speeds := c.gen.speeds()
	silence := time.Duration(silentBeats * float64(c.cfg.heartbeatInterval()))
	late = map[int]error{}
	for r, s := range c.gen.ranks {
		// A rank's time starts when it had the plan, was free, and was neither starved of the
		// leader's attention nor busy with moving a large state.
		since := reports.sent
		for _, at := range []time.Time{c.gen.free[r], c.stalled, c.blobs.LastTransfer(s.id)} {
			if at.After(since) {
				since = at
			}
		}
		took := now.Sub(since)
		unheard := now.Sub(s.lastHeard())
		allowed, expected := c.allowance(s, reports, r, speeds[r])
		hung := fmt.Errorf("not heard for %v while the others wait", unheard.Round(time.Millisecond))
		switch {
		case reports.reports[r] != nil:
			waiting++
		case reports.computed[r] && unheard > silence && now.Sub(reports.waitingSince) > stragglerGrace:
			late[r] = hung
		case reports.computed[r]:
			waiting++
		case took > allowed:
			late[r] = fmt.Errorf("%d of %d micro-batches of step %d after %v, want all within %v",
				reports.done[r], len(reports.dealt[r]), step,
				took.Round(time.Millisecond), expected.Round(time.Millisecond))
		case unheard > silence && took > stragglerGrace:
			late[r] = hung
		default:
			return nil, 0, true
		}
	}
	return late, waiting, false
}

// allowance is how long a rank may compute its part of a step, and how long that should take.
func (c *controller) allowance(s *session, reports *stepReports, rank int, speed float64) (
	allowed, expected time.Duration) {
	expected = time.Duration(float64(time.Second) * float64(reports.cost[rank]) / speed)
	factor := time.Duration(stragglerFactor)
	if s.speed == 0 {
		factor = unmeasuredFactor
		if !c.gen.anyMeasured() {
			expected = max(0, reports.waitingSince.Sub(reports.sent)) // what the others took, if they wait
		}
	}
	return stragglerGrace + factor*expected, expected
}

// standDown takes a straggler out until it answers.
func (c *controller) standDown(s *session, reports *stepReports, rank int, now time.Time, why error) {
	s.standsDown = true
	s.delays++
	s.steady = 0
	if s.delays > 1 {
		s.restsUntil = now.Add(min(firstRest<<min(s.delays-2, 10), maxRest))
	}
	if list := reports.dealt[rank]; len(list) > 0 {
		// It reports a micro-batch when it has computed it and perhaps a few more with it. One more
		// than it has reported is a guess that its next measurement replaces.
		var cost int
		for _, i := range list[:min(reports.done[rank]+1, len(list))] {
			cost += reports.costs[i]
		}
		if v := max(minSpeed, float64(cost)/now.Sub(reports.sent).Seconds()); s.speed == 0 || v < s.speed {
			s.speed, s.provisional = v, true
		}
	}
	c.logger.Warn("worker stands down", "worker", s.id, "host", s.host, "reason", why, "times", s.delays)
	s.send(standDownMessage(c.gen.number))
}

// onStandby takes back a straggler that has answered.
func (c *controller) onStandby(s *session, m *coordpb.Standby) {
	if !s.standsDown {
		return
	}
	s.standsDown, s.measureAfter = false, 1
	if m.GradientCost > 0 && m.GradientNs > 0 {
		s.provisional = true
		s.measure(m.GradientCost, time.Duration(m.GradientNs))
		s.provisional = true
	}
	rests := max(0, time.Until(s.restsUntil)).Round(time.Millisecond)
	c.logger.Info("worker is back", "worker", s.id, "host", s.host, "rests", rests)
}

// noteComplete counts the steps that each rank has done in time, and those that it had no work in.
func (c *controller) noteComplete(reports *stepReports) {
	for r, s := range c.gen.ranks {
		if s.steady++; s.steady >= steadySteps {
			s.delays = 0
		}
		if reports.reports[r].GradientCost == 0 {
			s.unmeasured++
		} else if len(reports.shard[r]) > 0 {
			s.measureAfter = firstMeasure
		} else {
			s.measureAfter = min(max(2*s.measureAfter, firstMeasure), maxMeasure)
		}
	}
}

// ranksToMeasure are the ranks whose speed is to be measured again.
func (c *controller) ranksToMeasure() map[int]bool {
	list := map[int]bool{}
	for r, s := range c.gen.ranks {
		if s.unmeasured >= max(s.measureAfter, 1) {
			list[r] = true
		}
	}
	return list
}

// onProgress notes what a rank has computed: it need not be computed again if the step is done
// again.
func (c *controller) onProgress(s *session, p *coordpb.Progress) {
	if !c.isCurrent(p.Generation) {
		return
	}
	rank, t := c.gen.rank(s), ids.Step(p.Step)
	if reports := c.gen.steps[t]; rank >= 0 && reports != nil {
		c.noteComputed(t, reports, rank, int(p.Done))
	}
}

// noteComputed notes that a rank has computed the first done of its micro-batches of a step.
func (c *controller) noteComputed(t ids.Step, reports *stepReports, rank, done int) {
	list := reports.dealt[rank]
	done = min(max(done, reports.done[rank]), len(list))
	if c.holders[t] == nil {
		c.holders[t] = map[int]string{}
	}
	for _, micro := range list[reports.done[rank]:done] {
		c.holders[t][micro] = c.gen.ranks[rank].id
	}
	reports.done[rank] = done
	if done == len(list) && !reports.computed[rank] {
		reports.computed[rank] = true
		reports.waitingSince = time.Now()
	}
}

// heldContributions are the contributions to step t that ranks have from abandoned attempts: by
// micro-batch, the rank.
func (c *controller) heldContributions(t ids.Step) map[int]int {
	if len(c.holders[t]) == 0 {
		return nil
	}
	ranks := make(map[string]int, len(c.gen.ranks))
	for r, s := range c.gen.ranks {
		ranks[s.id] = r
	}
	list := map[int]int{}
	for micro, id := range c.holders[t] {
		if r, ok := ranks[id]; ok {
			list[micro] = r
		}
	}
	return list
}
