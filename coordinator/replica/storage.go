package replica

import (
	"io"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// snapshotThreshold is the number of entries after a snapshot at which the next one is taken. A
	// snapshot replaces the log entries before it: with the whole trainer state in each entry (135
	// KB for T5-Large), 256 entries bound the log at some 40 MB.
	snapshotThreshold = 256
	trailingLogs      = 64
	snapshotInterval  = 5 * time.Second
	// keptSnapshots is how many snapshots stay on disk: the second serves if the newest is damaged.
	keptSnapshots = 2
)

// Storage is what a replica writes to. The zero value means bolt and files in the data directory.
type Storage struct {
	Log       LogStore           // the raft log with its votes; the replica closes it
	Snapshots raft.SnapshotStore // of the state machine
	Compact   Compaction
}

// Compaction is when a snapshot replaces entries of the log. The zero value means 256 entries, 64
// trailing ones, and 5 seconds.
type Compaction struct {
	// Threshold is the number of entries after a snapshot at which the next one is taken.
	Threshold uint64
	// Trailing is the number of entries that stay in the log beside a snapshot, for followers that
	// are a little behind.
	Trailing uint64
	// Interval is the shortest time between two checks of the log's length; the longest is twice
	// that.
	Interval time.Duration
}

// apply sets the compaction in raft's configuration.
func (c Compaction) apply(conf *raft.Config) {
	conf.SnapshotThreshold, conf.TrailingLogs, conf.SnapshotInterval = snapshotThreshold, trailingLogs, snapshotInterval
	if c != (Compaction{}) {
		conf.SnapshotThreshold, conf.TrailingLogs, conf.SnapshotInterval = c.Threshold, c.Trailing, c.Interval
	}
}

// LogStore is raft's log and stable store in one. What a call has written survives a crash once the
// call has returned nil.
type LogStore interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// plantedNoChecksum is a bug that the simulation's tests plant to see that it is found: GetLog does
// not compare checksums. Nothing else sets it.
var plantedNoChecksum bool
