// Package worker is one worker of a job: it joins a coordinator, loads the backbone that the job
// names, and then, for every step, computes the gradient of its share of the global batch,
// all-reduces it with the other workers, applies the update and reports.
//
// A worker keeps nothing but the backbone and, until a step is committed, the contributions that it
// has computed for that step. The trainer state reaches it with each generation, the tokenized
// examples with each plan. Recovery is one path, whatever goes wrong: the generation ends, the
// coordinator starts another, and the worker resumes from the state that the coordinator sends.
// While no coordinator answers, the worker keeps trying.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/allreduce"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/tiny"
)

// Config is how a worker runs.
type Config struct {
	// Coordinators are the host:port of each replica. A name with several addresses stands for all
	// of them.
	Coordinators []string
	ID           string       // unique among the job's workers
	Listener     net.Listener // for ring streams; the worker closes it
	// Advertise is the host:port at which ring neighbours reach Listener. Empty means its own
	// address.
	Advertise string
	// Model is the backbone's path on this machine. Empty means the path that the coordinator
	// names.
	Model   string
	Options model.Options
	Version string // of this build, for messages to people
	Logger  *slog.Logger

	Credentials Credentials

	// Test hooks: what a simulation of a whole cluster replaces. Zero means the real thing.

	// Dial replaces TCP, to the coordinator and to ring neighbours.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Open replaces model.Open.
	Open func(dir string, options model.Options) (backbone Backbone, err error)
	// Mark is called at the points that Marks names.
	Mark func(point string)
}

// Credentials secure a worker's connections; where one is nil, they are in plain text.
type Credentials struct {
	// Coordinator is for the session. If it is a Refuser and all replicas refuse the worker before
	// any has ever welcomed it, Run ends: to try again would not help. Later refusals do not end
	// it, as a certificate may be about to be replaced.
	Coordinator credentials.TransportCredentials
	// RingServer is for connections from ring neighbours, RingClient for those to them. If
	// RingClient is a Refuser, a refusal ends the generation, and the worker tells the coordinator
	// why.
	RingServer, RingClient credentials.TransportCredentials
}

// Refuser is implemented by credentials that know why a connection was refused.
type Refuser interface {
	// Refusal returns why the latest connection to addr (host:port) was refused, by either side. It
	// returns nil if the connection was not refused, failed for another reason, or if Refusal was
	// asked about it before.
	Refusal(addr string) error
}

const (
	// firstRetry and maxRetry bound the pause before the worker asks the replicas again. The pause
	// doubles each time, and half of it is random.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 2 * time.Second
	// warnInterval is the least time between two warnings that no coordinator answers.
	warnInterval = 30 * time.Second
)

// worker is the state that outlives a session. The goroutine that runs Run writes its fields, but
// for contributions and trainer's contents, which belong to the generation that is running.
type worker struct {
	Config
	hostname      string
	ring          *allreduce.Node
	backbone      Backbone // nil before the first job
	backbonePath  string   // the path that backbone was loaded from
	contributions contributionCache
	trainer       *trainer // the last session's, for its memory and its state; nil before the first
	welcomed      bool     // a coordinator has welcomed this worker before
}

// Run works until the job is finished (nil), ctx is cancelled (its cause), or the coordinator
// refuses the worker for good or this machine fails (why).
func Run(ctx context.Context, cfg Config) (err error) {
	w := &worker{Config: cfg}
	if w.hostname, err = os.Hostname(); err != nil {
		w.hostname = "unknown host"
	}
	for _, c := range []*credentials.TransportCredentials{
		&w.Credentials.Coordinator, &w.Credentials.RingServer, &w.Credentials.RingClient,
	} {
		if *c == nil {
			*c = insecure.NewCredentials()
		}
	}
	if w.ring, err = allreduce.NewNode(allreduce.Config{
		Listener:        cfg.Listener,
		Logger:          cfg.Logger,
		MaxMessageBytes: coordpb.MaxMessage,
		ServerOptions:   []grpc.ServerOption{grpc.Creds(w.Credentials.RingServer)},
		DialOptions:     append(cfg.dialOptions(), grpc.WithTransportCredentials(w.Credentials.RingClient)),
		Refusal:         func(addr string) error { return refusalOf(w.Credentials.RingClient, addr) },
	}); err != nil {
		return err
	}
	if w.Advertise == "" {
		w.Advertise = w.ring.Addr()
	}
	defer func() {
		err = errors.Join(err, w.ring.Close())
		if w.backbone != nil {
			err = errors.Join(err, w.backbone.Close())
		}
	}()

	// One session after another, until one finishes the job or ends the worker.
	replicas := &discovery{addrs: w.Coordinators, logger: w.Logger}
	retry := firstRetry
	var warned time.Time
	for {
		joined, err := w.tryReplicas(ctx, replicas)
		switch {
		case err == nil:
			w.Logger.Info("the job is finished")
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case isPermanent(err):
			return plainError(err)
		}
		if joined {
			retry, warned = firstRetry, time.Time{}
		}
		if time.Since(warned) > warnInterval {
			warned = time.Now()
			w.Logger.Warn("no coordinator; trying again until it is there",
				"coordinator", strings.Join(w.Coordinators, ","), "reason", logReason(err))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retry/2 + rand.N(retry)): // so that workers which lost one leader spread out
		}
		retry = min(2*retry, maxRetry)
	}
}

