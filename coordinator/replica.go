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

	mu      sync.RWMutex
	machine *fsm.Machine
	broken  error
}

func newReplica(fail func(error)) *replica {
	return &replica{machine: fsm.New(), fail: fail, applied: make(chan struct{}, 1)}
}

// Apply returns nil or the error that rejected the entry. Any other error ends the replica: an entry that the others
// apply must not be left out here.
func (r *replica) Apply(l *raft.Log) any {
	err := r.apply(l)
	select {
	case r.applied <- struct{}{}:
	default:
	}
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
	r.mu.Unlock()
	select {
	case r.applied <- struct{}{}:
	default:
	}
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
