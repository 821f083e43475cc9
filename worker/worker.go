// Package worker is one worker's life: join a coordinator, load the backbone that the job names, and then, for
// every step, compute the gradient of its share of the global batch, all-reduce it with the other workers, apply
// the update and report.
//
// A worker keeps nothing but the backbone and, until a step is committed, what it has computed for it. The trainer state reaches it with each generation, the tokenized
// examples with each plan. Whatever goes wrong, recovery is one path: the generation ends, the coordinator starts
// another, and the worker resumes from the state that it is sent. When the coordinator is not there the worker
// keeps trying.
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
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model"
)

// Config is how a worker runs.
type Config struct {
	Coordinators []string     // host:port of each replica; a name with several addresses stands for all of them
	ID           string       // unique among the job's workers
	Listener     net.Listener // for ring streams; the worker closes it
	Advertise    string       // host:port under which ring neighbours reach Listener; "" is its own address
	Model        string       // where the backbone lies here; "" is where the coordinator has it
	Options      model.Options
	Version      string
	Logger       *slog.Logger

	Credentials Credentials

	// What a simulation of a whole cluster puts in place of the real thing. Zero means the real thing.
	Dial func(ctx context.Context, addr string) (net.Conn, error)               // TCP, to the coordinator and to ring neighbours
	Open func(dir string, options model.Options) (backbone Backbone, err error) // model.Open
	Mark func(point string)                                                     // called at the points that Marks names
}

// Credentials secure a worker's connections; where one is nil, they are in plain text.
type Credentials struct {
	// Coordinator is for the session. If it is a Refuser, refusals by all replicas before the worker was ever welcome end it: to
	// try again would not help. Later ones do not, as a certificate may be about to be replaced.
	Coordinator credentials.TransportCredentials
	// RingServer is for the previous neighbour's connection, RingClient for that to the next. If the latter is a Refuser, a
	// refusal ends the generation, and the coordinator is told why.
	RingServer, RingClient credentials.TransportCredentials
}

// Refuser is implemented by credentials that know why the latest connection to a HOST:PORT was refused, by either side;
// nil if it was not, failed for another reason, or was asked about before.
type Refuser interface{ Refusal(addr string) error }

const (
	firstRetry = 100 * time.Millisecond
	maxRetry   = 2 * time.Second
	// sayAgain is how often a coordinator that stays away is mentioned.
	sayAgain = 30 * time.Second
)

// worker is the state that outlives a session: the ring node, the backbone, and what was computed for steps not committed yet.
type worker struct {
	Config
	host     string
	ring     *allreduce.Node
	backbone Backbone
	path     string // of backbone
	partials partials
	trainer  *trainer // of the last session; nil before the first
	welcome  bool     // a coordinator has taken this worker before
}

// Run works until the job is finished (nil), ctx is cancelled (its cause), or the coordinator or the machine rules the
// worker out.
func Run(ctx context.Context, cfg Config) (err error) {
	w := &worker{Config: cfg}
	if w.host, err = os.Hostname(); err != nil {
		w.host = "unknown host"
	}
	for _, c := range []*credentials.TransportCredentials{&w.Credentials.Coordinator, &w.Credentials.RingServer, &w.Credentials.RingClient} {
		if *c == nil {
			*c = insecure.NewCredentials()
		}
	}
	if w.ring, err = allreduce.NewNode(allreduce.Config{Listener: cfg.Listener, Logger: cfg.Logger, MaxMessageBytes: maxMessage,
		ServerOptions: []grpc.ServerOption{grpc.Creds(w.Credentials.RingServer)},
		DialOptions:   append(cfg.dialOptions(), grpc.WithTransportCredentials(w.Credentials.RingClient)),
		Refusal:       func(addr string) error { return refusal(w.Credentials.RingClient, addr) }}); err != nil {
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
	find := &finder{addrs: w.Coordinators, logger: w.Logger}
	retry := firstRetry
	var said time.Time
	for {
		joined, err := w.round(ctx, find)
		switch {
		case err == nil:
			w.Logger.Info("the job is finished")
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case permanent(err):
			return plain(err)
		}
		if joined {
			retry, said = firstRetry, time.Time{}
		}
		if time.Since(said) > sayAgain {
			said = time.Now()
			w.Logger.Warn("no coordinator; trying again until it is there", "coordinator", strings.Join(w.Coordinators, ","), "reason", reason(err))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retry/2 + rand.N(retry)): // workers that lost the same leader do not come all at once
		}
		retry = min(2*retry, maxRetry)
	}
}

// round asks the coordinator's replicas one after another until one takes this worker, and works for that one until the
// session ends. joined says whether one did; err is the last error.
func (w *worker) round(ctx context.Context, find *finder) (joined bool, err error) {
	asked, refusals := 0, 0
	for addr := range find.round(ctx) {
		joined, err = w.session(ctx, addr)
		find.heard(addr, err)
		if joined || err == nil || ctx.Err() != nil || permanent(err) {
			return joined, err
		}
		asked++
		if refused := refusal(w.Credentials.Coordinator, addr); refused != nil {
			refusals++
			err = fmt.Errorf("coordinator %w", refused)
		}
		w.Logger.Debug("this coordinator does not take workers now", "coordinator", addr, "reason", reason(err))
	}
	if refusals > 0 && refusals == asked && !w.welcome {
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

// permanent says whether another session would end the same way.
func permanent(err error) bool {
	var local *localError
	if errors.As(err, &local) {
		return true
	}
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.InvalidArgument, codes.Aborted, codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	return false
}

// refusal is why the latest connection to addr was refused, nil if it was not or the credentials do not know.
func refusal(c credentials.TransportCredentials, addr string) error {
	if r, ok := c.(Refuser); ok {
		return r.Refusal(addr)
	}
	return nil
}

// reason is the part of an error that a person wants to read.
func reason(err error) string {
	message := plain(err).Error()
	if at := strings.Index(message, "dial tcp "); at >= 0 {
		message = strings.Trim(message[at:], `"`) // gRPC wraps it twice
	}
	return message
}

// plain is the message of an error from the other side, without gRPC's frame around it.
func plain(err error) error {
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Message())
	}
	return err
}

// load makes the backbone that the job names available, and checks that it is the same.
func (w *worker) load(name string, want ids.Digest) error {
	path := w.Model
	if path == "" {
		path = name
	}
	if w.backbone != nil && w.path != path {
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
				err = fmt.Errorf("%w (the coordinator has the model there; --model says where it lies on this machine)", err)
			}
			return err
		}
		w.backbone, w.path = b, path
		w.Logger.Info("backbone loaded", "model", nameOf(path), "engine", b.EngineName(), "d_model", b.Dim(), "digest", ids.Digest(b.Digest()).Short(),
			"seconds", time.Since(began).Round(time.Millisecond).Seconds())
	}
	return nil
}

func nameOf(path string) string {
	if path == "" {
		return "embedded"
	}
	return path
}
