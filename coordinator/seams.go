package coordinator

import (
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/job"
)

// Storage is what a replica keeps: the raft log with its votes, and the snapshots. The zero value means bolt and
// files in the data directory. The replica closes Log.
type Storage struct {
	Log       LogStore
	Snapshots raft.SnapshotStore
	Blobs     blobs.Disk // large trainer states
	Compact   Compaction
	Inline    int // bytes of the largest trainer state that entries and messages carry; 0 is the product's number
}

// openBlobs opens the large trainer states: those on Blobs, or in dir.
func (s Storage) openBlobs(dir string, logger *slog.Logger) (*blobs.Store, error) {
	if s.Blobs == nil {
		return blobs.Open(dir, logger)
	}
	return blobs.OpenOn(s.Blobs, dir, logger)
}

// inline is Inline, or what stands for 0.
func (s Storage) inline() int {
	if s.Inline == 0 {
		return job.InlineState
	}
	return s.Inline
}

// Compaction says when a snapshot replaces entries of the log. Zeros mean the product's numbers.
type Compaction struct {
	Threshold uint64        // entries since the last snapshot that call for the next one
	Trailing  uint64        // entries that stay in the log all the same, for followers that are a little behind
	Interval  time.Duration // between looks at the log, at least; at most twice that
}

func (c Compaction) apply(conf *raft.Config) {
	conf.SnapshotThreshold, conf.TrailingLogs, conf.SnapshotInterval = snapshotThreshold, trailingLogs, snapshotInterval
	if c != (Compaction{}) {
		conf.SnapshotThreshold, conf.TrailingLogs, conf.SnapshotInterval = c.Threshold, c.Trailing, c.Interval
	}
}

// LogStore is raft's log and stable store in one. Whatever a call that returned nil wrote survives a crash.
type LogStore interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// The points at which a Mark is called: the places where a crash separates two effects that belong together.
const (
	BeforePropose  = "coordinator: before propose"         // nobody has heard of the entry
	AfterPropose   = "coordinator: after propose"          // it may or may not be in the log
	AfterCommit    = "coordinator: after commit"           // in the log, nobody told
	BeforeOutput   = "coordinator: before a metrics line"  // told to the controller, not in the outputs
	AfterOutput    = "coordinator: after a metrics line"   // in the outputs, next plan not sent
	HalfGeneration = "coordinator: half a generation sent" // one member knows of it
	HalfPlan       = "coordinator: half a plan sent"       // one rank has its plan
	BeforePrompts  = "coordinator: before the prompts"     // finished in the log, no prompt written
	AfterPrompts   = "coordinator: after the prompts"      // all written, workers not told
)

// Marks are all points in the order in which a job meets them.
func Marks() []string {
	return []string{BeforePropose, AfterPropose, AfterCommit, HalfGeneration, HalfPlan, BeforeOutput, AfterOutput, BeforePrompts, AfterPrompts}
}

// mark says that the process has reached a point.
func (c *Config) mark(point string) {
	if c.Mark != nil {
		c.Mark(point)
	}
}

// markHalf marks the middle of what is sent to n receivers, after receiver i.
func (c *Config) markHalf(point string, i, n int) {
	if i == (n-1)/2 {
		c.mark(point)
	}
}

// Bugs of the protocol that the simulation's tests plant here, to see that they are found. Nothing else sets them.
var (
	plantedNoAgreement bool // the first report counts, whatever digests the others have
	plantedStaleReport bool // a report of an ended generation counts for the present one
	plantedNoChecksum  bool // an entry of the log is taken as it is read
)
