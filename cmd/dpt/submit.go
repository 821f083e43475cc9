package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/jobflags"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/job"
)

// runSubmit puts a job into a coordinator's queue.
func runSubmit(ctx context.Context, args []string, std cli.IO) error {
	var f coordFlags
	var name string
	s := job.DefaultSettings()
	cmd := cli.NewCommand("dpt submit", "--coord ADDRESS --name NAME [flags of a job]",
		"Puts a job at the end of the queue of a coordinator that was started with --serve, and prints its id. The "+
			"coordinator reads the model and the data, so their paths are those on its machine. Submitting the same "+
			"job again does not queue it twice.")
	cmd.Examples = []cli.Example{{
		Command: "dpt submit --coord trainer:7070 --name rte-1 --task rte --data /data/superglue " +
			"--model /models/t5-large --insecure",
	}}
	g := cmd.Group("Coordinator")
	f.bind(g)
	g.String(&name, "name", "`NAME` of the job, and of its directory in the coordinator's --out", cli.NotEmpty).
		Required()
	f.security.Bind(cmd.Group("Security"))
	jobFlags := jobflags.Bind(cmd, &s)
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := jobFlags.Check(); err != nil {
		return err
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	if err := jobflags.Absolute(&s); err != nil {
		return err
	}
	request, err := s.Request()
	if err != nil {
		return err
	}
	j, err := askCoordinator(ctx, &f, func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.Job, error) {
		return coordpb.NewJobsClient(c).Submit(ctx, &coordpb.SubmitJob{Name: name, Settings: request})
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Out, j.Id)
	return err
}
