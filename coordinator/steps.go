package coordinator

import (
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/dptune/dpt/coordinator/blobsync"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/deal"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
)

// stepReports is one step under way: what each rank has to do, what it has done and its report.
type stepReports struct {
	sent    time.Time
	costs   []int          // by micro-batch
	shard   [][]int        // by rank, the micro-batches whose contribution it sums
	dealt   [][]int        // by rank, what it computes, in its order: shard and audits
	cost    []int          // by rank, of what it does not hold already
	digests []map[int]bool // by rank, the micro-batches of whose contribution it reports the digest

	done         []int     // by rank, how many of dealt it has computed
	computed     []bool    // by rank, whether it has computed all
	waitingSince time.Time // when the last one began to wait

	reports     []*coordpb.Report // by rank; nil until it has reported
	applyErrors []string          // by rank, why it cannot apply the step; "" if it can
	count       int               // of the reports
}

func newStepReports(p *job.StepPlan, ranks int) *stepReports {
	return &stepReports{
		sent:        time.Now(),
		costs:       p.Costs,
		dealt:       make([][]int, ranks),
		cost:        make([]int, ranks),
		digests:     make([]map[int]bool, ranks),
		done:        make([]int, ranks),
		computed:    make([]bool, ranks),
		reports:     make([]*coordpb.Report, ranks),
		applyErrors: make([]string, ranks),
	}
}

// plan sends the plans of the steps that may be under way: those up to the next commit, and
// CommitWindow more. A worker that finishes a step finds the next plan waiting, so the commit hides
// behind the next gradient. No plan goes past a step whose evaluation is due, and none past a
// commit if a worker waits to join.
func (c *controller) plan(committed, total ids.Step) {
	next := committed + 1
	for !c.isCommitStep(next) {
		next++
	}
	blobs := c.statesAreBlobs()
	for t := c.gen.planned + 1; t <= total && t <= next+ids.Step(c.cfg.CommitWindow); t++ {
		if c.gen.regroup && (t-1 == committed || c.isCommitStep(t-1)) {
			return
		}
		if t-1 > committed && c.job.EvalDue(t-1) {
			return
		}
		if blobs && t > next && c.isCommitStep(t) {
			return // one large state on its way at a time
		}
		c.sendPlan(t)
		if c.gen == nil {
			return
		}
		c.gen.planned = t
	}
}

// isCommitStep reports whether step t commits itself and those before it.
func (c *controller) isCommitStep(t ids.Step) bool {
	return int64(t)%c.commitInterval() == 0 || int64(t) >= c.job.Spec.Steps || c.job.EvalDue(t)
}

// attachingRank is the rank that attaches the state to its report of step t, in turn; -1 if the
// step does not commit.
func (c *controller) attachingRank(t ids.Step) int {
	if !c.isCommitStep(t) {
		return -1
	}
	return int(int64(t)/c.commitInterval()) % len(c.gen.ranks)
}

// commitInterval is how many steps lie between commits.
func (c *controller) commitInterval() int64 {
	return c.job.Spec.CommitInterval(c.cfg.CommitEvery, c.cfg.Storage.inline())
}

// sendPlan deals a step's micro-batches to the ranks and sends each its plan.
func (c *controller) sendPlan(t ids.Step) {
	p := c.job.Plan(t)
	work, disputed := c.workOf(t, p)
	shards, audits, err := work.Deal()
	if err != nil && disputed >= 0 {
		c.settleDispute() // those who could decide have left
		return
	}
	if err != nil {
		c.fail("step %d: %w", t, err)
		return
	}
	audited := map[int]bool{}
	for _, list := range audits {
		for _, i := range list {
			audited[i] = true
		}
	}

	n := len(c.gen.ranks)
	reports := newStepReports(p, n)
	reports.shard = shards
	attach := c.attachingRank(t)
	for r, s := range c.gen.ranks {
		m := &coordpb.Plan{
			Generation:   uint64(c.gen.number),
			Step:         int64(t),
			MicroBatches: int32(len(p.Micro)),
			Committed:    int64(c.committedStep()),
		}
		if r == attach && c.statesAreBlobs() {
			m.StoreState = true
			upload := blobsync.Upload{Worker: s.id, Generation: c.gen.number, Step: t}
			c.blobs.ExpectUpload(upload, int64(c.job.Spec.StateSize()))
		} else {
			m.AttachState = r == attach
		}
		reports.digests[r] = map[int]bool{}
		for _, i := range shards[r] {
			m.Shard = append(m.Shard, p.Micro[i])
			if audited[i] || i == disputed {
				m.Compare = append(m.Compare, int32(i))
				reports.digests[r][i] = true
			}
			if h, ok := work.Held[i]; !ok || h != r {
				reports.cost[r] += p.Costs[i]
			}
		}
		for _, i := range audits[r] {
			m.Audit = append(m.Audit, p.Micro[i])
			reports.digests[r][i] = true
			reports.cost[r] += p.Costs[i]
		}
		reports.dealt[r] = slices.Concat(shards[r], audits[r])
		s.send(planMessage(m))
		c.cfg.markHalf(HalfPlan, r, n)
	}
	c.gen.steps[t] = reports
}

