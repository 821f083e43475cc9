package coordinator

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
	"github.com/dptune/dpt/coordinator/replica"
	"github.com/dptune/dpt/dataset"
)

// Config is how a coordinator runs a job. Nothing in it changes the job's result.
type Config struct {
	Settings job.Settings
	// Serve runs the jobs that come by the queue, one after another until ctx ends, instead of one
	// of Settings. Out then has a directory for each, of its name.
	Serve bool
	// Nodes is how many workers to wait for before training starts.
	Nodes int
	// MinNodes is how many workers to go on with when others are lost.
	MinNodes int
	// Listener takes the workers' connections; the coordinator closes it.
	Listener net.Listener
	// Credentials secure the workers' connections; nil is plain text.
	Credentials credentials.TransportCredentials

	// Out is the output directory.
	Out string
	// DataDir holds the raft log, snapshots and large trainer states; "" is Out/state.
	DataDir string
	// Replication of nil: this replica is the only one.
	Replication *replica.Replication

	// CommitEvery is the number of steps between commits; 0 is 1: every step.
	CommitEvery int64
	// CommitWindow is how many steps may run ahead of the commit.
	CommitWindow int
	// HeartbeatTimeout is the silence after which a worker is lost.
	HeartbeatTimeout time.Duration
	// StepTimeout bounds one all-reduce.
	StepTimeout time.Duration
	LogExamples bool
	// Audit is the share of the micro-batches that two workers compute, 0 to 1.
	Audit float64

	Version  string
	Logger   *slog.Logger
	Progress Reporter

	// A simulation of a whole cluster puts these in place of the real thing. Zero is the real
	// thing.
	Storage Storage            // files in DataDir
	Dial    replica.DialFunc   // TCP, to the leader's port for workers
	Mark    func(point string) // called at the points that Marks names
}

// Storage is what a replica keeps: the raft log with its votes and the snapshots, and the large
// trainer states. The zero value means bolt and files in the data directory.
type Storage struct {
	replica.Storage
	// Blobs is the disk of the large trainer states.
	Blobs blobs.Disk
	// Inline is the size of the largest trainer state that entries and messages carry, in bytes; 0
	// is job.InlineState.
	Inline int
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

// queuedStateSize stands in for the size of the trainer state, which a queue's next job decides.
const queuedStateSize = 1 << 20

// blobDir is where the trainer states are that are too large for the log.
func (c *Config) blobDir() string { return filepath.Join(c.DataDir, "blobs") }

// workerAddr is where workers and other replicas reach this one's services.
func (c *Config) workerAddr() string {
	if r := c.Replication; r != nil && r.WorkerAddr != "" {
		return r.WorkerAddr
	}
	return c.Listener.Addr().String()
}

// dialReplica connects to the services of the replica at a worker-facing address.
func (c *Config) dialReplica(addr string) (*grpc.ClientConn, error) {
	return dial.Client(addr, c.Dial, grpc.WithTransportCredentials(c.Replication.LeaderCredentials()))
}

// Result is how a finished job ended.
type Result struct {
	Steps       ids.Step
	Epochs      []fsm.EpochStat
	Evaluations []fsm.Evaluation
	// Majority holds the metrics of the best constant answer on the evaluation split; nil for
	// several tasks and for ReCoRD.
	Majority dataset.Metrics
	// PromptStep is the step of prompt.safetensors.
	PromptStep  ids.Step
	Out         string
	StateDigest ids.Digest
	// AlreadyDone means that the data directory held the finished job.
	AlreadyDone bool
	// StoppedEarly is when and why the job finished before its last step; "" if it did not.
	StoppedEarly string
}

// StoppedError means that the job was stopped before its end and can be continued.
type StoppedError struct {
	Step, Total ids.Step
	DataDir     string
	Cause       error
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("stopped after committed step %d of %d; "+
		"the same command with data directory %s goes on from there", e.Step, e.Total, e.DataDir)
}

func (e *StoppedError) Unwrap() error { return e.Cause }

// FailedError means that the job has failed for good, because of its data, and that the log says
// so.
type FailedError = outputs.FailedError
