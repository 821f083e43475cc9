package tlsconf

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/cmd/internal/cli"
)

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		args string
		want string // in the usage error; "" is none
	}{
		{"", ""},
		{"--listen 127.0.0.1:0", ""},
		{"--listen 0.0.0.0:0", "--listen 0.0.0.0:0: reaches beyond this machine without TLS, want --tls-cert, " +
			"--tls-key and --tls-ca (dpt certs makes them), a loopback address or --insecure"},
		{"--listen :0", "--listen :0: reaches beyond this machine"},
		{"--listen 0.0.0.0:0 --insecure", ""},
		{"--listen 0.0.0.0:0 --tls-cert a --tls-key b --tls-ca c", ""},
		{"--tls-cert a",
			"--tls-cert without --tls-key and --tls-ca, want all of --tls-cert, --tls-key and --tls-ca or none"},
		{"--tls-key b --tls-ca c", "--tls-key and --tls-ca without --tls-cert, want all"},
		{"--insecure --tls-ca c", "--tls-ca without --tls-cert and --tls-key, want all"},
		{"--tls-cert a --tls-key b --tls-ca c --insecure", "--insecure and --tls-cert, want one of them"},
		{"--tls-cert a --tls-key b --tls-ca c --tls-server-name trainer.test", ""},
		{"--tls-cert a --tls-key b --tls-ca c --tls-server-name coordinator=c.test,worker=w.test", ""},
		{"--tls-server-name trainer.test", "--tls-server-name without TLS, want --tls-cert, --tls-key and --tls-ca"},
		{"--tls-cert a --tls-key b --tls-ca c --tls-server-name c.test,worker=w.test",
			"--tls-server-name c.test,worker=w.test: found two names for the worker, want one"},
		{"--tls-cert a --tls-key b --tls-ca c --tls-server-name ring=w.test",
			`--tls-server-name ring=w.test: found the role "ring", want coordinator or worker`},
		{"--tls-cert a --tls-key b --tls-ca c --tls-server-name trainer.test:7",
			"--tls-server-name trainer.test:7: found a port"},
		{"--tls-cert a --tls-key b --tls-ca c --tls-server-name *.test", "--tls-server-name *.test: found a wildcard"},
		{"--tls-cert= --tls-key b --tls-ca c", "--tls-cert \"\": want a value that is not empty"},
	} {
		var f Flags
		var listen string
		cmd := cli.NewCommand("prog", "", "")
		g := cmd.Group("Security")
		g.String(&listen, "listen", "")
		f.Bind(g)
		args := strings.Fields(test.args)
		err := cmd.Parse(args)
		if err == nil {
			err = f.Check(cmd, Address{Flag: "listen", Addr: listen})
		}
		var usage *cli.UsageError
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.args, err)
		case test.want != "" && (!errors.As(err, &usage) || !strings.HasPrefix(usage.Message, test.want)):
			t.Errorf("%s: %v, want a usage error %q", test.args, err, test.want)
		case test.want == "":
			for _, a := range f.Args() {
				if !slices.Contains(args, a) {
					t.Errorf("%s: the child's flags are %v", test.args, f.Args())
				}
			}
			secure := slices.DeleteFunc(slices.Clone(args), func(a string) bool {
				return a == "--listen" || strings.Contains(a, ":")
			})
			if len(f.Args()) != len(secure) {
				t.Errorf("%s: the child's flags are %v", test.args, f.Args())
			}
		}
	}
}

func TestFlagsOpen(t *testing.T) {
	var log record
	var f Flags
	if c, err := f.Open(log.logger()); err != nil || c.Enabled() {
		t.Errorf("no flags: TLS %v, %v", c != nil && c.Enabled(), err)
	}
	f.files = Files{Cert: "nowhere", Key: "nowhere", CA: "nowhere"}
	if _, err := f.Open(log.logger()); err == nil || !strings.Contains(err.Error(), "--tls-cert: open nowhere") {
		t.Errorf("no files: %v", err)
	}
}

func TestLocalAddr(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0:7": "127.0.0.1:7", "[::]:7": "127.0.0.1:7", "10.0.0.1:7": "10.0.0.1:7", "[::1]:7": "[::1]:7",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := LocalAddr(tcp); got != want {
			t.Errorf("LocalAddr(%s) = %s, want %s", addr, got, want)
		}
	}
}
