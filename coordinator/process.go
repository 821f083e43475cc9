package coordinator

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/coordinator/blobsync"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
	"github.com/dptune/dpt/coordinator/replica"
)

// Run takes part in the job until it is finished, ctx is cancelled (a *StoppedError), it has failed
// for good (a *FailedError), this replica cannot go on or, where it leads, the job cannot. It
// closes the listeners.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	defer cfg.Listener.Close()
	if r := cfg.Replication; r != nil {
		defer r.Listener.Close()
	}
	if cfg.MinNodes < 1 || cfg.Nodes < cfg.MinNodes {
		return nil, fmt.Errorf("%d workers to start and at least %d to go on, want 1 <= min-nodes <= nodes",
			cfg.Nodes, cfg.MinNodes)
	}
	p, err := open(&cfg)
	if err != nil {
		return nil, err
	}
	err = p.run(ctx)
	if cerr := p.node.Close(); cerr != nil && err == nil {
		err = fmt.Errorf("close the raft log in %s: %w", cfg.DataDir, cerr)
	}
	return p.result(ctx, err)
}

var (
	// errBroken means that this replica cannot be trusted to keep what it is told.
	errBroken = errors.New("this replica cannot go on")
	// errRemoved means that raft has taken this replica out.
	errRemoved = errors.New("this replica was removed from the coordinator; the others go on without it")
)

// process is one replica of the coordinator at work.
type process struct {
	cfg      *Config
	job      *job.Job          // nil where jobs come by the queue
	cache    *job.Cache        // of the queue's jobs; nil where there is one job
	recorder *outputs.Recorder // of job; nil where jobs come by the queue
	node     *replica.Node
	blobs    *blobsync.Sync
	service  *service
}

// open loads the job, if it is one, and opens this replica's data directory. It completes cfg.
func open(cfg *Config) (*process, error) {
	if cfg.DataDir == "" {
		cfg.DataDir = filepath.Join(cfg.Out, "state")
	}
	if cfg.Credentials == nil {
		cfg.Credentials = insecure.NewCredentials()
	}
	if cfg.Progress == nil {
		cfg.Progress = Silent{}
	}
	cfg.Progress = &serialReporter{to: cfg.Progress}
	cfg.CommitEvery = max(1, cfg.CommitEvery)

	p := &process{cfg: cfg}
	stateSize := queuedStateSize
	if cfg.Serve {
		p.cache = &job.Cache{Logger: cfg.Logger}
	} else {
		var err error
		if p.job, err = job.Load(cfg.Settings, cfg.Logger); err != nil {
			return nil, err
		}
		stateSize = min(p.job.Spec.StateSize(), cfg.Storage.inline())
	}
	store, err := cfg.Storage.openBlobs(cfg.blobDir(), cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", cfg.DataDir, err)
	}
	p.node, err = replica.Open(cfg.DataDir, cfg.Storage.Storage, cfg.Replication, stateSize, cfg.Logger)
	if err != nil {
		return nil, err
	}
	p.blobs = blobsync.New(blobsync.Options{
		Node:       p.node,
		Blobs:      store,
		Dir:        cfg.blobDir(),
		WorkerAddr: cfg.workerAddr(),
		Serve:      cfg.Serve,
		LoadedJob:  p.loadedJob,
		Dial:       cfg.dialReplica,
		Introduced: introduced,
		Silence:    cfg.HeartbeatTimeout,
		Logger:     cfg.Logger,
	})
	p.service = newService(p.node, p.blobs, cfg.Serve, cfg.Logger)
	if !cfg.Serve {
		p.recorder = outputs.NewRecorder(p.outputs(), p.job)
	}
	return p, nil
}

// outputs are the recorder's options.
func (p *process) outputs() outputs.Options {
	return outputs.Options{
		Node:        p.node,
		Blobs:       p.blobs,
		Dir:         p.cfg.Out,
		DataDir:     p.cfg.DataDir,
		Serve:       p.cfg.Serve,
		LogExamples: p.cfg.LogExamples,
		Version:     p.cfg.Version,
		Progress:    p.cfg.Progress,
		Mark:        p.cfg.Mark,
		Logger:      p.cfg.Logger,
	}
}