// tryReplicas asks the coordinator's replicas one after another until one takes this worker, and
// works for that one until the session ends. joined reports whether one did; err is the last error.
func (w *worker) tryReplicas(ctx context.Context, replicas *discovery) (joined bool, err error) {
	asked, refusals := 0, 0
	for addr := range replicas.candidates(ctx) {
		joined, err = w.session(ctx, addr)
		replicas.recordAttempt(addr, err)
		if joined || err == nil || ctx.Err() != nil || isPermanent(err) {
			return joined, err
		}
		asked++
		if refused := refusalOf(w.Credentials.Coordinator, addr); refused != nil {
			refusals++
			err = fmt.Errorf("coordinator %w", refused)
		}
		w.Logger.Debug("this coordinator does not take workers now",
			"coordinator", addr, "reason", logReason(err))
	}
	if refusals > 0 && refusals == asked && !w.welcomed {
		return false, &localError{err} // every replica refuses: to try again would not help
	}
	if err == nil {
		err = fmt.Errorf("coordinator %s: no address, want at least one", strings.Join(w.Coordinators, ","))
	}
	return false, err
}

// localError is a failure of this machine, not of the connection: trying again would fail again.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// isPermanent reports whether another session would end the same way.
func isPermanent(err error) bool {
	var local *localError
	if errors.As(err, &local) {
		return true
	}
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.InvalidArgument, codes.Aborted, codes.Unimplemented,
		codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	return false
}

// refusalOf returns why the latest connection to addr was refused, nil if it was not or the
// credentials do not know.
func refusalOf(c credentials.TransportCredentials, addr string) error {
	if r, ok := c.(Refuser); ok {
		return r.Refusal(addr)
	}
	return nil
}

// logReason returns the part of an error that a person wants to read.
func logReason(err error) string {
	message := plainError(err).Error()
	if at := strings.Index(message, "dial tcp "); at >= 0 {
		message = strings.Trim(message[at:], `"`) // gRPC wraps it twice
	}
	return message
}

// plainError returns an error from the other side without the prefix that gRPC puts before its
// message.
func plainError(err error) error {
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Message())
	}
	return err
}

// load makes the backbone that the job names available. The coordinator checks that it is the right
// one, by the digest in Ready.
func (w *worker) load(name string) error {
	path := w.Model
	if path == "" {
		path = name
	}
	if w.backbone != nil && w.backbonePath != path {
		if err := w.backbone.Close(); err != nil {
			return err
		}
		w.backbone = nil
	}
	if w.backbone == nil {
		began := time.Now()
		b, err := w.open(path)
		if err != nil {
			if w.Model == "" && path != "" && errors.Is(err, os.ErrNotExist) {
				err = fmt.Errorf("%w (that is the coordinator's path; --model gives the path on this machine)", err)
			}
			return err
		}
		w.backbone, w.backbonePath = b, path
		w.Logger.Info("backbone loaded", "model", tiny.NameOf(path), "engine", b.EngineName(),
			"d_model", b.Dim(), "digest", ids.Digest(b.Digest()).Short(),
			"seconds", time.Since(began).Round(time.Millisecond).Seconds())
	}
	return nil
}
