// Command dpt-coord coordinates a training job: it waits for workers, trains, evaluates, writes the
// prompt and exits. See package coordinator.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/jobflags"
	"github.com/dptune/dpt/cmd/internal/localworkers"
	"github.com/dptune/dpt/cmd/internal/progress"
	"github.com/dptune/dpt/cmd/internal/tlsconf"
	"github.com/dptune/dpt/cmd/internal/workercmd"
	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
	"github.com/dptune/dpt/model"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == localworkers.Command {
		os.Args = append(os.Args[:1], os.Args[2:]...)
		cli.Main("dpt-worker", workercmd.Run("dpt-worker"))
	}
	cli.Main("dpt-coord", run)
}

// raftProtocol is the ALPN name of the replicas' protocol, so that the port for replicas refuses a
// connection that is meant for the port for workers.
const raftProtocol = "dpt-raft"

// options are the values of the flags that are neither the job's settings nor in
// coordinator.Config.
type options struct {
	listen     string
	advertise  string
	id         string
	peers      []string
	raftListen string
	election   time.Duration
	join       bool
	security   tlsconf.Flags
	local      bool
	json       bool
}

func run(ctx context.Context, args []string, std cli.IO) error {
	s := job.DefaultSettings()
	cfg := coordinator.Config{
		Nodes: 1, MinNodes: 1, CommitEvery: 1, CommitWindow: 1,
		HeartbeatTimeout: coordinator.DefaultHeartbeatTimeout, StepTimeout: coordinator.DefaultStepTimeout,
	}
	o := options{listen: "127.0.0.1:7070", election: replica.DefaultElectionTimeout}
	log := cli.DefaultLog()
	cmd, jobFlags := newCommand(&s, &cfg, &o, &log)
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if name := jobFlags.FirstChanged(); cfg.Serve && name != "" {
		return cmd.Usagef("--serve with --%s, want jobs' settings with dpt submit or dpt sweep", name)
	}
	if err := jobFlags.Check(); err != nil {
		return err
	}
	if cfg.MinNodes > cfg.Nodes {
		return cmd.Usagef("--min-nodes %d: want at most --nodes, %d", cfg.MinNodes, cfg.Nodes)
	}
	if o.local && !cmd.Changed("listen") {
		o.listen = "127.0.0.1:0"
	}
	if err := o.security.Check(cmd, tlsconf.Address{Flag: "listen", Addr: o.listen}); err != nil {
		return err
	}
	if err := o.replication(cmd, &cfg); err != nil {
		return err
	}
	if cfg.Out == "" && cfg.Serve {
		cfg.Out = "runs"
	}
	if cfg.Out == "" {
		cfg.Out = filepath.Join("runs", strings.ReplaceAll(strings.ToLower(s.Task), ",", "+"))
	}
	o.json = log.Format == "json"
	cfg.Settings, cfg.Version = s, cli.Version()
	cfg.Progress, cfg.Logger = reporter(&std, log, cfg.Serve)

	secure, err := o.security.Open(cfg.Logger)
	if err != nil {
		return err
	}
	cfg.Credentials = secure.ServerCredentials("workers")
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", o.listen, err)
	}
	cfg.Listener = listener
	if r := cfg.Replication; r != nil {
		if r.Listener, err = listenForReplicas(ctx, o.raftListen, cfg.Logger); err != nil {
			listener.Close()
			return fmt.Errorf("--raft-listen %s: %w", o.raftListen, err)
		}
		r.WorkerAddr = o.workerAddr(listener.Addr())
		r.Listener = secure.Listen(r.Listener, "replicas", raftProtocol)
		r.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return secure.Toward(tlsconf.Coordinator).Dial(ctx, addr, raftProtocol)
		}
		r.Credentials = secure.Toward(tlsconf.Coordinator).ClientCredentials("the other replicas", false)
		cfg.Logger.Info("listening for replicas",
			"address", r.Listener.Addr().String(), "replica", r.ID, "replicas", len(r.Peers))
	}
	addr := listener.Addr().String()
	cfg.Logger.Info("listening for workers",
		"address", addr, "nodes", cfg.Nodes, "join", "dpt-worker --coord "+addr)
	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.local {
		dial := tlsconf.LocalAddr(listener.Addr())
		if err := checkLocal(secure, dial); err != nil {
			listener.Close()
			return err
		}
		workers := localworkers.Start(runCtx, cancel, cfg.Nodes, dial, &o.security, log, std.Err)
		defer workers.Stop()
	}
	res, err := coordinator.Run(runCtx, cfg)
	var stopped *coordinator.StoppedError
	var interrupted *cli.Interrupted
	switch {
	case errors.As(err, &stopped) && !errors.As(context.Cause(runCtx), &interrupted):
		return context.Cause(runCtx) // a local worker could not be kept running
	case errors.As(err, &stopped):
		return fmt.Errorf("stopped after committed step %d of %d; nothing is lost, and the same command goes on "+
			"from there: dpt-coord %s",
			stopped.Step, stopped.Total, strings.Join(args, " "))
	case err != nil:
		return err
	case cfg.Serve && !errors.As(context.Cause(runCtx), &interrupted):
		return context.Cause(runCtx)
	case cfg.Serve:
		return nil
	}
	return summarize(std.Out, s, res, o.json)
}