// loadedJob returns the job that this replica has loaded last; nil if it has loaded none.
func (p *process) loadedJob() *job.Job {
	if p.cache != nil {
		return p.cache.Loaded()
	}
	return p.job
}

// task is a goroutine and what it returned.
type task struct {
	done chan struct{}
	err  error // valid after done
}

func start(f func() error) *task {
	t := &task{done: make(chan struct{})}
	go func() { defer close(t.done); t.err = f() }()
	return t
}

// run serves workers and the other replicas, records what is committed, and leads whenever raft
// says so.
func (p *process) run(ctx context.Context) error {
	srv := p.newServer()
	serving := start(func() error {
		strangers := max(maxStrangers, 2*p.cfg.Nodes)
		return srv.Serve(newAdmission(p.cfg.Listener, strangers, p.cfg.Logger))
	})
	recordCtx, stopRecorder := context.WithCancel(context.WithoutCancel(ctx))
	recording := start(func() error {
		if p.cfg.Serve {
			return outputs.RecordQueue(recordCtx, p.outputs(), p.cache)
		}
		return p.recorder.Run(recordCtx)
	})
	syncCtx, stopSync := context.WithCancel(context.WithoutCancel(ctx))
	syncing := start(func() error { return p.blobs.Run(syncCtx) })

	err := p.supervise(ctx, serving, recording)

	// The recorder may still want blobs, and workers the word that the job is over.
	stopRecorder()
	<-recording.done
	stopSync()
	<-syncing.done
	stopped := start(func() error { srv.GracefulStop(); return nil })
	select {
	case <-stopped.done:
	case <-time.After(finishGrace):
		srv.Stop()
		<-stopped.done
	}
	<-serving.done
	return err
}

// newServer is the gRPC server of the port for workers and clients.
func (p *process) newServer() *grpc.Server {
	srv := grpc.NewServer(
		grpc.Creds(p.cfg.Credentials),
		grpc.ConnectionTimeout(connectionTimeout),
		grpc.MaxRecvMsgSize(coordpb.MaxMessage),
		grpc.MaxSendMsgSize(coordpb.MaxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.UnaryInterceptor(introduceUnary),
		grpc.StreamInterceptor(introduceStream),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTimeout,
			Time:              p.cfg.HeartbeatTimeout,
			Timeout:           p.cfg.HeartbeatTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             time.Second,
			PermitWithoutStream: true,
		}),
	)
	coordpb.RegisterCoordinatorServer(srv, p.service)
	coordpb.RegisterReplicasServer(srv, p.service)
	coordpb.RegisterJobsServer(srv, p.service)
	coordpb.RegisterBlobsServer(srv, p.blobs)
	return srv
}

