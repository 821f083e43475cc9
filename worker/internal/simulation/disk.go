package simulation

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// disk keeps what a coordinator has synced. It outlives the coordinator's processes, each of which
// mounts it.
type disk struct {
	mu        sync.Mutex           // guards what follows, and the mounts
	logs      map[uint64]*raft.Log // by index
	stable    map[string][]byte    // raft's stable store: votes and terms
	snapshots []snapshot           // oldest first
	files     map[string][]byte    // the large trainer states, by name
}

// snapshot is a snapshot of raft's.
type snapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

// keptSnapshots is how many snapshots the product keeps.
const keptSnapshots = 2

func newDisk() *disk {
	return &disk{logs: map[uint64]*raft.Log{}, stable: map[string][]byte{}, files: map[string][]byte{}}
}

// The errors of a disk that fails, and of one that is full.
var (
	errSync = errors.New("fsync: input/output error (simulated)")
	errFull = fmt.Errorf("write (simulated): %w", syscall.ENOSPC)
)

var errNotFound = raftboltdb.ErrKeyNotFound // what the product's store returns

// mount is one process's access to a disk. After the process has crashed, its writes change only
// its own view.
type mount struct {
	disk *disk
	rand *rand.Rand

	// Guarded by disk.mu.
	view     *disk       // the disk as the process sees it
	crashed  bool        // the process has crashed
	writeErr error       // what the next write returns, and all after it; nil: they succeed
	pending  []*raft.Log // an append that is being synced
}

// mount opens the disk for a process.
func (d *disk) mount(r *rand.Rand) *mount {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &mount{disk: d, rand: r, view: &disk{
		logs:      maps.Clone(d.logs),
		stable:    maps.Clone(d.stable),
		snapshots: slices.Clone(d.snapshots),
		files:     maps.Clone(d.files),
	}}
}

// crash ends the process's access: the disk keeps what is synced, and nothing, some or all of an
// append under way.
func (m *mount) crash() {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if !m.crashed {
		m.crashed = true
		m.tearLocked()
	}
}

// tearLocked writes a random part of the pending append, from its beginning.
func (m *mount) tearLocked() {
	for _, l := range m.pending[:m.rand.IntN(len(m.pending)+1)] {
		m.disk.logs[l.Index] = l
	}
	m.pending = nil
}

// failWrites makes the next write and all after it fail with err.
func (m *mount) failWrites(err error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.writeErr = err
}

// StoreLogs implements raft.LogStore. It takes as long as a disk takes.
func (m *mount) StoreLogs(logs []*raft.Log) error {
	// The append is pending until the disk has synced it.
	m.disk.mu.Lock()
	took := between(m.rand, 50*time.Microsecond, 3*time.Millisecond)
	if !m.crashed {
		for _, l := range logs {
			m.pending = append(m.pending, cloneLog(l))
		}
	}
	m.disk.mu.Unlock()
	time.Sleep(took)

	// Then the process sees it, and the disk has it unless a crash came in between.
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.writeErr != nil && !m.crashed {
		m.tearLocked()
		return m.writeErr
	}
	for _, l := range logs {
		c := cloneLog(l)
		m.view.logs[l.Index] = c
		if !m.crashed { // otherwise crash has decided how much of it is there
			m.disk.logs[l.Index] = c
		}
	}
	m.pending = nil
	return nil
}

// cloneLog returns a copy of an entry of the log that shares nothing with it.
func cloneLog(l *raft.Log) *raft.Log {
	c := *l
	c.Data, c.Extensions = bytes.Clone(l.Data), bytes.Clone(l.Extensions)
	return &c
}

// StoreLog implements raft.LogStore.
func (m *mount) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

// GetLog implements raft.LogStore.
func (m *mount) GetLog(index uint64, to *raft.Log) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	l, ok := m.view.logs[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*to = *cloneLog(l)
	return nil
}

