package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
)

// Config is how a coordinator runs a job. Nothing in it changes the job's result.
type Config struct {
	Settings job.Settings
	// Serve runs the jobs that come by the queue, one after another until ctx ends, instead of one of Settings. Out then has a
	// directory for each, of its name.
	Serve    bool
	Nodes    int          // workers to wait for before training starts
	MinNodes int          // workers to go on with when others are lost
	Listener net.Listener // for workers; the coordinator closes it
	// Credentials secure the workers' connections; nil is plain text.
	Credentials credentials.TransportCredentials

	Out     string // output directory
	DataDir string // raft log, snapshots and large trainer states; "" is Out/state

	Replication *Replication // nil: this replica is the only one

	CommitEvery      int64         // steps between commits; 0 is 1: every step
	CommitWindow     int           // steps that may run ahead of the commit
	HeartbeatTimeout time.Duration // silence after which a worker is given up
	StepTimeout      time.Duration // bound on one all-reduce
	LogExamples      bool
	Audit            float64 // share of the micro-batches that two workers compute, 0 to 1

	Version  string
	Logger   *slog.Logger
	Progress Reporter

	// What a simulation of a whole cluster puts in place of the real thing. Zero means the real thing.
	Storage Storage            // files in DataDir
	Dial    DialFunc           // TCP, to the leader's port for workers
	Mark    func(point string) // called at the points that Marks names
}

// maxMessage bounds one message. A trainer state of more than job.InlineState goes in pieces.
const maxMessage = 64 << 20

// queuedState stands in for the size of the trainer state, which a queue's next job decides.
const queuedState = 1 << 20

// blobDir is where the trainer states are that are too large for the log.
func (c *Config) blobDir() string { return filepath.Join(c.DataDir, "blobs") }

// workerAddr is where workers and other replicas reach this one's services.
func (c *Config) workerAddr() string {
	if r := c.Replication; r != nil && r.WorkerAddr != "" {
		return r.WorkerAddr
	}
	return c.Listener.Addr().String()
}

// beat is the time between heartbeats in a session, in either direction.
func (c *Config) beat() time.Duration { return c.HeartbeatTimeout / 5 }

// Result is how a finished job ended.
type Result struct {
	Steps       ids.Step
	Epochs      []fsm.EpochStat
	Evaluations []fsm.Evaluation
	Majority    dataset.Metrics // of the best constant guess on the evaluation split; nil for several tasks and for ReCoRD
	PromptStep  ids.Step        // of prompt.safetensors
	Out         string
	StateDigest ids.Digest
	AlreadyDone bool // the data directory held the finished job
	// StoppedEarly says when and why the job finished before its last step; "" if it did not.
	StoppedEarly string
}

// StoppedError says that the job was stopped before its end and can be continued.
type StoppedError struct {
	Step, Total ids.Step
	DataDir     string
	Cause       error
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("stopped after committed step %d of %d; the same command with data directory %s goes on from there", e.Step, e.Total, e.DataDir)
}

func (e *StoppedError) Unwrap() error { return e.Cause }

// FailedError says that the job has failed for good, because of its data, and that the log says so.
type FailedError struct {
	fsm.Failure
	Committed, Total ids.Step
	DataDir          string
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("the job failed at step %d of %d: %s; the same data would fail again: correct it and start the job with another --out or --data-dir (steps 1 to %d are committed and kept in %s)",
		e.Step, e.Total, e.Reason, e.Committed, e.DataDir)
}

// Run takes part in the job until it is finished, ctx is cancelled (a *StoppedError), it has failed for good (a *FailedError), this
// replica cannot go on or, where it leads, the job cannot. It closes the listeners.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	defer cfg.Listener.Close()
	if r := cfg.Replication; r != nil {
		defer r.Listener.Close()
	}
	if cfg.MinNodes < 1 || cfg.Nodes < cfg.MinNodes {
		return nil, fmt.Errorf("%d workers to start and at least %d to go on, want 1 <= min-nodes <= nodes", cfg.Nodes, cfg.MinNodes)
	}
	if cfg.DataDir == "" {
		cfg.DataDir = filepath.Join(cfg.Out, "state")
	}
	if cfg.Credentials == nil {
		cfg.Credentials = insecure.NewCredentials()
	}
	if cfg.Progress == nil {
		cfg.Progress = Silent{}
	}
	cfg.Progress = &oneByOne{to: cfg.Progress}
	cfg.CommitEvery = max(1, cfg.CommitEvery)
	var own *job.Job
	stateSize := queuedState
	if !cfg.Serve {
		var err error
		if own, err = job.Load(cfg.Settings, cfg.Logger); err != nil {
			return nil, err
		}
		stateSize = min(own.Spec.StateSize(), cfg.Storage.inline())
	}
	store, err := cfg.Storage.openBlobs(cfg.blobDir(), cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", cfg.DataDir, err)
	}
	n, err := openNode(cfg.DataDir, cfg.Storage, cfg.Replication, stateSize, cfg.Logger)
	if err != nil {
		return nil, err
	}
	p := &process{cfg: &cfg, job: own, node: n}
	if cfg.Serve {
		p.library = &library{logger: cfg.Logger}
	}
	p.states = newStates(&cfg, n, store, p.loadedJob)
	p.front = newFront(n, p.states, cfg.Serve, cfg.Logger)
	if !cfg.Serve {
		p.recorder = newRecorder(&cfg, own, n, p.states)
	}
	err = p.run(ctx)
	if cerr := n.close(); cerr != nil && err == nil {
		err = fmt.Errorf("close the raft log in %s: %w", cfg.DataDir, cerr)
	}
	return p.result(ctx, err)
}

// result is what Run returns after the replica has stopped.
func (p *process) result(ctx context.Context, err error) (*Result, error) {
	if p.cfg.Serve {
		if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
			err = nil
		}
		return &Result{Out: p.cfg.Out}, err
	}
	res := &Result{Out: p.cfg.Out, AlreadyDone: p.recorder.already}
	if len(p.job.EvalSplits) == 1 {
		majority, merr := p.job.EvalSplits[0].Majority()
		err = errors.Join(err, merr)
		res.Majority = majority
	}
	var total ids.Step
	p.node.view(func(m *fsm.Machine) {
		res.Steps, res.Epochs, res.Evaluations, res.StateDigest, res.PromptStep = m.Step(), m.Epochs(), m.Evaluations(), m.StateDigest(), m.Step()
		if b := m.Best(); b != nil {
			res.PromptStep = b.Step
		}
		total, res.StoppedEarly = m.TotalSteps(), m.StoppedEarly()
	})
	var failed *FailedError
	switch {
	case err == nil:
		return res, nil
	case errors.As(err, &failed):
		return nil, err
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return nil, &StoppedError{Step: res.Steps, Total: total, DataDir: p.cfg.DataDir, Cause: err}
	case total == 0:
		return nil, err
	}
	return nil, fmt.Errorf("%w (steps 1 to %d of %d are committed and kept in %s)", err, res.Steps, total, p.cfg.DataDir)
}
