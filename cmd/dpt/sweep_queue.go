package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/localworkers"
	"github.com/dptune/dpt/cmd/internal/tlsconf"
	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/job"
)

// queue is the queue of the coordinator that --coord names. Without one it starts a coordinator
// with local workers, which runs until stop; if that fails, it calls abort.
func (f *sweepFlags) queue(
	ctx context.Context, abort context.CancelCauseFunc, logger *slog.Logger, std cli.IO,
) (q *remoteQueue, stop func(), err error) {
	if len(f.coord) > 0 {
		secure, err := f.security.Open(slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, nil, err
		}
		creds := secure.Toward(tlsconf.Coordinator).ClientCredentials("the coordinator", false)
		return &remoteQueue{addrs: f.coord, creds: creds, logger: logger}, func() {}, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen for workers: %w", err)
	}
	jobsLogger := logger.With("from", "coordinator")
	if !logger.Enabled(ctx, slog.LevelDebug) {
		jobsLogger = slog.New(warningsOnly{logger.Handler()}).With("from", "coordinator")
	}
	cfg := coordinator.Config{
		Serve: true, Nodes: f.nodes, MinNodes: 1, Listener: listener,
		Out: filepath.Join(f.out, "runs"), DataDir: filepath.Join(f.out, "state"),
		CommitEvery: 1, CommitWindow: 1,
		HeartbeatTimeout: coordinator.DefaultHeartbeatTimeout, StepTimeout: coordinator.DefaultStepTimeout,
		Version: cli.Version(), Logger: jobsLogger,
	}
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, err := coordinator.Run(runCtx, cfg); err != nil {
			abort(err)
		}
	}()
	addr := listener.Addr().String()
	workers := localworkers.Start(runCtx, abort, f.nodes, addr, &tlsconf.Flags{}, f.log, std.Err)
	stop = func() {
		workers.Stop()
		cancel()
		<-ended
	}
	return &remoteQueue{addrs: []string{addr}, creds: insecure.NewCredentials(), logger: logger}, stop, nil
}

// warningsOnly passes on warnings and errors. A coordinator logs too much about each of many short
// jobs.
type warningsOnly struct{ slog.Handler }

func (w warningsOnly) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}
func (w warningsOnly) WithAttrs(as []slog.Attr) slog.Handler {
	return warningsOnly{w.Handler.WithAttrs(as)}
}
func (w warningsOnly) WithGroup(name string) slog.Handler {
	return warningsOnly{w.Handler.WithGroup(name)}
}

// remoteQueue is a coordinator's queue over gRPC. It waits while the coordinator is unavailable.
type remoteQueue struct {
	addrs  []string
	creds  credentials.TransportCredentials
	logger *slog.Logger
	// nextWarning is when the next warning that the coordinator is unavailable is due; zero before
	// the first failure.
	nextWarning time.Time
}

// askRetryDelay is the time between two attempts to reach a coordinator that is unavailable. The
// first warning about it comes firstUnavailableLog after the first failure, so that an election is
// not worth one; unavailableLogInterval is the time between two warnings.
const (
	askRetryDelay          = 500 * time.Millisecond
	firstUnavailableLog    = 3 * time.Second
	unavailableLogInterval = 30 * time.Second
)

// askUntilAvailable puts a question to the coordinator, and again for as long as it is unavailable.
func askUntilAvailable[T any](ctx context.Context, q *remoteQueue, ask question[T]) (T, error) {
	for {
		answer, err := askReplicas(ctx, dial.Dialer{}, q.addrs, q.creds, ask)
		if err == nil || !isUnavailable(err) || ctx.Err() != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return answer, err
		}
		switch now := time.Now(); {
		case q.nextWarning.IsZero():
			q.nextWarning = now.Add(firstUnavailableLog)
		case now.After(q.nextWarning):
			q.logger.Warn("no coordinator; trying again until it is there", "reason", err)
			q.nextWarning = now.Add(unavailableLogInterval)
		}
		select {
		case <-time.After(askRetryDelay):
		case <-ctx.Done():
		}
	}
}

// Submit implements sweep.Jobs.
func (q *remoteQueue) Submit(ctx context.Context, name string, s job.Settings) error {
	request, err := s.Request()
	if err != nil {
		return err
	}
	_, err = askUntilAvailable(ctx, q, func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.Job, error) {
		return coordpb.NewJobsClient(c).Submit(ctx, &coordpb.SubmitJob{Name: name, Settings: request})
	})
	return err
}

// List implements sweep.Jobs.
func (q *remoteQueue) List(ctx context.Context, names []string) ([]*coordpb.Job, error) {
	listJobs := func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.JobList, error) {
		return coordpb.NewJobsClient(c).List(ctx, &coordpb.ListJobs{Evaluations: true, Names: names})
	}
	list, err := askUntilAvailable(ctx, q, listJobs)
	if err != nil {
		return nil, err
	}
	return list.Jobs, nil
}
