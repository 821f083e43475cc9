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
	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/tiny"
)

// Config is how a worker runs.
type Config struct {
	// Coordinators are the host:port of each replica. A name with several addresses stands for all
	// of them; TLS verifies the name at each. A name that does not resolve is tried again.
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
	// Lookup returns the IP addresses of a host name; nil is the system's resolver.
	Lookup func(ctx context.Context, host string) ([]string, error)

	// Test hooks: what a simulation of a whole cluster replaces. Zero means the real thing.

	// Dial replaces TCP, to the coordinator and to ring neighbours. It resolves names, too.
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
	// warnInterval is the least time between two warnings that no coordinator answers. The first
	// comes when all replicas have been asked, or after firstWarning if that takes longer.
	warnInterval = 30 * time.Second
	firstWarning = 5 * time.Second
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
	// seeking is when the search for a coordinator began that goes on now, warned the time of its
	// last warning, zero before the first.
	seeking, warned time.Time
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
		Dial:            cfg.dialer(),
		DialOptions:     []grpc.DialOption{grpc.WithTransportCredentials(w.Credentials.RingClient)},
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
	replicas := &discovery{addrs: w.Coordinators, targets: w.targets}
	retry := firstRetry
	w.seeking = time.Now()
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
			retry = firstRetry
			w.seeking, w.warned = time.Now(), time.Time{}
		}
		w.warnUnreached(err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retry/2 + rand.N(retry)): // so that workers which lost one leader spread out
		}
		retry = min(2*retry, maxRetry)
	}
}

// tryReplicas asks the coordinator's replicas one after another until one takes this worker, and
// works for that one until the session ends. joined reports whether one did. If none did, err tells
// why of each.
func (w *worker) tryReplicas(ctx context.Context, replicas *discovery) (joined bool, err error) {
	refusals := 0
	var round roundError
	for replica := range replicas.candidates(ctx) {
		// Of a name without an address there is nobody to ask.
		joined, err = false, replica.err
		if err == nil {
			joined, err = w.session(ctx, replica.Target)
			replicas.recordAttempt(replica.Target, err)
		}
		if joined || err == nil || ctx.Err() != nil || isPermanent(err) {
			return joined, err
		}
		if refused := refusalOf(w.Credentials.Coordinator, replica.Name); refused != nil && replica.err == nil {
			refusals++
			err = fmt.Errorf("coordinator %w", refused)
		}
		round = append(round, replicaError{replica.String(), err})
		w.Logger.Debug("this coordinator does not take workers now",
			"coordinator", replica.String(), "reason", dial.Reason(err))
		if time.Since(w.seeking) > firstWarning {
			w.warnUnreached(round) // replicas that do not answer make a round long
		}
	}
	switch {
	case refusals > 0 && refusals == len(round) && !w.welcomed:
		err = &localError{err} // every replica refuses: to try again would not help
	case len(round) > 1:
		err = round
	case err == nil:
		err = fmt.Errorf("coordinator %s: no address, want at least one", strings.Join(w.Coordinators, ","))
	}
	return false, err
}

// warnUnreached logs that no coordinator takes this worker and why, once in warnInterval.
func (w *worker) warnUnreached(err error) {
	if time.Since(w.warned) <= warnInterval {
		return
	}
	w.warned = time.Now()
	w.Logger.Warn("no coordinator; trying again until it is there",
		"coordinator", strings.Join(w.Coordinators, ","), "reason", dial.Reason(err))
}

// roundError tells why none of the replicas that were asked takes this worker.
type roundError []replicaError

// replicaError is why one replica does not take this worker.
type replicaError struct {
	replica string
	err     error
}

// Error is one reason after another, each with the replica's address.
func (e roundError) Error() string {
	reasons := make([]string, len(e))
	for i, r := range e {
		reasons[i] = dial.Reason(r.err)
		if addr, _, _ := strings.Cut(r.replica, " "); !strings.Contains(reasons[i], addr) {
			reasons[i] = r.replica + ": " + reasons[i]
		}
	}
	return strings.Join(reasons, "; ")
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
