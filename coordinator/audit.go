package coordinator

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
)

// Audited says whether a micro-batch of a step is computed twice. A share of all are; which ones depends on seed, step and index alone.
func audited(seed uint64, step ids.Step, micro int, share float64) bool {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	binary.LittleEndian.PutUint64(b[8:], uint64(step))
	binary.LittleEndian.PutUint64(b[16:], uint64(micro))
	h := sha256.Sum256(b[:])
	return float64(binary.LittleEndian.Uint64(h[:])>>11)/(1<<53) < share
}

// claim is what a worker says that a micro-batch adds to a step: a contribution with this digest, or that it cannot be computed.
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

// dispute is about one micro-batch for which workers claim different things, or one claims that it cannot be computed. The
// step is done again, with the micro-batch in the hands of a worker that has not claimed anything yet, until two agree: whoever
// claims otherwise computes wrongly. It is the leader's alone; the next leader meets it anew.
type dispute struct {
	step   ids.Step
	micro  int
	text   string // how it fails, if anybody says so
	who    []string
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

func (d *dispute) about(step ids.Step, micro int) bool {
	return d != nil && d.step == step && d.micro == micro
}

// disputed is the open dispute about a micro-batch, a new one if none is open. While another is open it is nil: one is
// settled at a time, and the rest is found again.
func (c *controller) disputed(step ids.Step, micro int) *dispute {
	if c.dispute != nil && c.dispute.step <= c.committed() {
		c.dispute = nil // of a step that was settled without it
	}
	switch {
	case c.dispute.about(step, micro):
	case c.dispute != nil:
		return nil
	default:
		c.dispute = &dispute{step: step, micro: micro, claims: map[string]claim{}, names: map[string]string{}}
	}
	return c.dispute
}

// toAudit are the micro-batches of a step that a second rank computes.
func (c *controller) toAudit(t ids.Step, n int) map[int]bool {
	if c.cfg.Audit <= 0 || len(c.gen.ranks) < 2 {
		return nil
	}
	list := map[int]bool{}
	for i := range n {
		if audited(c.job.Spec.Seed, t, i, c.cfg.Audit) && !c.dispute.about(t, i) {
			list[i] = true
		}
	}
	return list
}

// sound checks that all contributions to a complete step that more than one worker has computed agree, before it is proposed. If
// not, or if the step settles a dispute against one of its ranks, the step is abandoned.
func (c *controller) sound(t ids.Step, reports *stepReports) bool {
	heard := map[int][]int{} // ranks by micro-batch
	digests := map[[2]int]ids.Digest{}
	for rank, r := range reports.got {
		want := reports.digests[rank]
		if len(r.Contributions) != len(want) {
			c.expel(c.gen.ranks[rank], "%s reports the digests of %d contributions to step %d, want %d", c.gen.ranks[rank], len(r.Contributions), t, len(want))
			return false
		}
		for _, p := range r.Contributions {
			micro := int(p.MicroBatch)
			d, err := ids.DigestOf(p.Digest)
			if _, again := digests[[2]int{micro, rank}]; again || err != nil || !want[micro] {
				c.expel(c.gen.ranks[rank], "%s reports a contribution of micro-batch %d to step %d that it was not asked for, or a bad digest of it", c.gen.ranks[rank], micro, t)
				return false
			}
			heard[micro] = append(heard[micro], rank)
			digests[[2]int{micro, rank}] = d
		}
	}
	var micros []int
	for micro := range heard {
		micros = append(micros, micro)
	}
	slices.Sort(micros)
	for _, micro := range micros {
		ranks := heard[micro]
		differ := slices.ContainsFunc(ranks, func(r int) bool { return digests[[2]int{micro, r}] != digests[[2]int{micro, ranks[0]}] })
		if !differ && !c.dispute.about(t, micro) {
			continue
		}
		d := c.disputed(t, micro)
		if d == nil {
			c.endGeneration(fmt.Errorf("contributions of micro-batch %d to step %d differ, and so did others that are not settled yet", micro, t))
			return false
		}
		for _, r := range ranks {
			d.add(c.gen.ranks[r], claim{digest: digests[[2]int{micro, r}]})
		}
		if !c.settle() {
			return false
		}
	}
	return true
}

// claimFailure takes a worker's word that a micro-batch cannot be computed. Another worker is asked before the job is given
// up: a broken machine makes numbers that are none, too.
func (c *controller) claimFailure(s *session, f *coordpb.Failure) {
	step, micro := ids.Step(f.Step), int(f.MicroBatch)-1
	var first ids.Generation
	c.node.view(func(m *fsm.Machine) { first = m.FirstGeneration() })
	if c.job == nil || f.Generation <= uint64(first) {
		return // of a job that is over
	}
	if step <= c.committed() || step > ids.Step(c.job.Spec.Steps) || micro >= len(c.job.Plan(step).Micro) {
		return // others have computed it
	}
	// What is true of a micro-batch of a step is true in every generation.
	d := c.disputed(step, micro)
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
	c.settle()
}

// settle closes the dispute if the claims allow it, and otherwise has the step done again. It says whether the present
// generation may go on, and with it the step.
func (c *controller) settle() (goOn bool) {
	d := c.dispute
	right, decided := d.verdict()
	if !decided {
		if slices.ContainsFunc(c.able(), func(s *session) bool { _, asked := d.claims[s.id]; return !asked }) {
			if c.gen != nil {
				c.endGeneration(fmt.Errorf("%s; another worker computes it", d))
				c.regroupAtOnce()
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
		s := c.sessions[id]
		if s == nil {
			c.logger.Error("worker that is gone has computed wrongly", "worker", d.names[id], "reason", d)
			continue
		}
		goOn = goOn && (c.gen == nil || c.gen.rank(s) < 0)
		c.expel(s, "%s: this machine computes differently from the others", d)
	}
	return goOn
}

// without leaves out workers that say that a disputed micro-batch cannot be computed: they would break every ring they are in.
func (d *dispute) without(list []*session) []*session {
	if d == nil {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(s *session) bool { return d.claims[s.id].fails })
}
