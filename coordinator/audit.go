package coordinator

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// isAudited reports whether a micro-batch of a step is computed twice. A share of all are; which
// ones depends on seed, step and index alone.
func isAudited(seed uint64, step ids.Step, micro int, share float64) bool {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	binary.LittleEndian.PutUint64(b[8:], uint64(step))
	binary.LittleEndian.PutUint64(b[16:], uint64(micro))
	h := sha256.Sum256(b[:])
	return float64(binary.LittleEndian.Uint64(h[:])>>11)/(1<<53) < share
}

// auditedMicroBatches are the micro-batches of a step of n that a second rank computes.
func (c *controller) auditedMicroBatches(t ids.Step, n int) map[int]bool {
	if c.cfg.Audit <= 0 || len(c.gen.ranks) < 2 {
		return nil
	}
	list := map[int]bool{}
	for i := range n {
		if isAudited(c.job.Spec.Seed, t, i, c.cfg.Audit) && !c.dispute.isAbout(t, i) {
			list[i] = true
		}
	}
	return list
}

// claim is what a worker claims that a micro-batch adds to a step: a contribution with this digest,
// or that it cannot be computed.
type claim struct {
	digest ids.Digest
	fails  bool
}

func (c claim) String() string {
	if c.fails {
		return "that it cannot be computed"
	}
	return "digest " + c.digest.Short()
}

// dispute is about one micro-batch for which workers claim different things, or one claims that it
// cannot be computed. The step is done again, with the micro-batch in the hands of a worker that
// has not claimed anything yet, until two agree: whoever claims otherwise computes wrongly. It is
// the leader's alone; the next leader discovers it again.
type dispute struct {
	step   ids.Step
	micro  int
	text   string            // how it fails, if anybody claims so
	who    []string          // ids of the workers that claim, in order
	claims map[string]claim  // by worker id
	names  map[string]string // of the workers, for people
}

func (d *dispute) add(s *session, c claim) {
	if _, there := d.claims[s.id]; !there {
		d.who = append(d.who, s.id)
	}
	d.claims[s.id], d.names[s.id] = c, s.String()
}

// verdict is the claim that at least two make, and more than make any other.
func (d *dispute) verdict() (right claim, decided bool) {
	votes := map[claim]int{}
	for _, c := range d.claims {
		votes[c]++
	}
	for c, n := range votes {
		if n < 2 {
			continue
		}
		decided = true
		for o, m := range votes {
			if o != c && m >= n {
				decided = false
			}
		}
		if decided {
			return c, true
		}
	}
	return claim{}, false
}

func (d *dispute) String() string {
	var list []string
	for _, id := range d.who {
		list = append(list, fmt.Sprintf("%s says %s", d.names[id], d.claims[id]))
	}
	return fmt.Sprintf("micro-batch %d of step %d: %s", d.micro, d.step, strings.Join(list, ", "))
}

// isAbout reports whether the dispute is about a micro-batch. d may be nil.
func (d *dispute) isAbout(step ids.Step, micro int) bool {
	return d != nil && d.step == step && d.micro == micro
}

// without leaves out workers that claim that a disputed micro-batch cannot be computed: they would
// break every ring they are in. d may be nil.
func (d *dispute) without(list []*session) []*session {
	if d == nil {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(s *session) bool { return d.claims[s.id].fails })
}

// openDispute returns the dispute about a micro-batch, a new one if none is open. While another is
// open it returns nil: one is settled at a time, and the rest is found again.
func (c *controller) openDispute(step ids.Step, micro int) *dispute {
	if c.dispute != nil && c.dispute.step <= c.committedStep() {
		c.dispute = nil // of a step that was settled without it
	}
	switch {
	case c.dispute.isAbout(step, micro):
	case c.dispute != nil:
		return nil
	default:
		c.dispute = &dispute{step: step, micro: micro, claims: map[string]claim{}, names: map[string]string{}}
	}
	return c.dispute
}

