package main

import (
	"context"

	"google.golang.org/grpc"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator/coordpb"
)

// runCoordRemove removes a replica from a running coordinator.
func runCoordRemove(ctx context.Context, args []string, std cli.IO) error {
	var f coordFlags
	var id string
	cmd := cli.NewCommand("dpt coord remove", "--coord ADDRESS --id ID",
		"Removes a replica from a running coordinator and prints the replicas that are left. The removed replica "+
			"stops by itself; it may be the leader.")
	cmd.Examples = []cli.Example{{Command: "dpt coord remove --coord trainer:7070 --id a"}}
	g := cmd.Group("Coordinator")
	f.bind(g)
	f.security.Bind(cmd.Group("Security"))
	g.String(&id, "id", "`ID` of the replica", cli.NotEmpty).Required()
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	remove := func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.ReplicaList, error) {
		return coordpb.NewReplicasClient(c).Remove(ctx, &coordpb.RemoveReplica{Id: id})
	}
	list, err := askCoordinator(ctx, &f, remove)
	if err != nil {
		return err
	}
	return writeReplicas(std.Out, list)
}
