package replica

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

// Node is this process's replica of the job: a raft node and the state machine that it feeds. Its
// methods may be called from any goroutine. Open sets all fields.
type Node struct {
	id         raft.ServerID
	raft       *raft.Raft
	machine    *machine
	log        *checkedLog
	transport  io.Closer     // nil when alone
	fresh      time.Duration // the leader is unknown if it was last heard longer ago
	leadership <-chan bool   // raft sends
	broken     <-chan error  // fail sends, once
	fail       func(error)
}

// Close takes a snapshot and stops the replica. With the snapshot the next start need not replay
// the log, and knows at once what this process knew to be committed.
func (n *Node) Close() error {
	var err error
	if n.log.err() == nil && n.machine.err() == nil && !n.Stopped() {
		if err = n.raft.Snapshot().Error(); errors.Is(err, raft.ErrNothingNewToSnapshot) {
			err = nil
		}
	}
	return errors.Join(err, n.stop())
}

// stop stops the replica as it is, without a snapshot.
func (n *Node) stop() error {
	var err error
	if n.transport != nil {
		// The transport goes first, with every connection, so that nothing is acknowledged to a
		// peer that is not on disk here.
		err = n.transport.Close()
	}
	if n.raft != nil {
		err = errors.Join(err, n.raft.Shutdown().Error())
	}
	return errors.Join(err, n.log.close())
}

// Shutdown asks raft to stop, and does not wait for it.
func (n *Node) Shutdown() { n.raft.Shutdown() }

// Stopped reports whether raft has stopped by Shutdown, or does nothing more because this replica
// was removed.
func (n *Node) Stopped() bool { return n.raft.State() == raft.Shutdown || n.removed() }

// removed reports whether the removal of this replica is committed. While a replica that was added
// again applies its log, the last committed configuration is older than the latest.
func (n *Node) removed() bool {
	n.machine.mu.RLock()
	removed := n.machine.removed
	n.machine.mu.RUnlock()
	return removed && !contains(n.raft.GetConfiguration().Configuration(), n.id)
}

// ID is this replica's name.
func (n *Node) ID() string { return string(n.id) }

// Alone reports whether this is the only replica there can be.
func (n *Node) Alone() bool { return n.transport == nil }

// Broken receives the reason why this replica cannot go on, once: its disk or its log has failed.
func (n *Node) Broken() <-chan error { return n.broken }

// Fail ends this replica, because it cannot keep what it must keep. Broken receives err.
func (n *Node) Fail(err error) { n.fail(err) }

// Err is why the machine has stopped applying entries; nil while it has not.
func (n *Node) Err() error { return n.machine.err() }

// Propose appends an entry to the log. Entries proposed from one goroutine are committed in that
// order.
func (n *Node) Propose(e *fsmpb.Entry) Proposal {
	data, err := fsm.Encode(e)
	if err != nil {
		panic(fmt.Sprintf("replica: a log entry does not marshal: %v", err))
	}
	return Proposal{n.raft.Apply(data, 0)}
}

// Proposal is an entry on its way to the log.
type Proposal struct{ future raft.ApplyFuture }

// Wait waits until the entry is in the log of a majority and applied here. It returns nil, the
// entry's rejection (an fsm.ErrRejected), ErrDeposed if this replica does not lead any more, or why
// the entry could not be committed.
func (p Proposal) Wait() error {
	if err := p.future.Error(); deposed(err) {
		return fmt.Errorf("%w: %w", ErrDeposed, err)
	} else if err != nil {
		return fmt.Errorf("commit to the raft log: %w", err)
	}
	if err, ok := p.future.Response().(error); ok {
		return err
	}
	return nil
}
