package replica

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

const (
	// aloneID is the one replica's name in a single-node configuration.
	aloneID = "coordinator"
	// cachedLogs are kept in memory for followers that are a little behind.
	cachedLogs = 32
	// maxAppendBytes bounds the entries of one append to a follower.
	maxAppendBytes = 32 << 20
	// ioTimeout bounds one exchange between replicas.
	ioTimeout = 5 * time.Second
	// transferTimeout bounds the hand-over of leadership on a clean stop.
	transferTimeout = 3 * time.Second
	// membershipTimeout bounds a change of the replicas.
	membershipTimeout = 10 * time.Second
	// DefaultElectionTimeout is how long a follower waits for a silent leader, at least; at most it
	// is twice that.
	DefaultElectionTimeout = 500 * time.Millisecond
)

// Peer is a replica of the coordinator and the address at which the others reach its raft.
type Peer struct{ ID, Addr string }

// Replication is how a replica takes part in a replicated coordinator.
type Replication struct {
	// ID is this replica's, one of Peers.
	ID string
	// Peers are the replicas that the job starts with, the same list on each.
	Peers []Peer
	// Join makes this replica wait to be added to a running job.
	Join bool
	// Listener takes the other replicas' connections; the coordinator closes it.
	Listener net.Listener
	// Dial connects to the other replicas; nil is plain TCP.
	Dial DialFunc
	// WorkerAddr is the host:port under which workers reach this replica; "" is where it listens
	// for them.
	WorkerAddr string
	// ElectionTimeout of 0 is DefaultElectionTimeout.
	ElectionTimeout time.Duration
	// Credentials secure what this replica asks of the leader where it takes workers; nil is plain
	// text.
	Credentials credentials.TransportCredentials
}

// LeaderCredentials are Credentials, or plain text where there are none. r may be nil.
func (r *Replication) LeaderCredentials() credentials.TransportCredentials {
	if r == nil || r.Credentials == nil {
		return insecure.NewCredentials()
	}
	return r.Credentials
}

func (r *Replication) addr() (string, error) {
	for _, p := range r.Peers {
		if p.ID == r.ID {
			return p.Addr, nil
		}
	}
	return "", fmt.Errorf("replica %s is none of the %d peers, want it among them", r.ID, len(r.Peers))
}

// Node is this process's replica of the job: a raft node and the state machine that it feeds. Its
// methods may be called from any goroutine.
type Node struct {
	id         raft.ServerID
	raft       *raft.Raft
	machine    *machine
	log        *checkedLog
	transport  io.Closer     // nil when alone
	fresh      time.Duration // a leader that was last heard longer ago is not sent to
	leadership <-chan bool
	broken     <-chan error
	fail       func(error)
}

// Open opens or creates the replica whose log and snapshots live in dir, and starts it: alone where
// rep is nil, or as one of several. stateSize is the size of the trainer state that most entries
// carry, in bytes.
func Open(dir string, storage Storage, rep *Replication, stateSize int, logger *slog.Logger) (opened *Node, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	broken := make(chan error, 1)
	fail := func(err error) {
		select {
		case broken <- err:
		default: // the first error is reported
		}
	}
	path := filepath.Join(dir, "raft.db")
	if storage.Log == nil {
		if storage.Log, err = openBolt(path); err != nil {
			return nil, fmt.Errorf("data directory %s: %w", dir, err)
		}
	}
	leadership := make(chan bool, 8)
	n := &Node{
		id:         aloneID,
		machine:    newMachine(fail),
		log:        &checkedLog{path: path, store: storage.Log, fail: fail},
		leadership: leadership,
		broken:     broken,
		fail:       fail,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Stop())
		}
	}()
	if storage.Snapshots == nil {
		if storage.Snapshots, err = openSnapshots(filepath.Join(dir, "snapshots"), logger); err != nil {
			return nil, err
		}
	}

	conf := raft.DefaultConfig()
	conf.Logger, conf.NotifyCh = hclogTo(logger), leadership
	storage.Compact.apply(conf)
	conf.MaxAppendEntries = max(1, min(64, maxAppendBytes/max(1, stateSize)))
	transport, cluster, err := n.connect(conf, rep, logger)
	if err != nil {
		return nil, err
	}
	conf.LocalID = n.id
	if err := n.start(conf, storage.Snapshots, transport, cluster); err != nil {
		if rep != nil && errors.Is(err, errDamaged) {
			err = fmt.Errorf("%w; with the other replicas running: dpt coord remove --id %s, delete %s, "+
				"dpt coord add, and start it again with --join", err, rep.ID, dir)
		}
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	return n, nil
}