func newCommand(s *job.Settings, cfg *coordinator.Config, o *options, log *cli.Log) (*cli.Command, *jobflags.Flags) {
	cmd := cli.NewCommand("dpt-coord", "[flags]",
		"Coordinates the training of a soft prompt for a frozen T5, decomposed unless --method says otherwise: waits "+
			"for workers, deals out the batches, commits every step to its log, evaluates, writes the prompt and "+
			"exits. Without --model and --data it trains an embedded tiny T5 on an embedded tiny data set. Defaults "+
			"are the paper's.")
	cmd.Engines = model.Engines()

	jobFlags := jobflags.Bind(cmd, s)

	g := cmd.Group("Cluster")
	g.Int(&cfg.Nodes, "nodes", "workers to wait for before training starts", cli.Between(1, 1<<12))
	g.Int(&cfg.MinNodes, "min-nodes", "workers to go on with when others are lost", cli.AtLeast(1))
	g.Bool(&o.local, "local", "start the workers on this machine too")
	g.Bool(&cfg.Serve, "serve",
		"run the jobs that dpt submit and dpt sweep send, one after another, until stopped; without the flags of a job")
	g.String(&o.listen, "listen", "`ADDRESS` for workers; port 0 picks a free one", cli.HostPort).
		DefaultText("127.0.0.1:7070, or a free port with --local")
	g.Int64(&cfg.CommitEvery, "commit-every", "commit every `N` steps; a failure costs at most the steps since",
		cli.Between(int64(1), int64(1024)))
	g.Int(&cfg.CommitWindow, "commit-window", "steps that may run ahead of the commit", cli.Between(0, 16))
	g.Duration(&cfg.HeartbeatTimeout, "heartbeat-timeout", "silence after which a worker counts as lost",
		cli.AtLeast(500*time.Millisecond))
	g.Float(&cfg.Audit, "audit", "let two workers compute a share `P` of the micro-batches and compare their results; "+
		"a worker that computes wrongly is expelled", cli.Fraction)
	g.Duration(&cfg.StepTimeout, "step-timeout", "longest all-reduce, waiting for the slowest worker included",
		cli.AtLeast(time.Second))

	o.security.Bind(cmd.Group("Security"))

	g = cmd.Group("Replicas")
	g.Strings(&o.peers, "peers",
		"the coordinator's replicas, `ID=HOST:PORT,...`, 3 or 5 of them, the same list for each", peerEntry).
		DefaultText("this one alone")
	g.String(&o.id, "id", "`ID` of this replica, one of --peers", cli.NotEmpty)
	g.String(&o.raftListen, "raft-listen", "`ADDRESS` for the other replicas", cli.HostPort).
		DefaultText("this replica's in --peers")
	g.String(&o.advertise, "advertise", "`ADDRESS` under which workers reach this replica", cli.HostPort).
		DefaultText("--listen")
	g.Bool(&o.join, "join", "start empty and wait until dpt coord add adds this replica to the running ones")
	g.Duration(&o.election, "election-timeout", "silence after which the replicas elect another leader",
		cli.AtLeast(50*time.Millisecond))

	g = cmd.Group("Output")
	g.String(&cfg.Out, "out", "`DIR` for prompt.safetensors, adapter/, metrics.jsonl, eval.jsonl, job.json").
		DefaultText("runs/TASK")
	g.String(&cfg.DataDir, "data-dir",
		"`DIR` of the raft log and of large trainer states; the same directory goes on where it stopped").
		DefaultText("OUT/state")
	g.Bool(&cfg.LogExamples, "log-examples", "write each step's example ids to metrics.jsonl")
	log.Bind(g)

	cmd.Examples = []cli.Example{
		{Text: "Everything embedded, four workers on this machine:", Command: "dpt-coord --nodes 4 --local"},
		{Text: "ReCoRD on T5-Large with workers that join from elsewhere:",
			Command: "dpt-coord --nodes 4 --listen 0.0.0.0:7070 --tls-cert trainer.pem --tls-key trainer-key.pem " +
				"--tls-ca ca.pem --model google-t5/t5-large --task record --data ./superglue --out runs/record"},
		{Text: "A queue of jobs, for dpt submit, dpt sweep, dpt status and dpt cancel:",
			Command: "dpt-coord --serve --nodes 4 --local --listen 127.0.0.1:7070"},
	}
	return cmd, jobFlags
}

// checkLocal checks that the host by which local workers dial is among the names of the
// certificate.
func checkLocal(secure *tlsconf.Conf, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if err := secure.Toward(tlsconf.Coordinator).CheckHost(host); err != nil {
		return fmt.Errorf("--local: %w", err)
	}
	return nil
}

// reporter chooses how to show progress: a bar on a terminal, log lines elsewhere, nothing with
// --quiet. With a bar, everything that goes to standard error appears above it, including the
// output of local workers.
func reporter(std *cli.IO, log cli.Log, serve bool) (coordinator.Reporter, *slog.Logger) {
	if f, ok := std.Err.(*os.File); ok && !serve && !log.Quiet && log.Format == "text" && term.IsTerminal(int(f.Fd())) {
		bar := &progress.Bar{W: f}
		std.Err = bar.Above()
		return bar, log.Logger(std.Err)
	}
	logger := log.Logger(std.Err)
	if log.Quiet {
		return coordinator.Silent{}, logger
	}
	return &progress.Lines{Logger: logger}, logger
}
