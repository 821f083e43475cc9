package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/coordinator/fsm"
)

const (
	// transferTimeout bounds the hand-over of leadership on a clean stop.
	transferTimeout = 3 * time.Second
	// membershipTimeout bounds a change of the replicas.
	membershipTimeout = 10 * time.Second
)

// ErrDeposed means that this replica does not lead any more. Whether its last proposals are
// committed is not known here: the next leader finds them in the log or not.
var ErrDeposed = errors.New("this replica does not lead any more")

// deposed reports whether raft's error means that this replica does not lead any more.
func deposed(err error) bool {
	for _, e := range []error{
		raft.ErrLeadershipLost,
		raft.ErrNotLeader,
		raft.ErrRaftShutdown,
		raft.ErrLeadershipTransferInProgress,
		raft.ErrAbortedByRestore,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Leadership receives true whenever this replica gains leadership and false whenever it loses it,
// in turn.
func (n *Node) Leadership() <-chan bool { return n.leadership }

// IsLeader reports whether this replica leads, as far as it knows.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// Term is raft's current term.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// Leader returns the id of the replica that leads, as far as this one knows, and the address where
// it takes workers; "" if unknown. A leader that has missed a few heartbeats is unknown too: it may
// be gone, and its successor is not elected yet.
func (n *Node) Leader() (id, workerAddr string) {
	_, lead := n.raft.LeaderWithID()
	if lead != n.id && time.Since(n.raft.LastContact()) > n.fresh {
		return "", ""
	}
	n.View(func(m *fsm.Machine) { workerAddr = m.WorkerAddr(string(lead)) })
	return string(lead), workerAddr
}

// Barrier waits until everything that an earlier leader may have committed is applied here. It
// returns ErrDeposed if this replica does not lead.
func (n *Node) Barrier() error {
	if err := n.raft.Barrier(0).Error(); deposed(err) {
		return ErrDeposed
	} else if err != nil {
		return fmt.Errorf("apply the raft log: %w", err)
	}
	return nil
}

// HandOver gives leadership to another replica, if this one has it and there is another. It waits
// at most transferTimeout for that.
func (n *Node) HandOver(logger *slog.Logger) {
	if n.Alone() || !n.IsLeader() {
		return
	}
	const failed = "leadership was not handed over; the other replicas will elect a leader"
	done := make(chan error, 1)
	go func() { done <- n.raft.LeadershipTransfer().Error() }()
	select {
	case err := <-done:
		if err != nil {
			logger.Warn(failed, "reason", err)
		}
	case <-time.After(transferTimeout):
		logger.Warn(failed, "waited", transferTimeout)
	}
}

// Member is a replica of raft's configuration.
type Member struct {
	ID    string
	Addr  string // of its raft port
	Voter bool
}

// Members are the replicas of raft's configuration.
func (n *Node) Members() ([]Member, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("raft configuration: %w", err)
	}
	var list []Member
	for _, s := range f.Configuration().Servers {
		m := Member{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter}
		list = append(list, m)
	}
	return list, nil
}

// AddVoter adds a replica. It returns ErrDeposed if this replica does not lead.
func (n *Node) AddVoter(id, addr string) error {
	f := n.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, membershipTimeout)
	return membershipError(f)
}

// Remove removes a replica. It returns ErrDeposed if this replica does not lead.
func (n *Node) Remove(id string) error {
	return membershipError(n.raft.RemoveServer(raft.ServerID(id), 0, membershipTimeout))
}

// membershipError waits for a change of the members, and returns why it failed.
func membershipError(f raft.IndexFuture) error {
	err := f.Error()
	if deposed(err) {
		return fmt.Errorf("%w: %w", ErrDeposed, err)
	}
	return err
}
