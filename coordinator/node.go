package coordinator

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
	// A snapshot replaces the log entries before it: with the whole trainer state in each entry (135 KB for
	// T5-Large), 256 entries bound the log at some 40 MB.
	snapshotThreshold = 256
	trailingLogs      = 64
	snapshotInterval  = 5 * time.Second
	keptSnapshots     = 2
	// cachedLogs are kept in memory for followers that are a little behind.
	cachedLogs = 32
	// maxAppendBytes bounds the entries of one append to a follower.
	maxAppendBytes = 32 << 20
	// raftIOTimeout bounds one exchange between replicas.
	raftIOTimeout = 5 * time.Second
	// transferTimeout bounds the hand-over of leadership on a clean stop.
	transferTimeout = 3 * time.Second
	// DefaultElectionTimeout is how long a follower waits for a silent leader, at least; at most it is twice that.
	DefaultElectionTimeout = 500 * time.Millisecond
)

// Peer is a replica of the coordinator and the address at which the others reach its raft.
type Peer struct{ ID, Addr string }

// Replication is how a replica takes part in a replicated coordinator.
type Replication struct {
	ID              string        // of this replica, one of Peers
	Peers           []Peer        // the replicas that the job starts with, the same list on each
	Join            bool          // this replica waits to be added to a running job instead
	Listener        net.Listener  // for the other replicas; the coordinator closes it
	Dial            DialFunc      // to the other replicas; nil is plain TCP
	WorkerAddr      string        // host:port under which workers reach this replica; "" is where it listens for them
	ElectionTimeout time.Duration // 0 is DefaultElectionTimeout
	// Credentials secure what this replica asks of the leader where it takes workers; nil is plain text.
	Credentials credentials.TransportCredentials
}

func (r *Replication) credentials() credentials.TransportCredentials {
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

// node is this process's replica of the job: a raft node and the state machine it feeds.
type node struct {
	id         raft.ServerID
	raft       *raft.Raft
	replica    *replica
	journal    *journal
	transport  io.Closer     // nil when alone
	fresh      time.Duration // how old the leader's last word may be for workers to be sent to it
	leadership <-chan bool   // gained and lost, in turn
	broken     <-chan error  // why this replica cannot go on
}

// openNode opens or creates the replica whose log and snapshots live in dir, and starts it: alone, or as one of several.
// stateSize is the size of the trainer state that most entries carry.
func openNode(dir string, storage Storage, rep *Replication, stateSize int, logger *slog.Logger) (opened *node, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	broken := make(chan error, 1)
	fail := func(err error) {
		select {
		case broken <- err:
		default: // the first one tells
		}
	}
	path := filepath.Join(dir, "raft.db")
	if storage.Log == nil {
		if storage.Log, err = openBolt(path); err != nil {
			return nil, fmt.Errorf("data directory %s: %w", dir, err)
		}
	}
	j := &journal{path: path, store: storage.Log, fail: fail}
	n := &node{id: aloneID, replica: newReplica(fail), journal: j, broken: broken}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.stop())
		}
	}()
	if storage.Snapshots == nil {
		if storage.Snapshots, err = openSnapshots(filepath.Join(dir, "snapshots"), logger); err != nil {
			return nil, err
		}
	}
	log := hclogTo(logger)
	leadership := make(chan bool, 8)
	n.leadership = leadership
	conf := raft.DefaultConfig()
	conf.Logger, conf.NotifyCh = log, leadership
	storage.Compact.apply(conf)
	conf.MaxAppendEntries = max(1, min(64, maxAppendBytes/max(1, stateSize)))
	var transport raft.Transport
	var cluster raft.Configuration
	if rep == nil {
		// One replica talks to nobody, so its transport is in memory and it can elect itself at once.
		cluster.Servers = []raft.Server{{ID: aloneID}}
		cluster.Servers[0].Address, transport = raft.NewInmemTransport(aloneID)
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
		conf.CommitTimeout = 5 * time.Millisecond
	} else {
		addr, err := rep.addr()
		if err != nil {
			return nil, err
		}
		n.id = raft.ServerID(rep.ID)
		stream := newRaftStream(rep.Listener, addr, rep.Dial, logger)
		// One append at a time to each follower. raft's pipelining of them has a deadlock: the sender waits for the decoder of
		// responses, which waits for a reader that left when a follower answered "no". Until this replica loses leadership, that
		// follower then gets nothing more, and the replica's shutdown waits for the sender for ever.
		network := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: stream, MaxPool: 3, MaxRPCsInFlight: 1, Timeout: raftIOTimeout, Logger: log})
		n.transport, transport = network, network
		if !rep.Join {
			for _, p := range rep.Peers {
				cluster.Servers = append(cluster.Servers, raft.Server{ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Addr)})
			}
		}
		// The lease may be as long as the heartbeat timeout, because nothing is read on the strength of it: a leader
		// that starves for a moment should not step down before anybody else would have stood up.
		t := rep.ElectionTimeout
		if t == 0 {
			t = DefaultElectionTimeout
		}
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = t, t, t
		n.fresh = t / 2 // raft's heartbeats are a tenth to a fifth of it apart
	}
	conf.LocalID = n.id
	if err := n.start(conf, storage.Snapshots, transport, cluster); err != nil {
		if rep != nil && errors.Is(err, errDamaged) {
			err = fmt.Errorf("%w; with the other replicas running: dpt coord remove --id %s, delete %s, dpt coord add, and start it again with --join", err, rep.ID, dir)
		}
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	return n, nil
}