// supervise is the replica's main loop. It returns nil when the job is finished and this replica
// may go, and a *FailedError when the job has failed and it may go.
func (p *process) supervise(ctx context.Context, serving, recording *task) (err error) {
	var current *term            // nil while this replica does not lead
	var termOver <-chan struct{} // the term's end, until it is seen
	recorded := recording.done   // until it is seen
	var failed *FailedError      // the job has failed for good; valid once recorded is seen
	var reported bool            // the leader knows that this replica has finished
	var linger <-chan time.Time  // when this finished replica stops waiting for the others
	defer func() { p.endTerm(current, ctx.Err() != nil, err) }()
	ticker := time.NewTicker(superviseInterval)
	defer ticker.Stop()
	for {
		select {
		case lead := <-p.node.Leadership():
			if current != nil {
				current.stop(replica.ErrDeposed)
				if <-current.done; endsProcess(current.err) {
					return current.err
				}
				current, termOver = nil, nil
			}
			reported = false
			if lead {
				current = p.startTerm(ctx)
				termOver = current.done
			}
		case <-termOver:
			if termOver = nil; endsProcess(current.err) {
				return current.err
			}
		case <-recorded:
			recorded = nil
			if p.cfg.Serve || recording.err != nil && !errors.As(recording.err, &failed) {
				return recording.err
			}
			linger = time.After(lingerTimeout)
			ticker.Reset(lingerPoll)
		case err := <-p.node.Broken():
			return fmt.Errorf("%w: %w", errBroken, err)
		case <-serving.done:
			return fmt.Errorf("serve workers on %s: %w", p.cfg.Listener.Addr(), serving.err)
		case <-ticker.C:
			if p.node.Stopped() {
				return errRemoved
			}
			if recorded == nil && !reported && !p.node.IsLeader() {
				reported = p.reportFinished(ctx)
			}
		case <-linger:
			p.cfg.Logger.Warn("the job is over; other replicas have not said that they have its outputs; "+
				"started again, they get them from this one", "waited", lingerTimeout)
			return outcome(failed)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if recorded == nil && termOver == nil && (reported || p.noReplicaWaits()) {
			return outcome(failed)
		}
	}
}

// outcome is how a job that is over has ended: nil if it has not failed.
func outcome(failed *FailedError) error {
	if failed != nil {
		return failed
	}
	return nil
}

// endsProcess reports whether a term's end is the end of this process.
func endsProcess(err error) bool { return err != nil && !errors.Is(err, replica.ErrDeposed) }

// noReplicaWaits reports whether no other replica needs this one, which has finished.
func (p *process) noReplicaWaits() bool {
	if p.node.Alone() {
		return true
	}
	if !p.node.IsLeader() {
		return false
	}
	others, err := p.service.unfinishedReplicas()
	return err == nil && len(others) == 0
}

// reportFinished tells the leader that this replica has finished, and reports whether the leader
// knows.
func (p *process) reportFinished(ctx context.Context) bool {
	_, addr := p.node.Leader()
	if addr == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	conn, err := p.cfg.dialReplica(addr)
	if err == nil {
		defer conn.Close()
		_, err = coordpb.NewReplicasClient(conn).Finished(ctx, &coordpb.ReplicaFinished{Id: p.node.ID()})
	}
	if err != nil {
		p.cfg.Logger.Debug("leader not told that this replica has finished", "leader", addr, "reason", dial.Reason(err))
		return false
	}
	return true
}

// result is what Run returns after the replica has stopped.
func (p *process) result(ctx context.Context, err error) (*Result, error) {
	stopped := ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
	if p.cfg.Serve {
		if stopped {
			err = nil
		}
		return &Result{Out: p.cfg.Out}, err
	}
	res := &Result{Out: p.cfg.Out, AlreadyDone: p.recorder.AlreadyOver()}
	if len(p.job.EvalSplits) == 1 {
		majority, merr := p.job.EvalSplits[0].Majority()
		err = errors.Join(err, merr)
		res.Majority = majority
	}
	s := p.node.Status()
	p.node.View(func(m *fsm.Machine) {
		res.Steps = m.Step()
		res.Epochs = m.Epochs()
		res.Evaluations = m.Evaluations()
		res.StateDigest = m.StateDigest()
		res.StoppedEarly = m.StoppedEarly()
		res.PromptStep = m.Step()
		if b := m.Best(); b != nil {
			res.PromptStep = b.Step
		}
	})
	var failed *FailedError
	switch {
	case err == nil:
		return res, nil
	case errors.As(err, &failed):
		return nil, err
	case stopped:
		return nil, &StoppedError{Step: res.Steps, Total: s.TotalSteps, DataDir: p.cfg.DataDir, Cause: err}
	case !s.Started:
		return nil, err
	}
	return nil, fmt.Errorf("%w (steps 1 to %d of %d are committed and kept in %s)",
		err, res.Steps, s.TotalSteps, p.cfg.DataDir)
}
