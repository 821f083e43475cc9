package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/job"
)

const (
	// connectionTimeout bounds the handshakes of a new connection.
	connectionTimeout = 15 * time.Second
	// finishGrace bounds the wait for workers to read that the job is over.
	finishGrace = 3 * time.Second
	// lingerTimeout bounds the wait of a finished replica for the others to finish too.
	lingerTimeout = 10 * time.Second
	// lingerPoll is how often it asks.
	lingerPoll = 100 * time.Millisecond
	// brokenGrace bounds the wait for the controller to stop after the replica's disk has failed.
	brokenGrace = 3 * time.Second
	// watchInterval is how often raft is looked at for having stopped by itself.
	watchInterval = 500 * time.Millisecond
)

var (
	// errBroken says that this replica cannot be trusted to keep what it is told.
	errBroken = errors.New("this replica cannot go on")
	// errRemoved says that raft has taken this replica out.
	errRemoved = errors.New("this replica was removed from the coordinator; the others go on without it")
)

// process is one replica of the coordinator at work.
type process struct {
	cfg      *Config
	job      *job.Job // nil where jobs come by the queue
	node     *node
	recorder *recorder // of job
	library  *library  // of the queue's jobs
	states   *states
	front    *front
}

// loadedJob is the job that this replica has loaded last; nil if it has loaded none.
func (p *process) loadedJob() *job.Job {
	if p.library != nil {
		return p.library.loaded()
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

// term is one time of this replica's leading.
type term struct {
	*task
	stop context.CancelCauseFunc
}

// run serves workers and the other replicas, records what is committed, and leads whenever raft says so.
func (p *process) run(ctx context.Context) error {
	srv := grpc.NewServer(
		grpc.Creds(p.cfg.Credentials), grpc.ConnectionTimeout(connectionTimeout),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams), grpc.UnaryInterceptor(introduceUnary), grpc.StreamInterceptor(introduceStream),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTime, Time: p.cfg.HeartbeatTimeout, Timeout: p.cfg.HeartbeatTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	coordpb.RegisterCoordinatorServer(srv, p.front)
	coordpb.RegisterReplicasServer(srv, p.front)
	coordpb.RegisterJobsServer(srv, p.front)
	coordpb.RegisterBlobsServer(srv, p.front)
	serving := start(func() error {
		return srv.Serve(newGate(p.cfg.Listener, max(maxStrangers, 2*p.cfg.Nodes), p.cfg.Logger))
	})
	recordCtx, stopRecorder := context.WithCancel(context.WithoutCancel(ctx))
	record := p.recordQueue
	if !p.cfg.Serve {
		record = p.recorder.run
	}
	recording := start(func() error { return record(recordCtx) })
	keepCtx, stopKeeper := context.WithCancel(context.WithoutCancel(ctx))
	keeping := start(func() error { return p.states.run(keepCtx) })

	err := p.watch(ctx, serving, recording)
	stopRecorder()
	<-recording.done
	stopKeeper()
	<-keeping.done
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

// watch is the replica's main loop. It returns nil when the job is finished and this replica may go, and a *FailedError when the
// job has failed and it may go.
func (p *process) watch(ctx context.Context, serving, recording *task) (err error) {
	var now *term                 // nil while this replica does not lead
	var over <-chan struct{}      // the term's end, until it is seen
	recorded := recording.done    // until it is seen
	var patience <-chan time.Time // of a finished replica with the others
	var told bool                 // the leader knows that this replica has finished
	var failed *FailedError       // the job has, for good
	defer func() { p.endTerm(now, ctx.Err() != nil, err) }()
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case lead := <-p.node.leadership:
			if now != nil {
				now.stop(errDeposed)
				if <-now.done; fatal(now.err) {
					return now.err
				}
				now, over = nil, nil
			}
			if told = false; lead {
				now = p.lead(ctx)
				over = now.done
			}
		case <-over:
			if over = nil; fatal(now.err) {
				return now.err
			}
		case <-recorded:
			if recorded = nil; p.cfg.Serve || recording.err != nil && !errors.As(recording.err, &failed) {
				return recording.err
			}
			patience = time.After(lingerTimeout)
			ticker.Reset(lingerPoll)
		case err := <-p.node.broken:
			return fmt.Errorf("%w: %w", errBroken, err)
		case <-serving.done:
			return fmt.Errorf("serve workers on %s: %w", p.cfg.Listener.Addr(), serving.err)
		case <-ticker.C:
			if p.node.raft.State() == raft.Shutdown {
				return errRemoved
			}
			if recorded == nil && !told && p.node.raft.State() != raft.Leader {
				told = p.tell(ctx)
			}
		case <-patience:
			p.cfg.Logger.Warn("the job is over; other replicas have not said that they have its outputs; started again, they get them from this one", "waited", lingerTimeout)
			return verdict(failed)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if recorded == nil && over == nil && (told || p.lastOne()) {
			return verdict(failed)
		}
	}
}

// verdict is how a job that is over has ended.
func verdict(failed *FailedError) error {
	if failed != nil {
		return failed
	}
	return nil
}

// fatal says whether a term's end is the end of this process.
func fatal(err error) bool { return err != nil && !errors.Is(err, errDeposed) }

// endTerm ends this replica's leading before it stops, and lets another replica lead at once.
func (p *process) endTerm(t *term, stopped bool, err error) {
	if t == nil {
		return
	}
	broken := errors.Is(err, errBroken)
	if broken {
		// raft may have lost the goroutine that the controller waits for; stopping it wakes both.
		p.node.raft.Shutdown()
	}
	t.stop(err)
	var patience <-chan time.Time
	if broken {
		patience = time.After(brokenGrace)
	}
	select {
	case <-t.done:
	case <-patience:
	}
	if !broken && (stopped || err != nil) {
		p.node.handOver(p.cfg.Logger)
	}
}
