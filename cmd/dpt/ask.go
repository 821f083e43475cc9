package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/tlsconf"
	"github.com/dptune/dpt/coordinator/coordpb"
)

const (
	// askTimeout bounds one question to a replica; a change of the replicas may take as long as
	// an election.
	askTimeout = 15 * time.Second
	// maxRedirects bounds how often a question follows the leader.
	maxRedirects = 5
	// electionWait is how long a question waits for a coordinator that is starting or electing
	// a leader.
	electionWait = 3 * time.Second
	// maxAnswer bounds an answer in bytes: a list of thousands of jobs with their evaluations.
	maxAnswer = 64 << 20
)

// coordFlags are the flags of a command that asks a coordinator.
type coordFlags struct {
	coord    []string
	security tlsconf.Flags
	dialer   dial.Dialer // tests set its Lookup
}

func (f *coordFlags) bind(g *cli.Group) {
	f.coord = []string{"127.0.0.1:7070"}
	g.Strings(&f.coord, "coord", "`ADDRESS,...` of the coordinator's replicas; any of them will do", cli.HostPort)
}

func (f *coordFlags) check(cmd *cli.Command) error {
	addrs := make([]tlsconf.Address, len(f.coord))
	for i, addr := range f.coord {
		addrs[i] = tlsconf.Address{Flag: "coord", Addr: addr}
	}
	return f.security.Check(cmd, addrs...)
}

// question asks a coordinator something over a connection.
type question[T any] func(ctx context.Context, c grpc.ClientConnInterface) (T, error)

// askCoordinator puts a question to the replica that leads. It starts with those that --coord
// names, and waits a moment for an election.
func askCoordinator[T any](ctx context.Context, f *coordFlags, q question[T]) (answer T, err error) {
	secure, err := f.security.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		return answer, err
	}
	creds := secure.Toward(tlsconf.Coordinator).ClientCredentials("the coordinator", false)
	for deadline := time.Now().Add(electionWait); ; {
		answer, err = askReplicas(ctx, f.dialer, f.coord, creds, q)
		if err == nil || !isUnavailable(err) || time.Now().After(deadline) {
			return answer, err
		}
		select {
		case <-time.After(askRetryDelay):
		case <-ctx.Done():
			return answer, context.Cause(ctx)
		}
	}
}

// askReplicas asks the replicas in turn, and follows each to the leader that it knows. A name with
// several addresses stands for a replica at each.
func askReplicas[T any](
	ctx context.Context, d dial.Dialer, addrs []string, creds credentials.TransportCredentials, q question[T],
) (answer T, err error) {
	for _, addr := range addrs {
		targets, unresolved := d.Targets(ctx, addr)
		if unresolved != nil {
			err = &coordError{addr: addr, err: unresolved}
		}
		for _, t := range targets {
			// Follow the leader, until one answers or there is none.
			connect := d.DialTarget(t)
			for range maxRedirects {
				answer, asked := askReplica(ctx, t.Name, connect, creds, q)
				if asked == nil {
					return answer, nil
				}
				err = &coordError{addr: t.String(), err: asked}
				if !isUnavailable(asked) {
					return answer, err
				}
				leader := coordpb.RedirectOf(asked)
				if leader == "" || leader == t.Name || leader == t.Addr {
					break
				}
				t, connect = dial.Target{Name: leader}, d.Dial
			}
		}
	}
	return answer, err
}

// coordError is an error that a coordinator answers with, or why there is no answer.
type coordError struct {
	addr string
	err  error
}

func (e *coordError) Error() string {
	return fmt.Sprintf("coordinator %s: %s", e.addr, dial.Reason(e.err))
}
func (e *coordError) Unwrap() error { return e.err }

// isUnavailable reports whether an error means that the coordinator cannot be reached now, or that
// no replica leads.
func isUnavailable(err error) bool {
	if _, ok := errors.AsType[*dial.ResolveError](err); ok {
		return true
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// askReplica asks the replica of that name, to which connect connects.
func askReplica[T any](
	ctx context.Context, name string, connect dial.Func, creds credentials.TransportCredentials, q question[T],
) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := dial.Client(name, connect, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return answer, err
	}
	defer conn.Close()
	return q(ctx, conn)
}
