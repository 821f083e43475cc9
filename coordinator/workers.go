package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
)

// The controller's workers: how they come and go.

func (c *controller) onHello(s *session) {
	for _, o := range c.sessions {
		switch {
		case o.id == s.id && o.host == s.host && o.addr == s.addr:
			// The same process again: its old stream is dead and we have not noticed yet.
			c.drop(o, errors.New("it connected again"))
			o.close(codes.Aborted, "worker %s connected again", o.id)
		case o.id == s.id:
			s.close(codes.FailedPrecondition, "the worker id %s of %s is taken by %s; every worker needs an id of its own", s.id, s, o)
			return
		case o.addr == s.addr:
			s.close(codes.FailedPrecondition, "the ring address %s of worker %s is taken by %s; every worker needs an address of its own", s.addr, s.id, o)
			return
		}
	}
	c.sessions[s.id] = s
	c.welcome(s)
}

// welcome tells the worker about the job, or that there is none now.
func (c *controller) welcome(s *session) {
	if c.job == nil {
		s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Idle{Idle: &coordpb.Idle{HeartbeatIntervalMs: c.cfg.beat().Milliseconds()}}})
		return
	}
	d := c.job.ModelDigest
	s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Welcome{Welcome: &coordpb.Welcome{
		JobId: c.jobID, Version: c.cfg.Version, ModelName: c.job.ModelPath, ModelDigest: d[:], Train: c.job.Spec.TrainSpec(),
		HeartbeatIntervalMs: c.cfg.beat().Milliseconds(), StepTimeoutMs: c.cfg.StepTimeout.Milliseconds(),
	}}})
}

func (c *controller) onReady(s *session, r *coordpb.Ready) {
	if c.job == nil || r.JobId != c.jobID {
		return // it answers the welcome to a job that is over
	}
	got, err := ids.DigestOf(r.ModelDigest)
	if err != nil {
		s.close(codes.InvalidArgument, "%s: model %v", s, err)
		return
	}
	if got != c.job.ModelDigest {
		c.logger.Error("worker refused: it holds another model", "worker", s.id, "host", s.host, "model", r.ModelName, "digest", got, "want", c.job.ModelDigest)
		s.close(codes.FailedPrecondition, "worker %s has model %q with digest %s, the job's model %q has digest %s",
			s.id, job.ModelName(r.ModelName), got.Short(), job.ModelName(c.job.Spec.Model), c.job.ModelDigest.Short())
		return
	}
	if s.ready {
		return
	}
	if want, whose := c.numerics(); want != "" && r.Numerics != want {
		c.logger.Error("worker refused: it would compute other bits", "worker", s.id, "host", s.host, "numerics", r.Numerics, "want", want)
		s.close(codes.FailedPrecondition, "worker %s computes with %q, %s with %q: all workers of a job must compute the same bits (--engine and --dtype choose; machines of one job need the same instruction set)",
			s.id, r.Numerics, whose, want)
		return
	}
	if c.apart() && !r.Blobs {
		c.logger.Error("worker refused: it cannot store large states", "worker", s.id, "host", s.host, "version", s.version, "want", c.cfg.Version)
		s.close(codes.FailedPrecondition, "worker %s (version %s) cannot store and fetch a trainer state of %d bytes in pieces, which this job needs: want a worker of version %s",
			s.id, s.version, c.job.Spec.StateSize(), c.cfg.Version)
		return
	}
	s.engine, s.numerics = r.Engine, r.Numerics
	c.enlist(s)
	c.logger.Info("worker joined", "worker", s.id, "host", s.host, "ring", s.addr, "engine", s.engine, "ready", len(c.ready()), "want", c.cfg.Nodes)
	if c.gen != nil {
		c.gen.regroup = true
	}
}

// numerics is what every worker must compute with, and who says so: the job once a generation has run, before that the
// worker that was ready first.
func (c *controller) numerics() (want, whose string) {
	c.node.view(func(m *fsm.Machine) { want = m.Numerics() })
	if want != "" {
		return want, "the job"
	}
	for _, s := range c.ready() {
		return s.numerics, "worker " + s.id
	}
	return "", ""
}

// onLeft: the session is over, whatever the reason.
func (c *controller) onLeft(s *session, why error) {
	if why == nil {
		why = errors.New("its session ended")
	}
	c.drop(s, why)
}

// drop forgets the session and ends the generation it was part of.
func (c *controller) drop(s *session, why error) {
	if c.sessions[s.id] == s {
		delete(c.sessions, s.id)
		c.strike(s)
	}
	if s.ready {
		c.logger.Warn("worker left", "worker", s.id, "host", s.host, "reason", why, "ready", len(c.ready()))
	} else {
		c.logger.Debug("session ended before the worker was ready", "worker", s.id, "reason", why)
	}
	if c.gen != nil && c.gen.rank(s) >= 0 {
		c.endGeneration(fmt.Errorf("%s left: %w", s, why))
	}
}

// expireSilent ends sessions that have not been heard for the heartbeat timeout.
func (c *controller) expireSilent() {
	limit := time.Now().Add(-c.cfg.HeartbeatTimeout).UnixNano()
	for _, s := range c.sessions {
		if s.seen.Load() < limit {
			s.close(codes.Unavailable, "%s was not heard for %v", s, c.cfg.HeartbeatTimeout)
			c.drop(s, fmt.Errorf("not heard for %v", c.cfg.HeartbeatTimeout))
		}
	}
}

// ready are the sessions that can take part, ordered by id. The caller must not change or keep the list.
func (c *controller) ready() []*session { return c.roster }

// enlist puts a session among the ready ones.
func (c *controller) enlist(s *session) {
	s.ready = true
	i, _ := c.place(s)
	c.roster = slices.Insert(c.roster, i, s)
}

// strike takes a session from the ready ones, if it is one.
func (c *controller) strike(s *session) {
	if i, found := c.place(s); found && c.roster[i] == s {
		c.roster = slices.Delete(c.roster, i, i+1)
	}
}

// place is where the session's id is, or would be, among the ready ones.
func (c *controller) place(s *session) (at int, found bool) {
	return slices.BinarySearchFunc(c.roster, s.id, func(o *session, id string) int { return strings.Compare(o.id, id) })
}

// dismiss tells every worker how this replica's leading ended: the job finished, it failed, or the worker may look for the next leader.
func (c *controller) dismiss(err error) {
	var step ids.Step
	var failure *fsm.Failure
	c.node.view(func(m *fsm.Machine) { step, failure = m.Step(), m.Failure() })
	for _, s := range c.sessions {
		switch {
		case err == nil && failure != nil:
			s.end(refuseFailed(failure))
		case err == nil:
			s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Finish{Finish: &coordpb.Finish{Steps: int64(step)}}})
		case c.failed != nil:
			s.close(codes.Aborted, "the job failed: %v", err)
		default:
			s.close(codes.Unavailable, "%s does not lead any more, after step %d", c.node.id, step)
		}
	}
}
