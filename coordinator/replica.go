package coordinator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/coordinator/fsm"
)

// replica adapts the pure machine to raft.FSM. raft calls Apply, Snapshot and Restore one at a time.
type replica struct {
	fail    func(error)
	applied chan struct{} // filled after a change; one reader
	named   chan struct{} // the same, for another: the keeper of the states that the machine names

	mu       sync.RWMutex
	machine  *fsm.Machine
	broken   error
	index    uint64 // of the last applied entry
	first    uint64 // the last entry that the log held when this process started
	restored int    // snapshots taken over since then
}

func newReplica(fail func(error)) *replica {
	return &replica{machine: fsm.New(), fail: fail, applied: make(chan struct{}, 1), named: make(chan struct{}, 1)}
}

// wake says that something has changed.
func (r *replica) wake() {
	for _, c := range []chan struct{}{r.applied, r.named} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// begin says up to which entry the log is one of an earlier process's.
func (r *replica) begin(last uint64) {
	r.mu.Lock()
	r.first, r.restored = last, 0
	r.mu.Unlock()
	r.wake()
}

// replayed says whether the machine has come to where an earlier process on this data directory had come.
func (r *replica) replayed() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.index >= r.first || r.restored > 0
}

// Apply returns nil or the error that rejected the entry. Any other error ends the replica: an entry that the others
// apply must not be left out here.
func (r *replica) Apply(l *raft.Log) any {
	err := r.apply(l)
	r.wake()
	if err != nil {
		return err
	}
	return nil
}

func (r *replica) apply(l *raft.Log) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return r.broken
	}
	_, err := r.machine.Apply(l.Data)
	r.index = l.Index
	if err != nil && !errors.Is(err, fsm.ErrRejected) {
		r.broken = fmt.Errorf("entry %d of the raft log is committed and cannot be applied here: %w", l.Index, err)
		r.fail(r.broken)
		return r.broken
	}
	return err
}

func (r *replica) state() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.broken
}

// Snapshot implements raft.FSM.
func (r *replica) Snapshot() (raft.FSMSnapshot, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.broken != nil {
		return nil, r.broken
	}
	data, err := r.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	return snapshot(data), nil
}

// Restore implements raft.FSM.
func (r *replica) Restore(from io.ReadCloser) error {
	defer from.Close()
	data, err := io.ReadAll(from)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	r.mu.Lock()
	err = r.machine.Restore(data)
	r.restored++
	r.mu.Unlock()
	r.wake()
	return err
}

type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := io.Copy(sink, bytes.NewReader(s)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s snapshot) Release() {}
