package coordinator

import (
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/deal"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// plan sends the plans of the steps that may be under way: those up to the next commit, and CommitWindow
// more. A worker that finishes a step finds the next plan waiting, so the commit hides behind the next gradient.
// No plan goes past a step whose evaluation is due, and none past a commit if a worker waits to join.
func (c *controller) plan(step, total ids.Step) {
	next := step + 1
	for !c.commits(next) {
		next++
	}
	apart := c.apart()
	for t := c.gen.planned + 1; t <= total && t <= next+ids.Step(c.cfg.CommitWindow); t++ {
		if c.gen.regroup && (t-1 == step || c.commits(t-1)) {
			return
		}
		if t-1 > step && c.job.EvalDue(t-1) {
			return
		}
		if apart && t > next && c.commits(t) {
			return // one large state on its way at a time
		}
		c.sendPlan(t)
		if c.gen == nil {
			return
		}
		c.gen.planned = t
	}
}

// commits says whether step t is one that commits itself and those before it.
func (c *controller) commits(t ids.Step) bool {
	return int64(t)%c.commitEvery() == 0 || int64(t) >= c.job.Spec.Steps || c.job.EvalDue(t)
}

// attaches is the rank that attaches the state to its report of step t, in turn; -1 if the step does not commit.
func (c *controller) attaches(t ids.Step) int {
	if !c.commits(t) {
		return -1
	}
	return int(int64(t)/c.commitEvery()) % len(c.gen.ranks)
}

func (c *controller) commitEvery() int64 {
	return c.job.Spec.CommitInterval(c.cfg.CommitEvery, c.cfg.Storage.inline())
}

// apart says whether the job's states are blobs.
func (c *controller) apart() bool { return c.job.Spec.NeedsBlobs(c.cfg.Storage.inline()) }

func (c *controller) sendPlan(t ids.Step) {
	p := c.job.Plan(t)
	n := len(c.gen.ranks)
	work := deal.Work{
		Costs:    p.Costs,
		Speeds:   c.gen.speeds(),
		Held:     c.heldBy(t),
		Audited:  c.toAudit(t, len(p.Micro)),
		Measured: c.probes(),
	}
	disputed := -1
	if c.dispute != nil && c.dispute.step == t {
		disputed = c.dispute.micro
		if work.Audited == nil {
			work.Audited = map[int]bool{}
		}
		work.Audited[disputed] = true // by two at once, if there are two to ask
		work.Barred = func(micro, r int) bool {
			_, asked := c.dispute.claims[c.gen.ranks[r].id]
			return micro == disputed && asked
		}
	}
	shards, audits, err := work.Deal()
	if err != nil && disputed >= 0 {
		c.settle() // those who could decide have left
		return
	}
	if err != nil {
		c.fail("step %d: %w", t, err)
		return
	}
	second := map[int]bool{}
	for _, list := range audits {
		for _, i := range list {
			second[i] = true
		}
	}
	reports := &stepReports{sent: time.Now(), costs: p.Costs, shard: shards, dealt: make([][]int, n), cost: make([]int, n), digests: make([]map[int]bool, n),
		done: make([]int, n), waits: make([]bool, n), got: make([]*coordpb.Report, n), fails: make([]string, n)}
	attach := c.attaches(t)
	for r, s := range c.gen.ranks {
		m := &coordpb.Plan{Generation: uint64(c.gen.number), Step: int64(t), MicroBatches: int32(len(p.Micro)), Committed: int64(c.committed())}
		if r == attach && c.apart() {
			m.StoreState = true
			c.states.expect(upload{s.id, c.gen.number, t}, int64(c.job.Spec.StateSize()))
		} else {
			m.AttachState = r == attach
		}
		reports.digests[r] = map[int]bool{}
		for _, i := range shards[r] {
			m.Shard = append(m.Shard, p.Micro[i])
			if second[i] || i == disputed {
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
		s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Plan{Plan: m}})
		c.cfg.markHalf(HalfPlan, r, n)
	}
	c.gen.reports[t] = reports
}

func (c *controller) onMessage(s *session, m *coordpb.WorkerMessage) {
	switch b := m.Body.(type) {
	case *coordpb.WorkerMessage_Ready:
		c.onReady(s, b.Ready)
	case *coordpb.WorkerMessage_Report:
		c.onReport(s, b.Report)
	case *coordpb.WorkerMessage_Evaluation:
		c.onEvaluation(s, b.Evaluation)
	case *coordpb.WorkerMessage_Failure:
		c.onFailure(s, b.Failure)
	case *coordpb.WorkerMessage_Progress:
		c.onProgress(s, b.Progress)
	case *coordpb.WorkerMessage_Standby:
		c.onStandby(s, b.Standby)
	case *coordpb.WorkerMessage_Leave:
		s.close(codes.OK, "")
		c.drop(s, fmt.Errorf("it asked to leave"))
	default:
		s.close(codes.InvalidArgument, "unexpected message %T from %s", m.Body, s)
	}
}

func (c *controller) onFailure(s *session, f *coordpb.Failure) {
	if f.Fatal && f.MicroBatch > 0 {
		c.claimFailure(s, f)
		return
	}
	if c.gen == nil || uint64(c.gen.number) != f.Generation || c.gen.rank(s) < 0 {
		return
	}
	if reports := c.gen.reports[ids.Step(f.Step)]; f.Fatal && reports != nil && reports.got[c.gen.rank(s)] == nil {
		// It could not apply the step. If the others cannot either, the job ends; else it is this machine.
		rank := c.gen.rank(s)
		reports.fails[rank] = f.Error
		c.file(ids.Step(f.Step), reports, rank, &coordpb.Report{})
		return
	}
	c.endGeneration(fmt.Errorf("%s at step %d: %s", s, f.Step, f.Error))
}

// onReport files a report and commits every step that is now complete.
func (c *controller) onReport(s *session, r *coordpb.Report) {
	if c.gen == nil || uint64(c.gen.number) != r.Generation && !plantedStaleReport {
		return // of an ended generation
	}
	rank := c.gen.rank(s)
	reports := c.gen.reports[ids.Step(r.Step)]
	if rank < 0 || reports == nil || reports.got[rank] != nil {
		s.close(codes.InvalidArgument, "%s reports step %d of generation %d, which it was not asked for", s, r.Step, r.Generation)
		return
	}
	if err := checkReport(r); err != nil {
		s.close(codes.InvalidArgument, "%s reports step %d with %v", s, r.Step, err)
		return
	}
	if r.GradientCost > 0 {
		s.measure(r.GradientCost, time.Duration(r.GradientNs))
	}
	c.file(ids.Step(r.Step), reports, rank, r)
}

// checkReport checks what no worker that computes can say, whatever the data: the log would not take it, nor a line of metrics hold it.
func checkReport(r *coordpb.Report) error {
	if r.Tokens < 1 {
		return fmt.Errorf("%d tokens, want at least 1", r.Tokens)
	}
	for name, v := range map[string]float64{"loss sum": r.LossSum, "learning rate": r.LearningRate, "gradient norm": r.GradNorm} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("a %s of %v, want a finite number", name, v)
		}
	}
	return nil
}