// connect makes the transport to the other replicas, sets raft's timeouts for it, and returns the
// configuration that a new replica starts with.
func (n *Node) connect(conf *raft.Config, rep *Replication, logger *slog.Logger) (raft.Transport, raft.Configuration, error) {
	var cluster raft.Configuration
	if rep == nil {
		// One replica talks to nobody, so its transport is in memory and it can elect itself at
		// once.
		addr, transport := raft.NewInmemTransport(aloneID)
		cluster.Servers = []raft.Server{{ID: aloneID, Address: addr}}
		t := 50 * time.Millisecond
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = t, t, t
		conf.CommitTimeout = 5 * time.Millisecond
		return transport, cluster, nil
	}
	addr, err := rep.addr()
	if err != nil {
		return nil, cluster, err
	}
	n.id = raft.ServerID(rep.ID)
	// One append at a time to each follower. raft's pipelining of them has a deadlock: the sender
	// waits for the decoder of responses, which waits for a reader that left when a follower
	// answered "no". Until this replica loses leadership, that follower then gets nothing more, and
	// the replica's shutdown waits for the sender for ever.
	network := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:          newRaftStream(rep.Listener, addr, rep.Dial, logger),
		MaxPool:         3,
		MaxRPCsInFlight: 1,
		Timeout:         ioTimeout,
		Logger:          conf.Logger,
	})
	n.transport = network
	if !rep.Join {
		for _, p := range rep.Peers {
			server := raft.Server{ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Addr)}
			cluster.Servers = append(cluster.Servers, server)
		}
	}
	// The lease may be as long as the heartbeat timeout, because nothing is read on the strength of
	// it: a leader that starves for a moment should not step down before anybody else would have
	// stood up.
	t := rep.ElectionTimeout
	if t == 0 {
		t = DefaultElectionTimeout
	}
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = t, t, t
	n.fresh = t / 2 // raft's heartbeats are a tenth to a fifth of it apart
	return network, cluster, nil
}

// start bootstraps a new replica and starts raft.
func (n *Node) start(conf *raft.Config, snapshots raft.SnapshotStore, transport raft.Transport, cluster raft.Configuration) error {
	existing, err := raft.HasExistingState(n.log, n.log, snapshots)
	if err != nil {
		return fmt.Errorf("read raft's state: %w", err)
	}
	if !existing && len(cluster.Servers) > 0 {
		// Every replica bootstraps the same configuration, so it does not matter which is first.
		if err := raft.BootstrapCluster(conf, n.log, n.log, snapshots, transport, cluster); err != nil {
			return fmt.Errorf("bootstrap raft: %w", err)
		}
	}
	logs, err := raft.NewLogCache(cachedLogs, n.log)
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	var damaged error
	if dir, ok := snapshots.(*snapshotDir); ok {
		if _, damaged, err = dir.all(); err != nil {
			return err
		}
	}
	last, err := lastCommand(n.log)
	if err != nil {
		return err
	}
	n.machine.replayTo(math.MaxUint64) // until raft has started
	r, err := newRaft(conf, n.machine, logs, n.log, snapshots, transport)
	if err != nil {
		// Without the damaged snapshot the log does not reach back far enough, or it would have
		// started.
		return fmt.Errorf("start raft: %w", errors.Join(err, damaged))
	}
	n.raft = r
	n.machine.replayTo(last)
	n.log.running.Store(true)
	return nil
}

// lastCommand is the index of the last entry of the log that the machine applies; 0 if it has none.
func lastCommand(logs raft.LogStore) (uint64, error) {
	first, err := logs.FirstIndex()
	if err != nil {
		return 0, fmt.Errorf("raft log: %w", err)
	}
	at, err := logs.LastIndex()
	if err != nil {
		return 0, fmt.Errorf("raft log: %w", err)
	}
	for ; at > 0 && at >= first; at-- {
		var l raft.Log
		if err := logs.GetLog(at, &l); err != nil {
			return 0, fmt.Errorf("raft log: %w", err)
		}
		if l.Type == raft.LogCommand {
			return at, nil
		}
	}
	return 0, nil
}

// newRaft is raft.NewRaft with its panics as errors: it answers an entry that it cannot read by a
// panic.
func newRaft(conf *raft.Config, machine raft.FSM, logs raft.LogStore, stable raft.StableStore,
	snapshots raft.SnapshotStore, transport raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			r = nil
			if cause, ok := p.(error); ok {
				err = cause
			} else {
				err = fmt.Errorf("%v", p)
			}
		}
	}()
	return raft.NewRaft(conf, machine, logs, stable, snapshots, transport)
}

// Close takes a snapshot and stops the replica, so that the next start need not replay the log and
// knows at once what this one knew to be committed.
func (n *Node) Close() error {
	var err error
	if n.log.err() == nil && n.machine.err() == nil && !n.Stopped() {
		if err = n.raft.Snapshot().Error(); errors.Is(err, raft.ErrNothingNewToSnapshot) {
			err = nil
		}
	}
	return errors.Join(err, n.Stop())
}

// Stop stops the replica as it is.
func (n *Node) Stop() error {
	var err error
	if n.transport != nil {
		// First, and with every connection, so that nothing that was not kept is still said to a
		// peer.
		err = n.transport.Close()
	}
	if n.raft != nil {
		err = errors.Join(err, n.raft.Shutdown().Error())
	}
	return errors.Join(err, n.log.close())
}

// Shutdown asks raft to stop, and does not wait for it.
func (n *Node) Shutdown() { n.raft.Shutdown() }

// Stopped reports whether raft has stopped: by Shutdown, or because this replica was removed.
func (n *Node) Stopped() bool { return n.raft.State() == raft.Shutdown }

// ID is this replica's name.
func (n *Node) ID() string { return string(n.id) }

// Alone reports whether this is the only replica there can be.
func (n *Node) Alone() bool { return n.transport == nil }

// Broken is filled with the reason why this replica cannot go on: its disk or its log has failed.
func (n *Node) Broken() <-chan error { return n.broken }

// Fail ends this replica, which cannot keep what it must keep: Broken hears why.
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

// Wait waits until the entry is in the log of a majority and applied here. It returns the entry's
// rejection (an fsm.ErrRejected), ErrDeposed where another replica is to go on, or why the entry
// could not be committed.
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
