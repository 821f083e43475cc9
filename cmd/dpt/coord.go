package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator/coordpb"
)

const (
	// coordTimeout bounds one question to a replica; a change of the replicas may take as long as an election.
	coordTimeout = 15 * time.Second
	// maxRedirects bounds how often a question follows the leader.
	maxRedirects = 5
)

// runCoord dispatches to dpt coord's own commands.
func runCoord(ctx context.Context, args []string, std cli.IO) error {
	commands := map[string]cli.RunFunc{"add": runCoordAdd, "remove": runCoordRemove}
	if len(args) > 0 {
		if run, ok := commands[args[0]]; ok {
			return run(ctx, args[1:], std)
		}
	}
	cmd := cli.NewCommand("dpt coord", "add|remove [flags]",
		"Changes the replicas of a running coordinator: add makes a replica part of it, remove takes one out. The job goes on meanwhile.")
	cmd.Examples = []cli.Example{{Command: "dpt coord add --coord trainer:7070 --id d --addr spare:7071 --insecure"}}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return cmd.Usagef("unknown command coord %s, want add or remove", args[0])
	}
	if err := cmd.Parse(args); err != nil {
		return err
	}
	return cmd.Usagef("no command given, want add or remove")
}

// coordFlags say which coordinator to ask.
type coordFlags struct {
	coord    []string
	insecure bool
}

func (f *coordFlags) bind(g *cli.Group) {
	f.coord = []string{"127.0.0.1:7070"}
	g.Strings(&f.coord, "coord", "`ADDRESS,...` of the coordinator's replicas; any of them will do", cli.HostPort)
	g.Bool(&f.insecure, "insecure", "allow connections beyond this machine without TLS")
}

func (f *coordFlags) check(cmd *cli.Command) error {
	for _, addr := range f.coord {
		if !f.insecure && !cli.Loopback(addr) {
			return cmd.Usagef("--coord %s: reaches beyond this machine without TLS, want a loopback address or --insecure", addr)
		}
	}
	return nil
}

// ask puts a question to the replica that leads, starting with those given.
func (f *coordFlags) ask(ctx context.Context, question func(context.Context, coordpb.ReplicasClient) (*coordpb.ReplicaList, error)) (*coordpb.ReplicaList, error) {
	var last error
	for _, addr := range f.coord {
		for range maxRedirects {
			list, err := askOne(ctx, addr, question)
			if err == nil {
				return list, nil
			}
			last = fmt.Errorf("coordinator %s: %s", addr, status.Convert(err).Message())
			if status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded {
				return nil, last
			}
			leader := coordpb.RedirectOf(err)
			if leader == "" || leader == addr {
				break
			}
			addr = leader
		}
	}
	return nil, last
}

func askOne(ctx context.Context, addr string, question func(context.Context, coordpb.ReplicasClient) (*coordpb.ReplicaList, error)) (*coordpb.ReplicaList, error) {
	ctx, cancel := context.WithTimeout(ctx, coordTimeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return question(ctx, coordpb.NewReplicasClient(conn))
}

// writeReplicas prints a replica per line.
func writeReplicas(w io.Writer, list *coordpb.ReplicaList) error {
	var b strings.Builder
	for _, r := range list.Replicas {
		mark := ""
		if r.Id == list.Leader {
			mark = "\tleader"
		}
		fmt.Fprintf(&b, "%s\t%s%s\n", r.Id, r.Addr, mark)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