// file puts a rank's report with the others; with the last one the step is complete.
func (c *controller) file(t ids.Step, reports *stepReports, rank int, r *coordpb.Report) {
	c.computed(t, reports, rank, len(reports.dealt[rank]))
	c.gen.free[rank] = time.Now()
	reports.got[rank] = r
	if reports.count++; reports.count == len(c.gen.ranks) {
		c.commit(t, reports)
	}
}

// commit proposes a step that every rank has reported, with the steps before it that wait for it, or puts it with
// them. Ranks report in order and a step needs all of them, so steps become complete in order too.
func (c *controller) commit(t ids.Step, reports *stepReports) {
	if !c.agree(t, reports) || !c.sound(t, reports) {
		return
	}
	c.settled(reports)
	attach := c.attaches(t)
	first := reports.got[max(0, attach)]
	if attach >= 0 && c.apart() {
		if !c.states.has(c.blobOf(first)) {
			s := c.gen.ranks[attach]
			c.expel(s, "%s was to store the state after step %d, of which its report says the digest %x, and has not", s, t, first.StateDigest)
			return
		}
	} else if attach >= 0 {
		if got := ids.Sum(first.State); string(got[:]) != string(first.StateDigest) {
			s := c.gen.ranks[attach]
			c.expel(s, "%s attached to step %d a state with digest %s, its report says %x", s, t, got.Short(), first.StateDigest)
			return
		}
	}
	now := time.Now()
	p := c.job.Plan(t)
	e := &fsmpb.StepCommitted{
		Generation: uint64(c.gen.number), Step: int64(t), BatchDigest: p.Digest[:], StateDigest: first.StateDigest,
		LossSum: first.LossSum, Tokens: first.Tokens, LearningRate: first.LearningRate, GradNorm: first.GradNorm,
		Seconds: now.Sub(c.lastStep).Seconds(), Workers: int32(len(c.gen.ranks)),
	}
	c.lastStep = now
	delete(c.gen.reports, t)
	if attach < 0 {
		c.gen.pending = append(c.gen.pending, e)
		return
	}
	e.Earlier, c.gen.pending = c.gen.pending, nil
	if c.apart() {
		c.offer(e)
		return
	}
	e.State = first.State
	c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: e}}})
}

