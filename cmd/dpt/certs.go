package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/dptune/dpt/cmd/internal/certs"
	"github.com/dptune/dpt/cmd/internal/cli"
)

// oneDay is the unit of --days.
const oneDay = 24 * time.Hour

// runCerts makes a private CA and a certificate for every machine.
func runCerts(_ context.Context, args []string, std cli.IO) error {
	var out string
	days, caDays, force := 365, 3650, false
	cmd := cli.NewCommand("dpt certs", "--out DIR HOST[,HOST...] ...",
		"Makes the files that mutual TLS between dpt-coord and dpt-worker needs: a private CA, unless DIR holds one, "+
			"and a certificate and key for every machine. A machine has one or more DNS names or IP addresses, by "+
			"which others dial it; its files are named after the first.")
	cmd.Notes = "Each program takes --tls-cert HOST.pem --tls-key HOST-key.pem --tls-ca ca.pem, and accepts only " +
		"peers whose certificates the CA signed. Every certificate also carries localhost, 127.0.0.1 and ::1. " +
		"Whoever has ca-key.pem can join: keep it in DIR; no program needs it.\n\n" +
		"The programs take up certificates that are replaced on disk without a restart."
	cmd.Examples = []cli.Example{{Command: "dpt certs --out certs trainer.example,10.0.0.1 10.0.0.2 10.0.0.3"}}
	cmd.MaxArgs = 1 << 16
	g := cmd.Group("Certificates")
	g.String(&out, "out", "`DIR` to write; one that holds a CA keeps it", cli.NotEmpty).Required()
	g.Int(&days, "days", "days for which the machines' certificates are valid, at most as long as the CA",
		cli.Between(1, 36500))
	g.Int(&caDays, "ca-days", "days for which a new CA is valid", cli.Between(1, 36500))
	g.Bool(&force, "force", "overwrite the machines' files; the CA is always kept")
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if len(cmd.Args()) == 0 {
		return cmd.Usagef("no host given, want one argument for every machine: its DNS names and IP addresses, with " +
			"commas between")
	}
	r := certs.Request{
		Dir: out, Force: force, Now: time.Now(),
		CAFor: time.Duration(caDays) * oneDay, LeafFor: time.Duration(days) * oneDay,
	}
	var nonce [4]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return fmt.Errorf("name the CA: %w", err)
	}
	// The nonce makes the name unique: messages could not tell a CA from its successor of the same
	// name.
	r.CAName = fmt.Sprintf("dpt CA %s %x", r.Now.UTC().Format(time.DateOnly), nonce)
	for _, arg := range cmd.Args() {
		hosts := strings.Split(arg, ",")
		for _, h := range hosts {
			if err := certs.CheckHost(h); err != nil {
				return cmd.Usagef("host %q in %s: %s", h, arg, err)
			}
		}
		r.Leaves = append(r.Leaves, hosts)
	}
	files, err := certs.Make(r)
	for _, f := range files {
		verb := "wrote"
		if f.Kept {
			verb = "kept"
		}
		if _, werr := fmt.Fprintf(std.Out, "%s %s: %s\n", verb, f.Path, f.What); werr != nil && err == nil {
			err = werr
		}
	}
	return err
}
