package replica

import (
	"io"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// snapshotThreshold is how many entries since the last snapshot call for the next one. A
	// snapshot replaces the log entries before it: with the whole trainer state in each entry (135
	// KB for T5-Large), 256 entries bound the log at some 40 MB.
	snapshotThreshold = 256
	trailingLogs      = 64
	snapshotInterval  = 5 * time.Second
	keptSnapshots     = 2
)

// Storage is what a replica keeps: the raft log with its votes, and the snapshots. The zero value
// means bolt and files in the data directory. The replica closes Log.
type Storage struct {
	Log       LogStore
	Snapshots raft.SnapshotStore
	Compact   Compaction
}

// Compaction is when a snapshot replaces entries of the log. The zero value means the product's
// numbers.
type Compaction struct {
	// Threshold is how many entries since the last snapshot call for the next one.
	Threshold uint64
	// Trailing is how many entries stay in the log all the same, for followers that are a little
	// behind.
	Trailing uint64
	// Interval is the time between looks at the log, at least; at most twice that.
	Interval time.Duration
}

func (c Compaction) apply(conf *raft.Config) {
	conf.SnapshotThreshold, conf.TrailingLogs, conf.SnapshotInterval = snapshotThreshold, trailingLogs, snapshotInterval
	if c != (Compaction{}) {
		conf.SnapshotThreshold, conf.TrailingLogs, conf.SnapshotInterval = c.Threshold, c.Trailing, c.Interval
	}
}

// LogStore is raft's log and stable store in one. Whatever a call that returned nil wrote survives
// a crash.
type LogStore interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// plantedNoChecksum is a bug that the simulation's tests plant to see that it is found: an entry of
// the log is taken as it is read. Nothing else sets it.
var plantedNoChecksum bool
