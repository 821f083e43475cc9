package main

import (
	"context"

	"google.golang.org/grpc"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator/coordpb"
)

// runCoordRemove takes a replica out of a running coordinator.
func runCoordRemove(ctx context.Context, args []string, std cli.IO) error {
	var f coordFlags
	var id string
	cmd := cli.NewCommand("dpt coord remove", "--coord ADDRESS --id ID",
		"Takes a replica out of a running coordinator and prints the replicas that are left. The replica stops by itself if it runs; it may be the one that leads.")
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
	list, err := ask(ctx, &f, func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.ReplicaList, error) {
		return coordpb.NewReplicasClient(c).Remove(ctx, &coordpb.RemoveReplica{Id: id})
	})
	if err != nil {
		return err
	}
	return writeReplicas(std.Out, list)
}