// FirstIndex implements raft.LogStore.
func (m *mount) FirstIndex() (uint64, error) {
	return m.extremeIndex(func(a, b uint64) bool { return a < b }), nil
}

// LastIndex implements raft.LogStore.
func (m *mount) LastIndex() (uint64, error) {
	return m.extremeIndex(func(a, b uint64) bool { return a > b }), nil
}

// extremeIndex returns the index that is better than all others in the log, 0 if the log is empty.
func (m *mount) extremeIndex(better func(a, b uint64) bool) uint64 {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	var at uint64
	for i := range m.view.logs {
		if at == 0 || better(i, at) {
			at = i
		}
	}
	return at
}

// DeleteRange implements raft.LogStore.
func (m *mount) DeleteRange(lo, hi uint64) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	inside := func(i uint64, _ *raft.Log) bool { return i >= lo && i <= hi }
	maps.DeleteFunc(m.view.logs, inside)
	if !m.crashed {
		maps.DeleteFunc(m.disk.logs, inside)
	}
	return nil
}

// Set implements raft.StableStore.
func (m *mount) Set(key, value []byte) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.writeErr != nil && !m.crashed {
		return m.writeErr
	}
	m.view.stable[string(key)] = bytes.Clone(value)
	if !m.crashed {
		m.disk.stable[string(key)] = bytes.Clone(value)
	}
	return nil
}

// Get implements raft.StableStore.
func (m *mount) Get(key []byte) ([]byte, error) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	v, ok := m.view.stable[string(key)]
	if !ok {
		return nil, errNotFound
	}
	return bytes.Clone(v), nil
}

// SetUint64 implements raft.StableStore.
func (m *mount) SetUint64(key []byte, v uint64) error { return m.Set(key, fmt.Appendf(nil, "%d", v)) }

// GetUint64 implements raft.StableStore.
func (m *mount) GetUint64(key []byte) (v uint64, err error) {
	b, err := m.Get(key)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(string(b), &v)
	return v, err
}

// Close implements io.Closer.
func (m *mount) Close() error { return nil }

// snapshotStore is the disk's snapshots as raft sees them.
type snapshotStore struct{ *mount }

// Create implements raft.SnapshotStore.
func (s snapshotStore) Create(
	version raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	return &sink{mount: s.mount, snap: snapshot{meta: raft.SnapshotMeta{
		Version:            version,
		ID:                 fmt.Sprintf("%d-%d", term, index),
		Index:              index,
		Term:               term,
		Configuration:      c,
		ConfigurationIndex: at,
	}}}, nil
}

// List implements raft.SnapshotStore: newest first.
func (s snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	var list []*raft.SnapshotMeta
	for _, snap := range slices.Backward(s.view.snapshots) {
		list = append(list, &snap.meta)
	}
	return list, nil
}

// Open implements raft.SnapshotStore.
func (s snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	for _, snap := range slices.Backward(s.view.snapshots) {
		if snap.meta.ID == id {
			return &snap.meta, io.NopCloser(bytes.NewReader(snap.data)), nil
		}
	}
	return nil, nil, fmt.Errorf("snapshot %s: %w", id, errNotFound)
}

// sink writes one snapshot, which exists once the sink is closed.
type sink struct {
	*mount
	snap snapshot
}

func (s *sink) Write(b []byte) (int, error) {
	s.snap.data = append(s.snap.data, b...)
	return len(b), nil
}

func (s *sink) Close() error {
	s.snap.meta.Size = int64(len(s.snap.data))
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.writeErr != nil && !s.crashed {
		return s.writeErr
	}
	add := func(to *disk) {
		to.snapshots = append(slices.Clone(to.snapshots), s.snap)
		to.snapshots = to.snapshots[max(0, len(to.snapshots)-keptSnapshots):]
	}
	add(s.view)
	if !s.crashed {
		add(s.disk)
	}
	return nil
}

func (s *sink) ID() string    { return s.snap.meta.ID }
func (s *sink) Cancel() error { return nil }
