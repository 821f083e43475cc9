// Package workercmd is the dpt-worker program. It is a package of its own because dpt-coord
// contains it too: with --local it starts its workers from its own executable.
package workercmd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/device"
	"github.com/dptune/dpt/cmd/internal/tlsconf"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/worker"
)

// Run is dpt-worker under the given name, which help and errors show.
func Run(name string) cli.RunFunc {
	return func(ctx context.Context, args []string, std cli.IO) error { return run(ctx, name, args, std) }
}

func run(ctx context.Context, name string, args []string, std cli.IO) error {
	var (
		coord     = []string{"127.0.0.1:7070"}
		listen    string
		advertise string
		id        string
		modelDir  string
		security  tlsconf.Flags
		engine    device.Flags
		log       = cli.DefaultLog()
	)
	cmd := cli.NewCommand(name, "[flags]",
		"Runs one worker of a training job: it joins the coordinator, loads the frozen backbone that the job names, "+
			"and computes gradients until the job is finished. A worker holds no data and no state: you may stop and "+
			"start it at any time. It keeps trying while it cannot reach the coordinator or resolve a name.")
	cmd.Engines = model.Engines()
	g := cmd.Group("Cluster")
	g.Strings(&coord, "coord", "`ADDRESS,...` of the coordinator's replicas, or one name that stands for all of them",
		cli.HostPort)
	g.String(&listen, "listen", "`ADDRESS` for the ring's streams; port 0 picks a free one", cli.HostPort).
		DefaultText("127.0.0.1:0, or every interface for a coordinator elsewhere")
	g.String(&advertise, "advertise", "`ADDRESS` under which the other workers reach this one", cli.HostPort).
		DefaultText("the one listened on")
	g.String(&id, "id", "`NAME` of this worker, unique in the job", cli.NotEmpty).
		DefaultText("host, process and a random number")
	security.Bind(cmd.Group("Security"))
	g = cmd.Group("Backbone")
	g.String(&modelDir, "model", "`DIR` of the backbone on this machine").DefaultText("where the coordinator has it")
	engine.Bind(cmd.Group("Engine"))
	log.Bind(cmd.Group("Logging"))
	cmd.Examples = []cli.Example{
		{Text: "A worker on the coordinator's machine:", Command: name + " --coord 127.0.0.1:7070"},
		{Text: "A worker on another machine:", Command: name + " --coord trainer:7070 --model /models/t5-large " +
			"--tls-cert w1.pem --tls-key w1-key.pem --tls-ca ca.pem"},
	}
	if err := cmd.Parse(args); err != nil {
		return err
	}
	options, err := engine.Options(cmd)
	if err != nil {
		return err
	}
	if id == "" {
		if id, err = newID(); err != nil {
			return err
		}
	}
	coordLocal := true
	for _, addr := range coord {
		coordLocal = coordLocal && cli.Loopback(addr)
	}
	if listen == "" {
		listen = "127.0.0.1:0"
		if !coordLocal {
			listen = ":0"
		}
	}
	var reached []tlsconf.Address
	for _, addr := range coord {
		reached = append(reached, tlsconf.Address{Flag: "coord", Addr: addr})
	}
	if err := security.Check(cmd, append(reached, tlsconf.Address{Flag: "listen", Addr: listen})...); err != nil {
		return err
	}
	logger := log.Logger(std.Err)
	secure, err := security.Open(logger)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", listen, err)
	}
	own := ownAddress{logger: logger}
	if advertise == "" {
		if advertise, err = own.findAddr(ctx, listener.Addr(), coord); err != nil {
			listener.Close()
			return err
		}
	}
	if host, _, err := net.SplitHostPort(advertise); err == nil {
		if err := secure.Toward(tlsconf.Worker).CheckHost(host); err != nil {
			listener.Close()
			return fmt.Errorf("%w; --advertise gives another address", err)
		}
	}
	if err := own.awaitName(ctx, advertise); err != nil {
		listener.Close()
		return err
	}
	err = worker.Run(ctx, worker.Config{
		Coordinators: coord, ID: id, Listener: listener, Advertise: advertise, Model: modelDir,
		Options: options, Version: cli.Version(), Logger: logger,
		Credentials: worker.Credentials{
			Coordinator: secure.Toward(tlsconf.Coordinator).ClientCredentials("the coordinator", false),
			RingServer:  secure.ServerCredentials("the ring"),
			RingClient:  secure.Toward(tlsconf.Worker).ClientCredentials("the ring neighbour", true),
		},
	})
	var stopped *cli.Interrupted
	if errors.As(err, &stopped) {
		return fmt.Errorf("left the job (%w); start it again to rejoin: %s --coord %s",
			err, name, strings.Join(coord, ","))
	}
	return err
}

func newID() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "worker"
	}
	var nonce [3]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return "", fmt.Errorf("name this worker: %w", err)
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), hex.EncodeToString(nonce[:])), nil
}
