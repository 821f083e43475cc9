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
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/dataset"
)

// runStatus lists a coordinator's jobs.
func runStatus(ctx context.Context, args []string, std cli.IO) error {
	var f coordFlags
	var asJSON bool
	cmd := cli.NewCommand("dpt status", "--coord ADDRESS [JOB ...]",
		"Lists a coordinator's jobs: those that are over, the one that runs, and those that wait; with names, only "+
			"those jobs.")
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
	listJobs := func(ctx context.Context, c grpc.ClientConnInterface) (*coordpb.JobList, error) {
		return coordpb.NewJobsClient(c).List(ctx, &coordpb.ListJobs{Evaluations: asJSON, Names: cmd.Args()})
	}
	list, err := askCoordinator(ctx, &f, listJobs)
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
		fmt.Fprintf(t, "%s\t%s\t%s\t%v\t%s\t\n", j.Name, j.Status, steps, roundSeconds(j.Seconds), best)
	}
	fmt.Fprintf(t, "%d workers are ready.\n", list.Workers)
	return t.Flush()
}

func roundSeconds(s float64) time.Duration {
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
		line := jobLine{
			Job: j.Name, ID: j.Id, Status: j.Status, Reason: j.Reason, Step: j.Step, Steps: j.TotalSteps,
			Seconds: j.Seconds, StateDigest: j.StateDigest, Settings: j.Spec,
		}
		for _, e := range j.Evaluations {
			line.Evaluations = append(line.Evaluations, jobEvaluation{
				Step: e.Step, Split: e.Split, Loss: e.Loss, Score: e.Score, Metrics: e.Metrics,
			})
		}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("job %s: %w", j.Name, err)
		}
	}
	return nil
}
