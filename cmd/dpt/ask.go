package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/tlsconf"
	"github.com/dptune/dpt/coordinator/coordpb"
)

const (
	// coordTimeout bounds one question to a replica; a change of the replicas may take as long as an election.
	coordTimeout = 15 * time.Second
	// maxRedirects bounds how often a question follows the leader.
	maxRedirects = 5
	// electionPatience is how long a question waits for a coordinator that is starting or electing a leader.
	electionPatience = 3 * time.Second
	// maxAnswer bounds an answer: a list of thousands of jobs with their evaluations.
	maxAnswer = 64 << 20
)

// coordFlags say which coordinator to ask.
type coordFlags struct {
	coord    []string
	security tlsconf.Flags
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

// ask puts a question to the replica that leads, starting with those given.
func ask[T any](ctx context.Context, f *coordFlags, question func(context.Context, grpc.ClientConnInterface) (T, error)) (answer T, err error) {
	secure, err := f.security.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		return answer, err
	}
	creds := secure.ClientCredentials("the coordinator", false)
	for patience := time.Now().Add(electionPatience); ; {
		answer, err = askAt(ctx, f.coord, creds, question)
		if err == nil || !away(err) || time.Now().After(patience) {
			return answer, err
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return answer, context.Cause(ctx)
		}
	}
}

func askAt[T any](ctx context.Context, addrs []string, creds credentials.TransportCredentials, question func(context.Context, grpc.ClientConnInterface) (T, error)) (answer T, err error) {
	for _, addr := range addrs {
		for range maxRedirects {
			answer, asked := askOne(ctx, addr, creds, question)
			if asked == nil {
				return answer, nil
			}
			err = &coordError{addr: addr, err: asked}
			if !away(asked) {
				return answer, err
			}
			leader := coordpb.RedirectOf(asked)
			if leader == "" || leader == addr {
				break
			}
			addr = leader
		}
	}
	return answer, err
}

// coordError is a coordinator's answer, or why there is none.
type coordError struct {
	addr string
	err  error
}

func (e *coordError) Error() string {
	return fmt.Sprintf("coordinator %s: %s", e.addr, status.Convert(e.err).Message())
}
func (e *coordError) Unwrap() error { return e.err }

// away says whether an error means that the coordinator cannot be reached now, or that nobody leads.
func away(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

func askOne[T any](ctx context.Context, addr string, creds credentials.TransportCredentials, question func(context.Context, grpc.ClientConnInterface) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, coordTimeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return answer, err
	}
	defer conn.Close()
	return question(ctx, conn)
}