// contributionsAgree checks that all contributions to a complete step that more than one worker has
// computed agree, before it is proposed. If not, or if the step settles a dispute against one of
// its ranks, the step is abandoned.
func (c *controller) contributionsAgree(t ids.Step, reports *stepReports) bool {
	digests, ok := c.reportedDigests(t, reports)
	if !ok {
		return false
	}
	var micros []int
	for micro := range digests {
		micros = append(micros, micro)
	}
	slices.Sort(micros)
	for _, micro := range micros {
		differ := false
		for _, d := range digests[micro] {
			differ = differ || d.digest != digests[micro][0].digest
		}
		if !differ && !c.dispute.isAbout(t, micro) {
			continue
		}
		d := c.openDispute(t, micro)
		if d == nil {
			c.endGeneration(fmt.Errorf("contributions of micro-batch %d to step %d differ, "+
				"and so did others that are not settled yet", micro, t))
			return false
		}
		for _, r := range digests[micro] {
			d.add(c.gen.ranks[r.rank], claim{digest: r.digest})
		}
		if !c.settleDispute() {
			return false
		}
	}
	return true
}

// rankDigest is the digest of a contribution that a rank reports.
type rankDigest struct {
	rank   int
	digest ids.Digest
}

// reportedDigests are the digests of contributions to a step, by micro-batch, in the order of the
// ranks. A rank that does not report the ones that it was asked for is expelled.
func (c *controller) reportedDigests(t ids.Step, reports *stepReports) (list map[int][]rankDigest, ok bool) {
	list = map[int][]rankDigest{}
	for rank, r := range reports.reports {
		s, want := c.gen.ranks[rank], reports.digests[rank]
		if len(r.Contributions) != len(want) {
			c.expel(s, "%s reports the digests of %d contributions to step %d, want %d",
				s, len(r.Contributions), t, len(want))
			return nil, false
		}
		for _, p := range r.Contributions {
			micro := int(p.MicroBatch)
			d, err := ids.DigestOf(p.Digest)
			again := slices.ContainsFunc(list[micro], func(o rankDigest) bool { return o.rank == rank })
			if again || err != nil || !want[micro] {
				c.expel(s, "%s reports a contribution of micro-batch %d to step %d that it was not asked for, "+
					"or a bad digest of it", s, micro, t)
				return nil, false
			}
			list[micro] = append(list[micro], rankDigest{rank, d})
		}
	}
	return list, true
}

// claimFailure takes a worker's word that a micro-batch cannot be computed. Another worker is asked
// before the job is given up: a broken machine makes numbers that are none, too.
func (c *controller) claimFailure(s *session, f *coordpb.Failure) {
	step, micro := ids.Step(f.Step), int(f.MicroBatch)-1
	status := c.node.Status()
	if c.job == nil || f.Generation <= uint64(status.FirstGeneration) {
		return // of a job that is over
	}
	if step <= status.Step || step > ids.Step(c.job.Spec.Steps) || micro >= len(c.job.Plan(step).Micro) {
		return // others have computed it
	}
	// What is true of a micro-batch of a step is true in every generation.
	d := c.openDispute(step, micro)
	if d == nil {
		if c.gen != nil && c.gen.rank(s) >= 0 {
			c.endGeneration(fmt.Errorf("%s at step %d: %s", s, step, f.Error))
		}
		return
	}
	d.add(s, claim{fails: true})
	if d.text == "" {
		d.text = f.Error
	}
	c.settleDispute()
}

// settleDispute closes the dispute if the claims allow it, and otherwise has the step done again.
// It reports whether the present generation may go on, and with it the step.
func (c *controller) settleDispute() (goOn bool) {
	d := c.dispute
	right, decided := d.verdict()
	if !decided {
		notAsked := func(s *session) bool { _, asked := d.claims[s.id]; return !asked }
		if slices.ContainsFunc(c.available(), notAsked) {
			if c.gen != nil {
				c.endGeneration(fmt.Errorf("%s; another worker computes it", d))
				c.regroupNow()
			}
			return false
		}
		if c.dispute = nil; len(d.claims) > 1 || !d.claims[d.who[0]].fails {
			c.fail("%s; nobody is left to decide who is right", d)
			return false
		}
		right = d.claims[d.who[0]] // there is nobody else to ask
	}
	c.dispute = nil
	if right.fails {
		c.failJob(d.step, d.text)
		return false
	}
	goOn = true
	for _, id := range d.who {
		if d.claims[id] == right {
			continue
		}
		s := c.roster.sessions[id]
		if s == nil {
			c.logger.Error("worker that is gone has computed wrongly", "worker", d.names[id], "reason", d)
			continue
		}
		goOn = goOn && (c.gen == nil || c.gen.rank(s) < 0)
		c.expel(s, "%s: this machine computes differently from the others", d)
	}
	return goOn
}
