package main

import (
	"context"
	"fmt"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator/lab/report"
)

// runReport renders a sweep's tables and figures again from its results.
func runReport(_ context.Context, args []string, std cli.IO) error {
	cmd := cli.NewCommand("dpt report", "DIR",
		"Renders the tables and figures of a sweep from the results in its directory: report.md, tables.csv, and "+
			"every figure as SVG and PNG. A sweep that is still running has what is finished.")
	cmd.Examples = []cli.Example{{Text: "After a sweep, or while it runs:", Command: "dpt report runs/table1"}}
	cmd.MaxArgs = 1
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if len(cmd.Args()) == 0 {
		return cmd.Usagef("no directory given, want one that dpt sweep wrote")
	}
	path, err := report.Write(cmd.Args()[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Out, path)
	return err
}
