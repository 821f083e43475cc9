package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/certs"
	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

// tlsFlags makes certificates in a new directory and returns the flags that use them.
func tlsFlags(t *testing.T, host string) []string {
	t.Helper()
	dir := t.TempDir()
	request := certs.Request{
		Dir: dir, Leaves: [][]string{{host}}, CAFor: 1000 * time.Hour, LeafFor: 1000 * time.Hour,
		Now: time.Now(), CAName: "CA of " + host,
	}
	if _, err := certs.Make(request); err != nil {
		t.Fatal(err)
	}
	cert, key := certs.LeafFiles(host)
	return []string{
		"--tls-cert", filepath.Join(dir, cert),
		"--tls-key", filepath.Join(dir, key),
		"--tls-ca", filepath.Join(dir, certs.CAFile),
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := tlsFlags(t, "ours.example"), tlsFlags(t, "theirs.example")
	dir := t.TempDir()
	plain, secure := filepath.Join(dir, "plain"), filepath.Join(dir, "secure")
	start(t, "dpt-coord", smallJob(plain, "--steps", "8", "--local", "--nodes", "1")...).mustEnd(0)

	// Beyond loopback without --insecure, with workers that it starts itself and passes its
	// certificate on to.
	start(t, "dpt-coord", smallJob(secure, append(ours,
		"--steps", "8", "--local", "--nodes", "2", "--listen", "0.0.0.0:0")...)...).mustEnd(0)
	want, got := cmdtest.ReadFile(t, plain, "prompt.safetensors"), cmdtest.ReadFile(t, secure, "prompt.safetensors")
	if !bytes.Equal(want, got) {
		t.Error("prompt.safetensors differs under TLS")
	}

	coord := start(t, "dpt-coord", smallJob(filepath.Join(dir, "third"), append(ours,
		"--steps", "8", "--listen", "127.0.0.1:0", "--log-format", "json")...)...)
	addr := workerAddrOf(t, coord)
	for name, refused := range map[string]struct {
		args []string
		says string
	}{
		"foreign":     {theirs, "has a certificate that is not accepted here"},
		"without TLS": {nil, "wants TLS: give --tls-cert, --tls-key and --tls-ca"},
	} {
		w := start(t, "dpt-worker", append(refused.args, "--coord", addr, "--quiet")...)
		w.mustEnd(1)
		if got := w.stderr.String(); !strings.HasPrefix(got, "dpt-worker: coordinator "+addr) ||
			!strings.Contains(got, refused.says) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: the worker says %q, want one line with %q", name, got, refused.says)
		}
	}
	start(t, "dpt-worker", append(ours, "--coord", addr, "--quiet")...).mustEnd(0)
	coord.mustEnd(0)
	if got := coord.stderr.String(); strings.Count(got, `"msg":"connection refused","port_for":"workers"`) != 2 {
		t.Errorf("the coordinator does not log two refusals:\n%s", got)
	}
}
