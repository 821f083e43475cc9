package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// aloneID is the name of a replica that is alone.
	aloneID = "coordinator"
	// cachedLogs is how many entries stay in memory for followers that are a little behind.
	cachedLogs = 32
	// maxAppendBytes bounds the entries of one append to a follower.
	maxAppendBytes = 32 << 20
	// ioTimeout bounds one exchange between replicas.
	ioTimeout = 5 * time.Second
	// DefaultElectionTimeout is the shortest time that a follower waits for a silent leader; the
	// longest is twice that.
	DefaultElectionTimeout = 500 * time.Millisecond
)

// Peer is a replica of the coordinator.
type Peer struct {
	ID   string
	Addr string // host:port at which the others reach its raft
}

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
	// Credentials secure this replica's requests to the leader's port for workers; nil is plain
	// text.
	Credentials credentials.TransportCredentials
}

// LeaderCredentials are Credentials, or plain text if there are none. r may be nil.
func (r *Replication) LeaderCredentials() credentials.TransportCredentials {
	if r == nil || r.Credentials == nil {
		return insecure.NewCredentials()
	}
	return r.Credentials
}

// addr is the address of this replica among the peers.
func (r *Replication) addr() (string, error) {
	for _, p := range r.Peers {
		if p.ID == r.ID {
			return p.Addr, nil
		}
	}
	return "", fmt.Errorf("replica %s is none of the %d peers, want it among them", r.ID, len(r.Peers))
}

// Open opens or creates the replica whose log and snapshots are in dir, and starts it: alone if rep
// is nil, else as one of several. stateSize is the size of the trainer state that most entries
// carry, in bytes. The caller closes the Node.
func Open(
	dir string,
	storage Storage,
	rep *Replication,
	stateSize int,
	logger *slog.Logger,
) (opened *Node, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	broken := make(chan error, 1)
	fail := func(err error) {
		select {
		case broken <- err:
		default: // the first error is the one to report
		}
	}

	// The log comes first: it refuses a directory that another process has open.
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
			err = errors.Join(err, n.stop())
		}
	}()
	if storage.Snapshots == nil {
		if storage.Snapshots, err = openSnapshots(filepath.Join(dir, "snapshots"), logger); err != nil {
			return nil, err
		}
	}

	conf := raft.DefaultConfig()
	conf.Logger, conf.NotifyCh = hclogTo(logger), leadership
	// A leader that commits its own removal goes on as a follower without a vote, until Close.
	// raft's shutdown would leave the removal itself, and the proposals that its state machine has
	// not applied yet, without an answer.
	conf.ShutdownOnRemove = false
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

// connect makes the transport to the other replicas and sets raft's timeouts for it. It returns the
// transport and the members that a new replica starts with.
func (n *Node) connect(
	conf *raft.Config,
	rep *Replication,
	logger *slog.Logger,
) (raft.Transport, raft.Configuration, error) {
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
	// answered "no". Until this replica loses leadership, that follower gets nothing more, and the
	// replica's shutdown waits for the sender for ever.
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

	// The lease may be as long as the heartbeat timeout, because no read relies on it: a leader
	// that starves for a moment should not step down before another replica would stand for
	// election.
	t := rep.ElectionTimeout
	if t == 0 {
		t = DefaultElectionTimeout
	}
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = t, t, t
	n.fresh = t / 2 // raft's heartbeats are a tenth to a fifth of it apart
	return network, cluster, nil
}

// start starts raft, after the bootstrap of a replica that is new.
func (n *Node) start(
	conf *raft.Config,
	snapshots raft.SnapshotStore,
	transport raft.Transport,
	cluster raft.Configuration,
) error {
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

	// What raft starts from. A damaged snapshot matters only if raft cannot start without it.
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

	n.machine.self = n.id
	n.machine.replayTo(math.MaxUint64) // until raft has started
	r, err := newRaft(conf, n.machine, logs, n.log, snapshots, transport)
	if err != nil {
		// Without the damaged snapshot the log does not reach back far enough, or it would have
		// started.
		return fmt.Errorf("start raft: %w", errors.Join(err, damaged))
	}
	n.raft = r
	n.machine.join(r.GetConfiguration().Configuration())
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

// newRaft is raft.NewRaft with an error for its panics: it panics on an entry that it cannot read.
func newRaft(
	conf *raft.Config,
	machine raft.FSM,
	logs raft.LogStore,
	stable raft.StableStore,
	snapshots raft.SnapshotStore,
	transport raft.Transport,
) (r *raft.Raft, err error) {
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