// workOf is what there is to deal of a step, and the micro-batch of it that is disputed; -1 if none
// is.
func (c *controller) workOf(t ids.Step, p *job.StepPlan) (work deal.Work, disputed int) {
	work = deal.Work{
		Costs:    p.Costs,
		Speeds:   c.gen.speeds(),
		Held:     c.heldContributions(t),
		Audited:  c.auditedMicroBatches(t, len(p.Micro)),
		Measured: c.ranksToMeasure(),
	}
	if c.dispute == nil || c.dispute.step != t {
		return work, -1
	}
	disputed = c.dispute.micro
	if work.Audited == nil {
		work.Audited = map[int]bool{}
	}
	work.Audited[disputed] = true // by two at once, if there are two to ask
	work.Barred = func(micro, r int) bool {
		_, asked := c.dispute.claims[c.gen.ranks[r].id]
		return micro == disputed && asked
	}
	return work, disputed
}

// onReport files a report and commits every step that is now complete.
func (c *controller) onReport(s *session, r *coordpb.Report) {
	if c.gen == nil || uint64(c.gen.number) != r.Generation && !plantedStaleReport {
		return // of an ended generation
	}
	rank := c.gen.rank(s)
	reports := c.gen.steps[ids.Step(r.Step)]
	if rank < 0 || reports == nil || reports.reports[rank] != nil {
		s.close(codes.InvalidArgument, "%s reports step %d of generation %d, which it was not asked for",
			s, r.Step, r.Generation)
		return
	}
	if err := checkReport(r); err != nil {
		s.close(codes.InvalidArgument, "%s reports step %d with %v", s, r.Step, err)
		return
	}
	if r.GradientCost > 0 {
		s.measure(r.GradientCost, time.Duration(r.GradientNs))
	}
	c.fileReport(ids.Step(r.Step), reports, rank, r)
}

// checkReport refuses what no worker that computes can report, whatever the data: the log would not
// take it, nor a line of metrics hold it.
func checkReport(r *coordpb.Report) error {
	if r.Tokens < 1 {
		return fmt.Errorf("%d tokens, want at least 1", r.Tokens)
	}
	for _, f := range []struct {
		name  string
		value float64
	}{
		{"loss sum", r.LossSum},
		{"learning rate", r.LearningRate},
		{"gradient norm", r.GradNorm},
	} {
		if math.IsNaN(f.value) || math.IsInf(f.value, 0) {
			return fmt.Errorf("a %s of %v, want a finite number", f.name, f.value)
		}
	}
	return nil
}

// onFailure takes a worker's word that it cannot do its part.
func (c *controller) onFailure(s *session, f *coordpb.Failure) {
	if f.Fatal && f.MicroBatch > 0 {
		c.claimFailure(s, f)
		return
	}
	if !c.isCurrent(f.Generation) || c.gen.rank(s) < 0 {
		return
	}
	rank := c.gen.rank(s)
	if reports := c.gen.steps[ids.Step(f.Step)]; f.Fatal && reports != nil && reports.reports[rank] == nil {
		// It could not apply the step. If the others cannot either, the job ends; else it is this
		// machine.
		reports.applyErrors[rank] = f.Error
		c.fileReport(ids.Step(f.Step), reports, rank, &coordpb.Report{})
		return
	}
	c.endGeneration(fmt.Errorf("%s at step %d: %s", s, f.Step, f.Error))
}

// fileReport puts a rank's report with the others; with the last one the step is complete.
func (c *controller) fileReport(t ids.Step, reports *stepReports, rank int, r *coordpb.Report) {
	c.noteComputed(t, reports, rank, len(reports.dealt[rank]))
	c.gen.free[rank] = time.Now()
	reports.reports[rank] = r
	if reports.count++; reports.count == len(c.gen.ranks) {
		c.completeStep(t, reports)
	}
}