// start bootstraps a new replica and starts raft.
func (n *node) start(conf *raft.Config, snapshots raft.SnapshotStore, transport raft.Transport, cluster raft.Configuration) error {
	existing, err := raft.HasExistingState(n.journal, n.journal, snapshots)
	if err != nil {
		return fmt.Errorf("read raft's state: %w", err)
	}
	if !existing && len(cluster.Servers) > 0 {
		// Every replica bootstraps the same configuration, so it does not matter which of them comes first.
		if err := raft.BootstrapCluster(conf, n.journal, n.journal, snapshots, transport, cluster); err != nil {
			return fmt.Errorf("bootstrap raft: %w", err)
		}
	}
	logs, err := raft.NewLogCache(cachedLogs, n.journal)
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	var bad error
	if dir, ok := snapshots.(*snapshotDir); ok {
		if _, bad, err = dir.all(); err != nil {
			return err
		}
	}
	last, err := lastCommand(n.journal)
	if err != nil {
		return err
	}
	n.replica.begin(math.MaxUint64) // until raft has started
	r, err := newRaft(conf, n.replica, logs, n.journal, snapshots, transport)
	if err != nil {
		// Without the damaged snapshot the log does not reach back far enough, or it would have started.
		return fmt.Errorf("start raft: %w", errors.Join(err, bad))
	}
	n.raft = r
	n.replica.begin(last)
	n.journal.running.Store(true)
	return nil
}

// lastCommand is the last entry of the log that the machine applies; 0 if it has none.
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

// newRaft is raft.NewRaft, which answers an entry that it cannot read by a panic.
func newRaft(conf *raft.Config, machine raft.FSM, logs raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore, transport raft.Transport) (r *raft.Raft, err error) {
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

// close stops the replica after a snapshot, so that the next start need not replay the log, and knows at once what
// this one knew to be committed.
func (n *node) close() error {
	var err error
	if n.journal.state() == nil && n.replica.state() == nil && n.raft.State() != raft.Shutdown {
		if err = n.raft.Snapshot().Error(); errors.Is(err, raft.ErrNothingNewToSnapshot) {
			err = nil
		}
	}
	return errors.Join(err, n.stop())
}

// stop stops the replica as it is.
func (n *node) stop() error {
	var err error
	if n.transport != nil {
		// First, and with every connection, so that nothing that could not be kept is still said to a peer.
		err = n.transport.Close()
	}
	if n.raft != nil {
		err = errors.Join(err, n.raft.Shutdown().Error())
	}
	return errors.Join(err, n.journal.close())
}

// alone says whether this is the only replica there can be.
func (n *node) alone() bool { return n.transport == nil }

// leader is the id of the replica that leads as far as this one knows, and where it takes workers; "" if unknown. One
// that has missed a few heartbeats is not sent to any more: it may be gone, and its successor is not elected yet.
func (n *node) leader() (id, workerAddr string) {
	_, lead := n.raft.LeaderWithID()
	if lead != n.id && time.Since(n.raft.LastContact()) > n.fresh {
		return "", ""
	}
	n.view(func(m *fsm.Machine) { workerAddr = m.WorkerAddr(string(lead)) })
	return string(lead), workerAddr
}

// handOver gives leadership to another replica, if this one has it and there is another.
func (n *node) handOver(logger *slog.Logger) {
	if n.alone() || n.raft.State() != raft.Leader {
		return
	}
	done := make(chan error, 1)
	go func() { done <- n.raft.LeadershipTransfer().Error() }()
	select {
	case err := <-done:
		if err != nil {
			logger.Warn("leadership was not handed over; the other replicas will elect a leader", "reason", err)
		}
	case <-time.After(transferTimeout):
		logger.Warn("leadership was not handed over; the other replicas will elect a leader", "waited", transferTimeout)
	}
}

// servers are the replicas of raft's configuration.
func (n *node) servers() ([]raft.Server, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("raft configuration: %w", err)
	}
	return f.Configuration().Servers, nil
}

// propose appends an entry to the log. Entries proposed from one goroutine are committed in that order.
func (n *node) propose(e *fsmpb.Entry) raft.ApplyFuture {
	data, err := fsm.Encode(e)
	if err != nil {
		panic(fmt.Sprintf("coordinator: a log entry does not marshal: %v", err))
	}
	return n.raft.Apply(data, 0)
}

// errDeposed says that this replica does not lead any more. What it proposed last may be committed or not; the next
// leader finds it in the log or not.
var errDeposed = errors.New("this replica does not lead any more")

// committed waits until the entry is in the log of a majority and applied here, and returns its rejection if any.
func committed(f raft.ApplyFuture) error {
	if err := f.Error(); deposed(err) {
		return fmt.Errorf("%w: %w", errDeposed, err)
	} else if err != nil {
		return fmt.Errorf("commit to the raft log: %w", err)
	}
	if err, ok := f.Response().(error); ok {
		return err
	}
	return nil
}

// deposed says whether raft's error means that another replica is to go on.
func deposed(err error) bool {
	for _, e := range []error{raft.ErrLeadershipLost, raft.ErrNotLeader, raft.ErrRaftShutdown, raft.ErrLeadershipTransferInProgress, raft.ErrAbortedByRestore} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// view runs f with the machine as of the last applied entry. f must not keep or change it.
func (n *node) view(f func(m *fsm.Machine)) {
	n.replica.mu.RLock()
	defer n.replica.mu.RUnlock()
	f(n.replica.machine)
}
