package replica

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
)

// machine adapts the pure state machine to raft.FSM. raft calls Apply, Snapshot and Restore one at
// a time, from goroutines of its own; they change the fields below mu, everybody else reads them.
type machine struct {
	self raft.ServerID // this replica's; start sets it
	fail func(error)   // ends the replica

	mu       sync.RWMutex
	fsm      *fsm.Machine
	broken   error  // why no further entry is applied; nil while entries are
	index    uint64 // of the last applied entry
	replayed uint64 // the last entry that the log held when this process started; set by replayTo
	restored int    // snapshots restored since then
	member   bool   // a configuration had this replica in it; never reset
	removed  bool   // member, and the last committed configuration has it no more
	// watchers are the channels that Changes has returned.
	watchers []chan struct{}
}

func newMachine(fail func(error)) *machine { return &machine{fsm: fsm.New(), fail: fail} }

// View runs f with the state machine as of the last applied entry. f must neither keep the machine
// nor change it, and must not block.
func (n *Node) View(f func(m *fsm.Machine)) {
	n.machine.mu.RLock()
	defer n.machine.mu.RUnlock()
	f(n.machine.fsm)
}

// Status is what the log holds of the current job, as of the last applied entry.
type Status struct {
	JobID           string       // "" before any job
	Started         bool         // there is a job
	Over            bool         // it has ended, in any way
	Finished        bool         // it has done all its steps, or stopped early
	Failure         *fsm.Failure // nil unless it has failed for good
	Step            ids.Step     // the last committed one
	TotalSteps      ids.Step
	Evaluated       bool           // the state after Step is evaluated
	Exhausted       bool           // patience has run out: the job stops early
	Generation      ids.Generation // the last one, of any job
	Workers         int            // of that generation
	FirstGeneration ids.Generation // the last one before the job
	Numerics        string         // what the job's workers compute with; "" before the first generation
	State           []byte         // the trainer state after Step; nil if Blob names it
	Blob            ids.Blob       // of size 0 if State holds it
	Offer           *fsm.Offer     // the blob that the replicas are asked to fetch; nil if there is none
}

// Status returns the current Status. The caller must not change State, Failure and Offer.
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

// Changes returns a new channel that receives after every change of the state machine. It holds one
// value: changes that the caller has not received yet count as one.
func (n *Node) Changes() <-chan struct{} {
	c := make(chan struct{}, 1)
	n.machine.mu.Lock()
	defer n.machine.mu.Unlock()
	n.machine.watchers = append(n.machine.watchers, c)
	return c
}

// Wake sends to the channels of Changes, because something beside the state machine has changed.
func (n *Node) Wake() { n.machine.wake() }

// Replayed reports whether the machine has applied everything that the log held when this process
// started, or has restored a newer snapshot.
func (n *Node) Replayed() bool {
	n.machine.mu.RLock()
	defer n.machine.mu.RUnlock()
	return n.machine.index >= n.machine.replayed || n.machine.restored > 0
}

// wake sends to the watchers that have no value waiting.
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

// replayTo sets the last entry that an earlier process has left in the log.
func (m *machine) replayTo(last uint64) {
	m.mu.Lock()
	m.replayed, m.restored = last, 0
	m.mu.Unlock()
	m.wake()
}

// Apply implements raft.FSM. It returns nil or the fsm.ErrRejected that the entry met. Any other
// error ends the replica: an entry that the others apply must not be left out here.
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

// StoreConfiguration implements raft.ConfigurationStore: raft calls it, like Apply, with each
// committed configuration.
func (m *machine) StoreConfiguration(_ uint64, c raft.Configuration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := contains(c, m.self)
	m.removed = m.member && !in
	m.member = m.member || in
}

// join takes a configuration that raft starts with, committed or not.
func (m *machine) join(c raft.Configuration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.member = m.member || contains(c, m.self)
}

// contains reports whether a configuration has a replica in it.
func contains(c raft.Configuration, id raft.ServerID) bool {
	return slices.ContainsFunc(c.Servers, func(s raft.Server) bool { return s.ID == id })
}

// err is why no further entry is applied; nil while entries are.
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