// completeStep proposes a step that every rank has reported, with the steps before it that wait for
// it, or puts it with them. Ranks report in order and a step needs all of them, so steps become
// complete in order too.
func (c *controller) completeStep(t ids.Step, reports *stepReports) {
	if !c.statesAgree(t, reports) || !c.contributionsAgree(t, reports) {
		return
	}
	c.noteComplete(reports)
	attach := c.attachingRank(t)
	first := reports.reports[max(0, attach)]
	if attach >= 0 && !c.checkState(t, c.gen.ranks[attach], first) {
		return
	}
	now := time.Now()
	p := c.job.Plan(t)
	e := &fsmpb.StepCommitted{
		Generation:   uint64(c.gen.number),
		Step:         int64(t),
		BatchDigest:  p.Digest[:],
		StateDigest:  first.StateDigest,
		LossSum:      first.LossSum,
		Tokens:       first.Tokens,
		LearningRate: first.LearningRate,
		GradNorm:     first.GradNorm,
		Seconds:      now.Sub(c.lastStep).Seconds(),
		Workers:      int32(len(c.gen.ranks)),
	}
	c.lastStep = now
	delete(c.gen.steps, t)
	if attach < 0 {
		c.gen.pending = append(c.gen.pending, e)
		return
	}
	e.Earlier, c.gen.pending = c.gen.pending, nil
	if c.statesAreBlobs() {
		c.offerState(e)
		return
	}
	e.State = first.State
	c.propose(&applied{entry: stepCommitted(e)})
}

// checkState checks that the state that a worker was to attach or to store is here, and is the one
// that it reports; else it expels the worker.
func (c *controller) checkState(t ids.Step, s *session, r *coordpb.Report) bool {
	if c.statesAreBlobs() {
		if c.blobs.Has(c.reportedBlob(r)) {
			return true
		}
		c.expel(s, "%s was to store the state after step %d, of which it reports the digest %x, and has not",
			s, t, r.StateDigest)
		return false
	}
	got := ids.Sum(r.State)
	if string(got[:]) == string(r.StateDigest) {
		return true
	}
	c.expel(s, "%s attached to step %d a state with digest %s, its report says %x", s, t, got.Short(), r.StateDigest)
	return false
}

// statesAgree checks that every rank holds the same state after step t. A minority that differs
// computes wrongly: it is expelled and named. Without a majority nobody can say who is right, and
// the job stops rather than guess.
func (c *controller) statesAgree(t ids.Step, reports *stepReports) bool {
	votes := map[string]int{}
	for rank := range reports.reports {
		votes[reports.vote(rank)]++
	}
	if _, fails := votes[cannotApply]; len(votes) == 1 && !fails || plantedNoAgreement {
		return true
	}
	for digest, n := range votes {
		if 2*n <= len(reports.reports) {
			continue // at most one has a majority
		}
		if digest == cannotApply {
			first := slices.IndexFunc(reports.applyErrors, func(text string) bool { return text != "" })
			c.failJob(t, reports.applyErrors[first])
			return false
		}
		c.expelMinority(t, reports, digest, n)
		return false
	}
	c.fail("after step %d the workers hold different states and no majority agrees: %s", t, reports.describe(c.gen))
	return false
}

// expelMinority expels the ranks that do not hold the state that n of them hold.
func (c *controller) expelMinority(t ids.Step, reports *stepReports, digest string, n int) {
	gen := c.gen
	for rank, r := range slices.Backward(reports.reports) {
		s := gen.ranks[rank]
		switch reports.vote(rank) {
		case digest:
		case cannotApply:
			c.expel(s, "%s cannot apply step %d (%s), %d of %d workers can: "+
				"this machine computes differently from the others",
				s, t, reports.applyErrors[rank], n, len(reports.reports))
		default:
			c.expel(s, "after step %d %s holds a state with digest %x, %d of %d workers hold %x: "+
				"this machine computes differently from the others",
				t, s, r.StateDigest, n, len(reports.reports), digest)
		}
	}
}

// cannotApply is the vote of a rank that could not apply the step.
const cannotApply = "cannot apply"

// vote is the digest of the state that a rank reports, or cannotApply.
func (r *stepReports) vote(rank int) string {
	if r.applyErrors[rank] != "" {
		return cannotApply
	}
	return string(r.reports[rank].StateDigest)
}

// describe lists what each rank reports, for an error.
func (r *stepReports) describe(g *generation) string {
	text := ""
	for rank, report := range r.reports {
		if rank > 0 {
			text += ", "
		}
		if why := r.applyErrors[rank]; why != "" {
			text += fmt.Sprintf("%s cannot apply it (%s)", g.ranks[rank], why)
			continue
		}
		text += fmt.Sprintf("%s has %x", g.ranks[rank], report.StateDigest)
	}
	return text
}
