package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator/coordpb"
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
		"Changes the replicas of a running coordinator: add adds a replica, remove removes one. The job goes on "+
			"meanwhile.")
	cmd.Examples = []cli.Example{{Command: "dpt coord add --coord trainer:7070 --id d --addr spare:7071"}}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return cmd.Usagef("unknown command coord %s, want add or remove", args[0])
	}
	if err := cmd.Parse(args); err != nil {
		return err
	}
	return cmd.Usagef("no command given, want add or remove")
}

// writeReplicas prints one replica per line.
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
