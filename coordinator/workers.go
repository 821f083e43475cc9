package coordinator

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/tiny"
)

// How workers come and go.

func (c *controller) onHello(s *session) {
	same, err := c.roster.conflict(s)
	if err != nil {
		s.close(codes.FailedPrecondition, "%s", err)
		return
	}
	if same != nil {
		// The same process again: its old stream is dead and we have not noticed yet.
		c.drop(same, errors.New("it connected again"))
		same.close(codes.Aborted, "worker %s connected again", same.id)
	}
	c.roster.add(s)
	c.welcome(s)
}

// welcome tells the worker about the job, or that there is none now.
func (c *controller) welcome(s *session) {
	if c.job == nil {
		s.send(idleMessage(c.cfg))
		return
	}
	s.send(welcomeMessage(c.cfg, c.jobID, c.job))
}

// onReady enlists a worker that holds the job's model and computes the job's bits, and refuses
// another.
func (c *controller) onReady(s *session, r *coordpb.Ready) {
	if c.job == nil || r.JobId != c.jobID {
		return // it answers the welcome to a job that is over
	}
	got, err := ids.DigestOf(r.ModelDigest)
	if err != nil {
		s.close(codes.InvalidArgument, "%s: model %v", s, err)
		return
	}
	if want := c.job.ModelDigest; got != want {
		c.logger.Error("worker refused: it holds another model",
			"worker", s.id, "host", s.host, "model", r.ModelName, "digest", got, "want", want)
		s.close(codes.FailedPrecondition, "worker %s has model %q with digest %s, the job's model %q has digest %s",
			s.id, tiny.NameOf(r.ModelName), got.Short(), tiny.NameOf(c.job.Spec.Model), want.Short())
		return
	}
	if s.ready {
		return
	}
	if want, whose := c.numerics(); want != "" && r.Numerics != want {
		c.logger.Error("worker refused: it would compute other bits",
			"worker", s.id, "host", s.host, "numerics", r.Numerics, "want", want)
		s.close(codes.FailedPrecondition, "worker %s computes with %q, %s with %q: all workers of a job must compute "+
			"the same bits (--engine and --dtype choose; machines of one job need the same instruction set)",
			s.id, r.Numerics, whose, want)
		return
	}
	if c.statesAreBlobs() && !r.Blobs {
		c.logger.Error("worker refused: it cannot store large states",
			"worker", s.id, "host", s.host, "version", s.version, "want", c.cfg.Version)
		s.close(codes.FailedPrecondition, "worker %s (version %s) cannot store and fetch a trainer state of %d bytes "+
			"in pieces, which this job needs: want a worker of version %s",
			s.id, s.version, c.job.Spec.StateSize(), c.cfg.Version)
		return
	}
	s.engine, s.numerics = r.Engine, r.Numerics
	c.roster.enlist(s)
	c.logger.Info("worker joined", "worker", s.id, "host", s.host, "ring", s.addr, "engine", s.engine,
		"ready", len(c.roster.ready), "want", c.cfg.Nodes)
	if c.gen != nil {
		c.gen.regroup = true
	}
}

// numerics is what every worker must compute with, and who computes with it: the job once a
// generation has run, before that the first worker that was ready.
func (c *controller) numerics() (want, whose string) {
	if want = c.node.Status().Numerics; want != "" {
		return want, "the job"
	}
	for _, s := range c.roster.ready {
		return s.numerics, "worker " + s.id
	}
	return "", ""
}

// onLeft drops a session that is over, whatever the reason.
func (c *controller) onLeft(s *session, why error) {
	if why == nil {
		why = errors.New("its session ended")
	}
	c.drop(s, why)
}

// drop forgets the session and ends the generation it was part of.
func (c *controller) drop(s *session, why error) {
	c.roster.remove(s)
	if s.ready {
		c.logger.Warn("worker left", "worker", s.id, "host", s.host, "reason", why, "ready", len(c.roster.ready))
	} else {
		c.logger.Debug("session ended before the worker was ready", "worker", s.id, "reason", why)
	}
	if c.gen != nil && c.gen.rank(s) >= 0 {
		c.endGeneration(fmt.Errorf("%s left: %w", s, why))
	}
}

// expel ends a worker's session for good and with it the generation.
func (c *controller) expel(s *session, format string, args ...any) {
	why := fmt.Errorf(format, args...)
	c.logger.Error("worker expelled", "worker", s.id, "host", s.host, "reason", why)
	s.close(codes.FailedPrecondition, "%s", why)
	c.drop(s, why)
}

// dropSilent ends sessions that have not been heard for the heartbeat timeout.
func (c *controller) dropSilent() {
	limit := c.cfg.HeartbeatTimeout
	for _, s := range c.roster.silent(time.Now().Add(-limit)) {
		s.close(codes.Unavailable, "%s was not heard for %v", s, limit)
		c.drop(s, fmt.Errorf("not heard for %v", limit))
	}
}

// available are the workers that can take part in a generation now.
func (c *controller) available() []*session {
	list := c.roster.available(time.Now(), c.cfg.MinNodes)
	if rest := c.dispute.without(list); len(rest) >= c.cfg.MinNodes {
		return rest
	}
	return list
}

// dismissWorkers tells every worker how this replica's leading ended: the job finished, it failed,
// or the worker may look for the next leader.
func (c *controller) dismissWorkers(err error) {
	status := c.node.Status()
	for _, s := range c.roster.sessions {
		switch {
		case err == nil && status.Failure != nil:
			s.end(jobFailedError(status.Failure))
		case err == nil:
			s.send(finishMessage(status.Step))
		case c.failed != nil:
			s.close(codes.Aborted, "the job failed: %v", err)
		default:
			s.close(codes.Unavailable, "%s does not lead any more, after step %d", c.node.ID(), status.Step)
		}
	}
}
