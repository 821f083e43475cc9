package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

// Config is how a coordinator runs a job. Nothing in it changes the job's result.
type Config struct {
	Settings Settings
	Nodes    int // workers to wait for before training starts
	MinNodes int // workers to go on with when others are lost
	Listener net.Listener
	Out      string // output directory
	DataDir  string // raft log and snapshots; "" is Out/state

	CommitWindow     int           // steps that may run ahead of the commit
	HeartbeatTimeout time.Duration // silence after which a worker is given up
	StepTimeout      time.Duration // bound on one all-reduce
	LogExamples      bool

	Version  string
	Logger   *slog.Logger
	Progress Reporter

	// What a simulation of a whole cluster puts in place of the real thing. Zero means the real thing.
	Storage Storage            // files in DataDir
	Mark    func(point string) // called at the points that Marks names
}

const (
	// maxMessage bounds one message: a trainer state of five million parameters fits.
	maxMessage = 64 << 20
	// finishGrace bounds the wait for workers to read that the job is over.
	finishGrace = 3 * time.Second
	// leaderTimeout bounds the wait for this replica to lead after a start.
	leaderTimeout = 30 * time.Second
)

// Result is how a finished job ended.
type Result struct {
	Steps       fsm.Step
	Epochs      []fsm.EpochStat
	Evaluations []fsm.Evaluation
	PromptStep  fsm.Step // of prompt.safetensors
	Out         string
	StateDigest fsm.Digest
	AlreadyDone bool // the data directory held the finished job
}

// StoppedError says that the job was stopped before its end and can be continued.
type StoppedError struct {
	Step, Total fsm.Step
	DataDir     string
	Cause       error
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("stopped after committed step %d of %d; the same command with data directory %s goes on from there", e.Step, e.Total, e.DataDir)
}

func (e *StoppedError) Unwrap() error { return e.Cause }

// Run serves workers until the job is finished, ctx is cancelled (a *StoppedError) or the job cannot go on. It closes
// the listener.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	defer cfg.Listener.Close()
	if cfg.MinNodes < 1 || cfg.Nodes < cfg.MinNodes {
		return nil, fmt.Errorf("%d workers to start and at least %d to go on, want 1 <= min-nodes <= nodes", cfg.Nodes, cfg.MinNodes)
	}
	if cfg.DataDir == "" {
		cfg.DataDir = filepath.Join(cfg.Out, "state")
	}
	if cfg.Progress == nil {
		cfg.Progress = Silent{}
	}
	job, err := LoadJob(cfg.Settings, cfg.Logger)
	if err != nil {
		return nil, err
	}
	n, err := openNode(cfg.DataDir, cfg.Storage, cfg.Logger)
	if err != nil {
		return nil, err
	}
	res, err := runOn(ctx, &cfg, job, n)
	if cerr := n.close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close the raft log in %s: %w", cfg.DataDir, cerr))
	}
	if err != nil {
		return nil, err
	}
	return res, nil
}

func runOn(ctx context.Context, cfg *Config, job *Job, n *node) (*Result, error) {
	if err := n.awaitLeader(ctx); err != nil {
		return nil, err
	}
	if err := n.startJob(job, cfg.DataDir); err != nil {
		return nil, err
	}
	var step, total fsm.Step
	var finished bool
	var recent []fsm.StepRecord
	n.view(func(m *fsm.Machine) {
		step, total, finished = m.Step(), m.TotalSteps(), m.Finished()
		recent = slices.Clone(m.Recent())
	})
	out, err := openOutputs(cfg.Out, job, cfg.LogExamples, step, recent)
	if err != nil {
		return nil, err
	}
	defer out.close()
	n.view(func(m *fsm.Machine) {
		err = errors.Join(out.evaluations(m.Evaluations()), out.describe(m, cfg.Version))
	})
	if err != nil {
		return nil, err
	}
	if step > 0 && !finished {
		cfg.Logger.Info("job goes on from its committed step", "step", step, "of", total, "data_dir", cfg.DataDir)
	}
	if !finished {
		cfg.Progress.Start(job.Spec, step, total)
		err = serve(ctx, cfg, job, n, out)
		cfg.Progress.Stop()
	}
	if err != nil {
		n.view(func(m *fsm.Machine) { step = m.Step(); err = errors.Join(err, out.describe(m, cfg.Version)) })
		if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
			return nil, &StoppedError{Step: step, Total: total, DataDir: cfg.DataDir, Cause: err}
		}
		return nil, fmt.Errorf("%w (steps 1 to %d of %d are committed and kept in %s)", err, step, total, cfg.DataDir)
	}
	res := &Result{Out: cfg.Out, AlreadyDone: finished}
	cfg.mark(BeforePrompts)
	n.view(func(m *fsm.Machine) {
		err = errors.Join(out.prompts(m), out.describe(m, cfg.Version))
		res.Steps, res.Epochs, res.Evaluations, res.StateDigest, res.PromptStep = m.Step(), m.Epochs(), m.Evaluations(), m.StateDigest(), m.Step()
		if b := m.Best(); b != nil {
			res.PromptStep = b.Step
		}
	})
	cfg.mark(AfterPrompts)
	return res, err
}

