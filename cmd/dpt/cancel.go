package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator/coordpb"
)

// runCancel ends a job.
func runCancel(ctx context.Context, args []string, std cli.IO) error {
	var f coordFlags
	cmd := cli.NewCommand("dpt cancel", "--coord ADDRESS JOB",
		"Ends a job that waits or runs, by its name or id. What it has written so far stays; the workers go on with "+
			"the next job.")
	cmd.MaxArgs = 1
	cmd.Examples = []cli.Example{{Command: "dpt cancel --coord trainer:7070 --insecure rte-1"}}
	f.bind(cmd.Group("Coordinator"))
	f.security.Bind(cmd.Group("Security"))
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if len(cmd.Args()) == 0 {
		return cmd.Usagef("no job given, want the name or id of one that waits or runs")
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	j, err := askCoordinator(ctx, &f, func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.Job, error) {
		return coordpb.NewJobsClient(c).Cancel(ctx, &coordpb.CancelJob{Job: cmd.Args()[0]})
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Out, "%s is %s\n", j.Name, j.Status)
	return err
}
