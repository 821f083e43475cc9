package coordinator

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

// plan sends the plans of the steps that may be under way: those up to the next commit, and CommitWindow
// more. A worker that finishes a step finds the next plan waiting, so the commit hides behind the next gradient.
// No plan goes past a step whose evaluation is due, and none past a commit if a worker waits to join.
func (c *controller) plan(step, total fsm.Step) {
	next := step + 1
	for !c.commits(next) {
		next++
	}
	for t := c.gen.planned + 1; t <= total && t <= next+fsm.Step(c.cfg.CommitWindow); t++ {
		if c.gen.regroup && (t-1 == step || c.commits(t-1)) {
			return
		}
		if t-1 > step && c.job.EvalDue(t-1) {
			return
		}
		c.sendPlan(t)
		if c.gen == nil {
			return
		}
		c.gen.planned = t
	}
}

// commits says whether step t is one that commits itself and those before it.
func (c *controller) commits(t fsm.Step) bool {
	return int64(t)%c.cfg.CommitEvery == 0 || int64(t) >= c.job.Spec.Steps || c.job.EvalDue(t)
}

// attaches is the rank that attaches the state to its report of step t, in turn; -1 if the step does not commit.
func (c *controller) attaches(t fsm.Step) int {
	if !c.commits(t) {
		return -1
	}
	return int(int64(t)/c.cfg.CommitEvery) % len(c.gen.ranks)
}

func (c *controller) sendPlan(t fsm.Step) {
	p := c.job.Plan(t)
	speeds := make([]float64, len(c.gen.ranks))
	var known, sum float64
	for _, s := range c.gen.ranks {
		if s.speed > 0 {
			known++
			sum += s.speed
		}
	}
	for r, s := range c.gen.ranks {
		switch {
		case s.speed > 0:
			speeds[r] = s.speed
		case known > 0:
			speeds[r] = sum / known
		default:
			speeds[r] = 1
		}
	}
	shards, err := Assign(p.Costs, speeds)
	if err != nil {
		c.fail("step %d: %w", t, err)
		return
	}
	attach := c.attaches(t)
	for r, s := range c.gen.ranks {
		m := &coordpb.Plan{Generation: uint64(c.gen.number), Step: int64(t), MicroBatches: int32(len(p.Micro)), AttachState: r == attach}
		for _, i := range shards[r] {
			m.Shard = append(m.Shard, p.Micro[i])
		}
		s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Plan{Plan: m}})
		c.cfg.markHalf(HalfPlan, r, len(c.gen.ranks))
	}
	c.gen.reports[t] = &stepReports{got: make([]*coordpb.Report, len(c.gen.ranks))}
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
	case *coordpb.WorkerMessage_Leave:
		s.close(codes.OK, "")
		c.drop(s, fmt.Errorf("it asked to leave"))
	default:
		s.close(codes.InvalidArgument, "unexpected message %T from %s", m.Body, s)
	}
}

func (c *controller) onFailure(s *session, f *coordpb.Failure) {
	if f.Fatal && (!c.cfg.Serve || c.gen != nil && uint64(c.gen.number) == f.Generation) {
		c.failJob(fsm.Step(f.Step), fmt.Sprintf("%s (found by worker %s)", f.Error, s.id))
		return
	}
	if c.gen == nil || uint64(c.gen.number) != f.Generation || c.gen.rank(s) < 0 {
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
	reports := c.gen.reports[fsm.Step(r.Step)]
	if rank < 0 || reports == nil || reports.got[rank] != nil {
		s.close(codes.InvalidArgument, "%s reports step %d of generation %d, which it was not asked for", s, r.Step, r.Generation)
		return
	}
	reports.got[rank] = r
	reports.count++
	if r.GradientCost > 0 {
		v := max(minSpeed, float64(r.GradientCost)/max(float64(r.GradientNs), 1)*float64(time.Second))
		if s.speed == 0 {
			s.speed = v
		} else {
			s.speed += speedWeight * (v - s.speed)
		}
	}
	if reports.count == len(c.gen.ranks) {
		c.commit(fsm.Step(r.Step), reports)
	}
}

// commit proposes a step that every rank has reported, with the steps before it that wait for it, or puts it with
// them. Ranks report in order and a step needs all of them, so steps become complete in order too.
func (c *controller) commit(t fsm.Step, reports *stepReports) {
	if !c.agree(t, reports) {
		return
	}
	attach := c.attaches(t)
	first := reports.got[max(0, attach)]
	if attach >= 0 {
		if got := fsm.Sum(first.State); string(got[:]) != string(first.StateDigest) {
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
	e.State, e.Earlier, c.gen.pending = first.State, c.gen.pending, nil
	c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: e}}})
}

// agree checks that every rank holds the same state after step t. A minority that differs computes wrongly: it is
// expelled and named. Without a majority nobody can say who is right, and the job stops rather than guess.
func (c *controller) agree(t fsm.Step, reports *stepReports) bool {
	votes := map[string]int{}
	for _, r := range reports.got {
		votes[string(r.StateDigest)]++
	}
	if len(votes) == 1 || plantedNoAgreement {
		return true
	}
	for digest, n := range votes {
		if 2*n <= len(reports.got) {
			continue
		}
		for rank, r := range reports.got {
			if string(r.StateDigest) != digest {
				s := c.gen.ranks[rank]
				defer c.expel(s, "after step %d %s holds a state with digest %x, %d of %d workers hold %x: this machine computes differently from the others",
					t, s, r.StateDigest, n, len(reports.got), digest)
			}
		}
		return false
	}
	c.fail("after step %d the workers hold different states and no majority agrees: %s", t, describeStates(c.gen, reports))
	return false
}

func describeStates(g *generation, reports *stepReports) string {
	text := ""
	for rank, r := range reports.got {
		if rank > 0 {
			text += ", "
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