// serve takes workers and runs the job to its end.
func serve(ctx context.Context, cfg *Config, job *Job, n *node, out *outputs) error {
	c := newController(cfg, job, n, out)
	closed := make(chan struct{})
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: cfg.HeartbeatTimeout, Timeout: cfg.HeartbeatTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	coordpb.RegisterCoordinatorServer(srv, &server{events: c.events, version: cfg.Version, logger: cfg.Logger, closed: closed})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(cfg.Listener) }()

	loopCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var serveErr error
	go func() {
		if serveErr = <-served; serveErr != nil && !errors.Is(serveErr, grpc.ErrServerStopped) {
			stop(fmt.Errorf("serve workers on %s: %w", cfg.Listener.Addr(), serveErr))
		}
		close(served)
	}()
	err := c.loop(loopCtx)
	close(closed)
	c.dismiss(err, ctx.Err() != nil)
	graceful := make(chan struct{})
	go func() { srv.GracefulStop(); close(graceful) }()
	select {
	case <-graceful:
	case <-time.After(finishGrace):
		srv.Stop()
		<-graceful
	}
	for range served {
	}
	return err
}

// dismiss tells every worker how the job ended: finished, stopped (they may wait for the next coordinator), or failed.
func (c *controller) dismiss(err error, stopped bool) {
	var step fsm.Step
	c.node.view(func(m *fsm.Machine) { step = m.Step() })
	for _, s := range c.sessions {
		switch {
		case err == nil:
			s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Finish{Finish: &coordpb.Finish{Steps: int64(step)}}})
		case stopped:
			s.close(codes.Unavailable, "the coordinator is stopping after step %d", step)
		default:
			s.close(codes.Aborted, "the job failed: %v", err)
		}
	}
}

// awaitLeader waits until this replica leads and has applied its whole log.
func (n *node) awaitLeader(ctx context.Context) error {
	timeout := time.NewTimer(leaderTimeout)
	defer timeout.Stop()
	for {
		select {
		case lead := <-n.leader:
			if !lead {
				continue
			}
			if err := n.raft.Barrier(leaderTimeout).Error(); err != nil {
				return fmt.Errorf("apply the raft log: %w", err)
			}
			return nil
		case <-timeout.C:
			return fmt.Errorf("raft: no leader within %v, state %v", leaderTimeout, n.raft.State())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// startJob puts the job into the log, or checks that the log holds the same one. job takes the log's id.
func (n *node) startJob(job *Job, dir string) error {
	var started bool
	var diff string
	var err error
	n.view(func(m *fsm.Machine) {
		if started = m.Started(); started {
			job.ID = m.JobID()
			diff, err = diffSpec(m.Spec(), job.Spec)
		}
	})
	switch {
	case err != nil:
		return fmt.Errorf("data directory %s: %w", dir, err)
	case diff != "":
		return fmt.Errorf("data directory %s holds another job: %s; use another --out or --data-dir, or the settings it was started with", dir, diff)
	case started:
		return nil
	}
	state, err := job.Initial.MarshalBinary()
	if err != nil {
		return fmt.Errorf("initial state: %w", err)
	}
	digest := fsm.Sum(state)
	return committed(n.propose(&fsmpb.Entry{Body: &fsmpb.Entry_JobStarted{JobStarted: &fsmpb.JobStarted{
		JobId: job.ID, Spec: job.Spec.Canonical(), TotalSteps: job.Spec.Steps, StepsPerEpoch: job.Spec.StepsPerEpoch, State: state, StateDigest: digest[:],
	}}}))
}
