// Command dpt is the user's tool around training: it tokenizes, scores, evaluates, predicts and
// exports, makes certificates, and changes a running coordinator's replicas. dpt-coord and
// dpt-worker train.
package main

import (
	"context"
	"os"
	"strings"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/localworkers"
	"github.com/dptune/dpt/cmd/internal/workercmd"
	"github.com/dptune/dpt/model"
)

// subcommand is one verb of dpt. Its code is in the file of its name.
type subcommand struct {
	name  string
	short string
	run   cli.RunFunc
}

func subcommands() []subcommand {
	return []subcommand{
		{"tokenize", "token ids of texts", runTokenize},
		{"score", "loss, logits and prompt gradient of source-target pairs", runScore},
		{"eval", "a task's metrics on a split", runEval},
		{"predict", "greedy outputs for sources", runPredict},
		{"export", "a prompt as an adapter for another program", runExport},
		{"bench", "how fast a training step runs, and what bounds it", runBench},
		{"submit", "put a job into a coordinator's queue", runSubmit},
		{"status", "a coordinator's jobs", runStatus},
		{"cancel", "end a job that waits or runs", runCancel},
		{"sweep", "the paper's experiments, or others: many jobs, their tables and figures", runSweep},
		{"report", "tables and figures of a sweep", runReport},
		{"pretrain", "a small T5 from nothing", runPretrain},
		{"certs", "a private CA and certificates for mutual TLS", runCerts},
		{"coord", "add a replica to a running coordinator, or remove one", runCoord},
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == localworkers.Command {
		os.Args = append(os.Args[:1], os.Args[2:]...)
		cli.Main("dpt-worker", workercmd.Run("dpt-worker"))
	}
	cli.Main(programName(os.Args[1:]), run)
}

// programName is the prefix of errors: dpt, with the name of the subcommand where there is one.
func programName(args []string) string {
	if len(args) > 0 {
		for _, s := range subcommands() {
			if s.name == args[0] {
				return "dpt " + s.name
			}
		}
	}
	return "dpt"
}

// run dispatches to a subcommand.
func run(ctx context.Context, args []string, std cli.IO) error {
	if len(args) == 0 {
		return usagef("no command given, want %s", commandNames())
	}
	name, rest := args[0], args[1:]
	switch name {
	case "help", "-h", "--help":
		if name != "help" || len(rest) == 0 {
			return cli.InfoRequest(overview)
		}
		if len(rest) > 1 {
			return usagef("stray argument %s, want help COMMAND", rest[1])
		}
		name, rest = rest[0], []string{"--help"}
	case "version", "--version":
		return cli.InfoRequest(func(int) string { return cli.VersionText("dpt", model.Engines()) })
	}
	for _, s := range subcommands() {
		if s.name == name {
			return s.run(ctx, rest, std)
		}
	}
	if strings.HasPrefix(name, "-") {
		return usagef("found flag %s before a command, want dpt COMMAND [flags] with one of %s", name, commandNames())
	}
	return usagef("unknown command %s, want %s", name, commandNames())
}

func usagef(format string, args ...any) error {
	return cli.NewCommand("dpt", "", "").Usagef(format, args...)
}

// commandNames lists the commands for an error.
func commandNames() string {
	var list []string
	for _, s := range subcommands() {
		list = append(list, s.name)
	}
	return commaList(list) + " or help"
}

func commaList(items []string) string { return strings.Join(items, ", ") }

// overview is the help of dpt itself.
func overview(width int) string {
	var b strings.Builder
	b.WriteString("Usage: dpt COMMAND [flags]\n\n")
	b.WriteString(cli.Wrap("Works with prompts that dpt-coord trained, and with the frozen T5 they belong to.", width))
	b.WriteString("\nCommands:\n")
	for _, s := range subcommands() {
		b.WriteString("  " + s.name + strings.Repeat(" ", 12-len(s.name)) + s.short + "\n")
	}
	b.WriteString("  help        help of dpt, or of one command: dpt help COMMAND\n")
	b.WriteString("  version     version, commit, Go version and engines\n\n")
	b.WriteString(cli.Wrap("Without --model the commands use the embedded tiny T5; without --data, eval uses the "+
		"embedded data set.", width))
	b.WriteString("\nExample:\n" +
		"    echo '\"first, the prompt\"' | dpt predict --model ./t5-large --prompt runs/r1/prompt.safetensors\n")
	return b.String()
}
