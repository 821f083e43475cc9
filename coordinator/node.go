package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

const (
	// nodeID is the one replica's name in a single-node configuration.
	nodeID = raft.ServerID("coordinator")
	// A snapshot replaces the log entries before it: with the whole trainer state in each entry (135 KB for
	// T5-Large), 256 entries bound the log at some 40 MB.
	snapshotThreshold = 256
	trailingLogs      = 64
	keptSnapshots     = 2
)

// node is this process's replica of the job: a raft node and the state machine it feeds.
type node struct {
	raft    *raft.Raft
	replica *replica
	store   LogStore
	leader  <-chan bool
}

// openStorage opens or creates the log and the snapshots in dir.
func openStorage(dir string, log hclog.Logger) (s Storage, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return s, fmt.Errorf("data directory: %w", err)
	}
	path := filepath.Join(dir, "raft.db")
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: time.Second}})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return s, fmt.Errorf("data directory %s: %s is locked by another coordinator, want it to ourselves", dir, path)
	} else if err != nil {
		return s, fmt.Errorf("open raft log %s: %w", path, err)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, log)
	if err != nil {
		store.Close()
		return s, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	return Storage{Log: store, Snapshots: snapshots}, nil
}

// openNode opens or creates the replica whose log and snapshots are in storage, or else in dir, and starts it as a
// single-node cluster.
func openNode(dir string, storage Storage, logger *slog.Logger) (n *node, err error) {
	log := hclogTo(logger)
	if storage.Log == nil {
		if storage, err = openStorage(dir, log); err != nil {
			return nil, err
		}
	}
	store, snapshots := storage.Log, storage.Snapshots
	defer func() {
		if err != nil {
			store.Close()
		}
	}()
	// One replica talks to nobody, so its transport is in memory and it can elect itself at once.
	addr, transport := raft.NewInmemTransport(raft.ServerAddress(nodeID))
	leadership := make(chan bool, 8)
	conf := raft.DefaultConfig()
	conf.LocalID = nodeID
	conf.Logger = log
	conf.NotifyCh = leadership
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	conf.CommitTimeout = 5 * time.Millisecond
	conf.SnapshotThreshold, conf.TrailingLogs = snapshotThreshold, trailingLogs
	conf.SnapshotInterval = 5 * time.Second

	existing, err := raft.HasExistingState(store, store, snapshots)
	if err != nil {
		return nil, fmt.Errorf("read raft state in %s: %w", dir, err)
	}
	if !existing {
		cluster := raft.Configuration{Servers: []raft.Server{{ID: nodeID, Address: addr}}}
		if err := raft.BootstrapCluster(conf, store, store, snapshots, transport, cluster); err != nil {
			return nil, fmt.Errorf("bootstrap raft in %s: %w", dir, err)
		}
	}
	rep := &replica{machine: fsm.New()}
	r, err := raft.NewRaft(conf, rep, store, store, snapshots, transport)
	if err != nil {
		return nil, fmt.Errorf("start raft in %s: %w", dir, err)
	}
	return &node{raft: r, replica: rep, store: store, leader: leadership}, nil
}

// close stops the replica after a snapshot, so that the next start need not replay the log.
func (n *node) close() error {
	err := n.raft.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		err = nil
	}
	return errors.Join(err, n.raft.Shutdown().Error(), n.store.Close())
}

// propose appends an entry to the log. Entries proposed from one goroutine are committed in that order.
func (n *node) propose(e *fsmpb.Entry) raft.ApplyFuture {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("coordinator: a log entry does not marshal: %v", err))
	}
	return n.raft.Apply(data, 0)
}

// committed waits until the entry is in the log of a majority and applied here, and returns its rejection if any.
func committed(f raft.ApplyFuture) error {
	if err := f.Error(); err != nil {
		return fmt.Errorf("commit to the raft log: %w", err)
	}
	if err, ok := f.Response().(error); ok {
		return err
	}
	return nil
}

// view runs f with the machine as of the last applied entry. f must not keep or change it.
func (n *node) view(f func(m *fsm.Machine)) {
	n.replica.mu.RLock()
	defer n.replica.mu.RUnlock()
	f(n.replica.machine)
}

// replica adapts the pure machine to raft.FSM. raft calls Apply, Snapshot and Restore one at a time.
type replica struct {
	mu      sync.RWMutex
	machine *fsm.Machine
}

// Apply returns nil or the error that rejected the entry.
func (r *replica) Apply(l *raft.Log) any {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.machine.Apply(l.Data); err != nil {
		return err
	}
	return nil
}

func (r *replica) Snapshot() (raft.FSMSnapshot, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	data, err := r.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	return snapshot(data), nil
}

func (r *replica) Restore(from io.ReadCloser) error {
	defer from.Close()
	data, err := io.ReadAll(from)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.Restore(data)
}

type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := io.Copy(sink, bytes.NewReader(s)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s snapshot) Release() {}

// hclogTo sends raft's own log lines to slog: warnings and errors as they are, the rest at debug level.
func hclogTo(logger *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	l.RegisterSink(&slogSink{logger: logger.With("component", "raft")})
	return l
}

type slogSink struct{ logger *slog.Logger }

func (s *slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case level >= hclog.Error:
		to = slog.LevelError
	case level == hclog.Warn && msg != "no known peers, aborting election" && msg != "heartbeat timeout reached, starting election":
		to = slog.LevelWarn
	}
	s.logger.Log(context.Background(), to, msg, args...)
}
