package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

// tellTimeout bounds one word to the leader.
const tellTimeout = time.Second

// lead starts a term: this replica leads from now until the term is stopped.
func (p *process) lead(ctx context.Context) *term {
	ctx, stop := context.WithCancelCause(ctx)
	return &term{stop: stop, task: start(func() error { defer stop(nil); return p.reign(ctx) })}
}

// reign runs the job as its leader. It returns as controller.loop does.
func (p *process) reign(ctx context.Context) error {
	n := p.node
	// After the barrier everything that an earlier leader may have committed is applied here.
	if err := n.raft.Barrier(0).Error(); deposed(err) {
		return errDeposed
	} else if err != nil {
		return fmt.Errorf("apply the raft log: %w", err)
	}
	if !n.alone() {
		p.cfg.Logger.Info("this replica leads", "replica", string(n.id), "workers_at", p.cfg.workerAddr())
	}
	joined := &fsmpb.CoordinatorJoined{Id: string(n.id), WorkerAddr: p.cfg.workerAddr()}
	if err := committed(n.propose(&fsmpb.Entry{Body: &fsmpb.Entry_CoordinatorJoined{CoordinatorJoined: joined}})); err != nil {
		return err
	}
	if !p.cfg.Serve {
		if over, err := p.ownJob(ctx); over || err != nil {
			return err
		}
	}
	p.states.lead()
	c := newController(p.cfg, p.job, n, p.states)
	c.library, c.workers = p.library, &p.front.workers
	closed := make(chan struct{})
	p.front.lead(&server{events: c.events, version: p.cfg.Version, beat: p.cfg.beat(), logger: p.cfg.Logger, closed: closed})
	err := c.loop(ctx)
	p.front.lead(nil)
	c.dismiss(err)
	close(closed)
	return err
}

// ownJob makes sure that the log holds the job that this replica was started with, and says whether it is over.
func (p *process) ownJob(ctx context.Context) (over bool, err error) {
	var started bool
	p.node.view(func(m *fsm.Machine) { started, over = m.Started(), m.Over() })
	if over {
		return true, nil
	}
	if !started {
		e, err := jobStarted(p.job, p.cfg.Storage.inline())
		if err != nil {
			return false, err
		}
		if err := committed(p.node.propose(e)); err != nil {
			return false, err
		}
	}
	select {
	case <-p.recorder.ready: // it checks that the log's job is ours
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// lastOne says whether no other replica needs this one, which has finished.
func (p *process) lastOne() bool {
	if p.node.alone() {
		return true
	}
	if p.node.raft.State() != raft.Leader {
		return false
	}
	others, err := p.front.waitsFor()
	return err == nil && len(others) == 0
}

// tell tells the leader that this replica has finished, and says whether it knows.
func (p *process) tell(ctx context.Context) bool {
	_, addr := p.node.leader()
	if addr == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	options := []grpc.DialOption{grpc.WithTransportCredentials(p.cfg.Replication.credentials())}
	if p.cfg.Dial != nil {
		options = append(options, grpc.WithContextDialer(p.cfg.Dial))
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		p.cfg.Logger.Debug("leader not told that this replica has finished", "leader", addr, "reason", err)
		return false
	}
	defer conn.Close()
	if _, err := coordpb.NewReplicasClient(conn).Finished(ctx, &coordpb.ReplicaFinished{Id: string(p.node.id)}); err != nil {
		p.cfg.Logger.Debug("leader not told that this replica has finished", "leader", addr, "reason", err)
		return false
	}
	return true
}
