package main

import (
	"context"

	"google.golang.org/grpc"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator/coordpb"
)

// runCoordAdd adds a replica to a running coordinator.
func runCoordAdd(ctx context.Context, args []string, std cli.IO) error {
	var f coordFlags
	var id, addr string
	cmd := cli.NewCommand("dpt coord add", "--coord ADDRESS --id ID --addr ADDRESS",
		"Adds a replica to a running coordinator and prints the replicas that it then has. Start the new replica "+
			"with --join, an empty data directory and the job's settings, before or after.")
	cmd.Examples = []cli.Example{
		{Text: "On the new machine:", Command: "dpt-coord --join --id d --peers d=spare:7071 --listen spare:7070 " +
			"--insecure --data ./superglue --task record"},
		{Text: "Then anywhere:", Command: "dpt coord add --coord trainer:7070 --id d --addr spare:7071 --insecure"},
	}
	g := cmd.Group("Coordinator")
	f.bind(g)
	f.security.Bind(cmd.Group("Security"))
	g.String(&id, "id", "`ID` of the new replica", cli.NotEmpty).Required()
	g.String(&addr, "addr", "`ADDRESS` under which the other replicas reach it", cli.HostPort).Required()
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	add := func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.ReplicaList, error) {
		replica := &coordpb.Replica{Id: id, Addr: addr}
		return coordpb.NewReplicasClient(c).Add(ctx, &coordpb.AddReplica{Replica: replica})
	}
	list, err := askCoordinator(ctx, &f, add)
	if err != nil {
		return err
	}
	return writeReplicas(std.Out, list)
}