// agree checks that every rank holds the same state after step t. A minority that differs computes wrongly: it is
// expelled and named. Without a majority nobody can say who is right, and the job stops rather than guess.
func (c *controller) agree(t ids.Step, reports *stepReports) bool {
	votes := map[string]int{}
	for rank := range reports.got {
		votes[reports.vote(rank)]++
	}
	if _, fails := votes[cannotApply]; len(votes) == 1 && !fails || plantedNoAgreement {
		return true
	}
	for digest, n := range votes {
		if 2*n <= len(reports.got) {
			continue
		}
		if digest == cannotApply {
			c.failJob(t, reports.fails[slices.IndexFunc(reports.fails, func(text string) bool { return text != "" })])
			return false
		}
		for rank, r := range reports.got {
			s := c.gen.ranks[rank]
			switch vote := reports.vote(rank); vote {
			case digest:
			case cannotApply:
				defer c.expel(s, "%s cannot apply step %d (%s), %d of %d workers can: this machine computes differently from the others", s, t, reports.fails[rank], n, len(reports.got))
			default:
				defer c.expel(s, "after step %d %s holds a state with digest %x, %d of %d workers hold %x: this machine computes differently from the others",
					t, s, r.StateDigest, n, len(reports.got), digest)
			}
		}
		return false
	}
	c.fail("after step %d the workers hold different states and no majority agrees: %s", t, describeStates(c.gen, reports))
	return false
}

// cannotApply is the vote of a rank that could not apply the step.
const cannotApply = "cannot apply"

// vote is the digest of the state that a rank reports.
func (r *stepReports) vote(rank int) string {
	if r.fails[rank] != "" {
		return cannotApply
	}
	return string(r.got[rank].StateDigest)
}

func describeStates(g *generation, reports *stepReports) string {
	text := ""
	for rank, r := range reports.got {
		if rank > 0 {
			text += ", "
		}
		if why := reports.fails[rank]; why != "" {
			text += fmt.Sprintf("%s cannot apply it (%s)", g.ranks[rank], why)
			continue
		}
		text += fmt.Sprintf("%s has %x", g.ranks[rank], r.StateDigest)
	}
	return text
}

// expel ends a worker's session for good and with it the generation.
func (c *controller) expel(s *session, format string, args ...any) {
	why := fmt.Errorf(format, args...)
	c.logger.Error("worker expelled", "worker", s.id, "host", s.host, "reason", why)
	s.close(codes.FailedPrecondition, "%s", why)
	c.drop(s, why)
}
