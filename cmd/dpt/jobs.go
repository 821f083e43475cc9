package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/jobflags"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
)

// runSubmit puts a job into a coordinator's queue.
func runSubmit(ctx context.Context, args []string, std cli.IO) error {
	var f coordFlags
	var name string
	s := job.DefaultSettings()
	cmd := cli.NewCommand("dpt submit", "--coord ADDRESS --name NAME [flags of a job]",
		"Puts a job at the end of the queue of a coordinator that was started with --serve, and prints its id. The coordinator reads the model and the data: their paths are as it sees them. Submitted again, the same job is not queued twice.")
	cmd.Examples = []cli.Example{{Command: "dpt submit --coord trainer:7070 --name rte-1 --task rte --data /data/superglue --model /models/t5-large --insecure"}}
	g := cmd.Group("Coordinator")
	f.bind(g)
	g.String(&name, "name", "`NAME` of the job, and of its directory in the coordinator's --out", cli.NotEmpty).Required()
	f.security.Bind(cmd.Group("Security"))
	job := jobflags.Bind(cmd, &s)
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := job.Check(); err != nil {
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
	j, err := ask(ctx, &f, func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.Job, error) {
		return coordpb.NewJobsClient(c).Submit(ctx, &coordpb.SubmitJob{Name: name, Settings: request})
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Out, j.Id)
	return err
}

// runStatus lists a coordinator's jobs.
func runStatus(ctx context.Context, args []string, std cli.IO) error {
	var f coordFlags
	var asJSON bool
	cmd := cli.NewCommand("dpt status", "--coord ADDRESS [JOB ...]",
		"Lists a coordinator's jobs: those that are over, the one that runs, those that wait; or only those of the names given.")
	cmd.MaxArgs = 1 << 12
	cmd.Examples = []cli.Example{{Command: "dpt status --coord trainer:7070 --insecure"}}
	g := cmd.Group("Coordinator")
	f.bind(g)
	g.Bool(&asJSON, "json", "a line of JSON for each job, with its evaluations")
	f.security.Bind(cmd.Group("Security"))
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	list, err := ask(ctx, &f, func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.JobList, error) {
		return coordpb.NewJobsClient(c).List(ctx, &coordpb.ListJobs{Evaluations: asJSON, Names: cmd.Args()})
	})
	if err != nil {
		return err
	}
	if asJSON {
		return writeJobLines(std.Out, list)
	}
	return writeJobs(std.Out, list)
}

// writeJobs prints the jobs as a table.
func writeJobs(w io.Writer, list *coordpb.JobList) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "JOB\tSTATUS\tSTEP\tTIME\tBEST\t")
	for _, j := range list.Jobs {
		steps, best := "", ""
		if j.TotalSteps > 0 {
			steps = fmt.Sprintf("%d/%d", j.Step, j.TotalSteps)
		}
		if j.Best != nil {
			var m dataset.Metrics
			if err := json.Unmarshal(j.Best.Metrics, &m); err != nil {
				return fmt.Errorf("job %s: metrics: %w", j.Name, err)
			}
			best = fmt.Sprintf("%s at step %d", m, j.Best.Step)
		}
		switch {
		case j.Reason != "" && j.Status == string(fsm.Finished):
			best += "; " + j.Reason
		case j.Reason != "":
			best = strings.Join(strings.Fields(j.Reason), " ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%v\t%s\t\n", j.Name, j.Status, steps, seconds(j.Seconds), best)
	}
	fmt.Fprintf(t, "%d workers are ready.\n", list.Workers)
	return t.Flush()
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond)
}

// jobLine is a job as dpt status --json prints it.
type jobLine struct {
	Job         string          `json:"job"`
	ID          string          `json:"id"`
	Status      string          `json:"status"`
	Reason      string          `json:"reason,omitempty"`
	Step        int64           `json:"step"`
	Steps       int64           `json:"steps"`
	Seconds     float64         `json:"seconds"`
	StateDigest string          `json:"state_digest,omitempty"`
	Settings    json.RawMessage `json:"settings,omitempty"`
	Evaluations []jobEvaluation `json:"evaluations,omitempty"`
}

type jobEvaluation struct {
	Step    int64           `json:"step"`
	Split   string          `json:"split"`
	Loss    float64         `json:"loss"`
	Score   float64         `json:"score"`
	Metrics json.RawMessage `json:"metrics"`
}

func writeJobLines(w io.Writer, list *coordpb.JobList) error {
	enc := json.NewEncoder(w)
	for _, j := range list.Jobs {
		line := jobLine{Job: j.Name, ID: j.Id, Status: j.Status, Reason: j.Reason, Step: j.Step, Steps: j.TotalSteps, Seconds: j.Seconds, StateDigest: j.StateDigest, Settings: j.Spec}
		for _, e := range j.Evaluations {
			line.Evaluations = append(line.Evaluations, jobEvaluation{Step: e.Step, Split: e.Split, Loss: e.Loss, Score: e.Score, Metrics: e.Metrics})
		}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("job %s: %w", j.Name, err)
		}
	}
	return nil
}

// runCancel ends a job.
func runCancel(ctx context.Context, args []string, std cli.IO) error {
	var f coordFlags
	cmd := cli.NewCommand("dpt cancel", "--coord ADDRESS JOB",
		"Ends a job that waits or runs, by its name or id. What it has written so far stays; the workers go on with the next job.")
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
	j, err := ask(ctx, &f, func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.Job, error) {
		return coordpb.NewJobsClient(c).Cancel(ctx, &coordpb.CancelJob{Job: cmd.Args()[0]})
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Out, "%s is %s\n", j.Name, j.Status)
	return err
}
