package replica

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
)

// machine adapts the pure state machine to raft.FSM. raft calls Apply, Snapshot and Restore one at
// a time.
type machine struct {
	fail func(error) // ends the replica

	mu       sync.RWMutex
	fsm      *fsm.Machine
	broken   error           // why no further entry is applied; nil while entries are
	index    uint64          // of the last applied entry
	first    uint64          // the last entry that the log held when this process started
	restored int             // snapshots taken over since then
	watchers []chan struct{} // filled after every change
}

func newMachine(fail func(error)) *machine { return &machine{fsm: fsm.New(), fail: fail} }

// View runs f with the state machine as of the last applied entry. f must neither keep nor change
// it.
func (n *Node) View(f func(m *fsm.Machine)) {
	n.machine.mu.RLock()
	defer n.machine.mu.RUnlock()
	f(n.machine.fsm)
}

// Status is what the log holds of the present job, as of the last applied entry.
type Status struct {
	JobID           string // "" before any job
	Started         bool   // there is a job
	Over            bool   // it has ended, in any way
	Finished        bool   // it has done all its steps, or stopped early
	Failure         *fsm.Failure
	Step            ids.Step // committed
	TotalSteps      ids.Step
	Evaluated       bool           // the state after Step is
	Exhausted       bool           // patience has run out: the job stops early
	Generation      ids.Generation // the last that was formed
	Workers         int            // of that generation
	FirstGeneration ids.Generation // the last one before the job
	Numerics        string         // what the job's workers compute with; "" before the first generation
	State           []byte         // the trainer state after Step; nil where Blob names it
	Blob            ids.Blob
	Offer           *fsm.Offer // the state that the replicas are asked to take; nil if there is none
}

// Status returns the present Status. The caller must not change State, Failure and Offer.
func (n *Node) Status() (s Status) {
	n.View(func(m *fsm.Machine) {
		generation, members := m.Generation()
		s = Status{
			JobID:           m.JobID(),
			Started:         m.Started(),
			Over:            m.Over(),
			Finished:        m.Finished(),
			Failure:         m.Failure(),
			Step:            m.Step(),
			TotalSteps:      m.TotalSteps(),
			Evaluated:       m.Evaluated(m.Step()),
			Exhausted:       m.Exhausted(),
			Generation:      generation,
			Workers:         len(members),
			FirstGeneration: m.FirstGeneration(),
			Numerics:        m.Numerics(),
			State:           m.State(),
			Blob:            m.Blob(),
			Offer:           m.Offered(),
		}
	})
	return s
}

// Changes returns a channel of the caller's own that is filled after every change of the state
// machine. A change that meets a full channel is not counted twice.
func (n *Node) Changes() <-chan struct{} {
	c := make(chan struct{}, 1)
	n.machine.mu.Lock()
	defer n.machine.mu.Unlock()
	n.machine.watchers = append(n.machine.watchers, c)
	return c
}

// Wake fills the channels of Changes: something beside the state machine has changed.
func (n *Node) Wake() { n.machine.wake() }

// Replayed reports whether the machine has come to where an earlier process on this data directory
// had come.
func (n *Node) Replayed() bool {
	n.machine.mu.RLock()
	defer n.machine.mu.RUnlock()
	return n.machine.index >= n.machine.first || n.machine.restored > 0
}

// wake tells the watchers that something has changed.
func (m *machine) wake() {
	m.mu.RLock()
	watchers := m.watchers
	m.mu.RUnlock()
	for _, c := range watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// replayTo sets the entry up to which the log is one of an earlier process's.
func (m *machine) replayTo(last uint64) {
	m.mu.Lock()
	m.first, m.restored = last, 0
	m.mu.Unlock()
	m.wake()
}

// Apply implements raft.FSM. It returns nil or the error that rejected the entry. Any other error
// ends the replica: an entry that the others apply must not be left out here.
func (m *machine) Apply(l *raft.Log) any {
	err := m.apply(l)
	m.wake()
	if err != nil {
		return err
	}
	return nil
}

func (m *machine) apply(l *raft.Log) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken
	}
	_, err := m.fsm.Apply(l.Data)
	m.index = l.Index
	if err != nil && !errors.Is(err, fsm.ErrRejected) {
		m.broken = fmt.Errorf("entry %d of the raft log is committed and cannot be applied here: %w", l.Index, err)
		m.fail(m.broken)
		return m.broken
	}
	return err
}

func (m *machine) err() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.broken
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.broken != nil {
		return nil, m.broken
	}
	data, err := m.fsm.Snapshot()
	if err != nil {
		return nil, err
	}
	return snapshot(data), nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(from io.ReadCloser) error {
	defer from.Close()
	data, err := io.ReadAll(from)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	m.mu.Lock()
	err = m.fsm.Restore(data)
	m.restored++
	m.mu.Unlock()
	m.wake()
	return err
}

// snapshot is the encoded state machine on its way to disk.
type snapshot []byte

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := io.Copy(sink, bytes.NewReader(s)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s snapshot) Release() {}
