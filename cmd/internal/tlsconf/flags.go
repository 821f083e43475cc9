package tlsconf

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/dptune/dpt/cmd/internal/certs"
	"github.com/dptune/dpt/cmd/internal/cli"
)

// expiresSoon is the remaining validity of a certificate below which Open logs a warning.
const expiresSoon = 7 * 24 * time.Hour

// Flags are --tls-cert, --tls-key, --tls-ca, --tls-server-name and --insecure.
type Flags struct {
	files       Files
	serverNames []string // NAME or ROLE=NAME
	insecure    bool
}

// Bind adds the flags to the group.
func (f *Flags) Bind(g *cli.Group) {
	g.String(&f.files.Cert, "tls-cert", "this machine's certificate, a PEM `FILE`; dpt certs makes it", cli.NotEmpty).
		DefaultText("no TLS")
	g.String(&f.files.Key, "tls-key", "the certificate's key, a PEM `FILE`", cli.NotEmpty).DefaultText("no TLS")
	g.String(&f.files.CA, "tls-ca", "PEM `FILE` of the CAs whose certificates are accepted", cli.NotEmpty).
		DefaultText("no TLS")
	g.Strings(&f.serverNames, "tls-server-name", "verify peers' certificates for a name instead of the host that is "+
		"dialed: `NAME` for every peer, or coordinator=NAME, worker=NAME or both for those", serverNameEntry).
		DefaultText("the host that is dialed")
	g.Bool(&f.insecure, "insecure", "allow connections beyond this machine without TLS")
}

// serverNameEntry checks for one NAME or ROLE=NAME.
func serverNameEntry(v string) error {
	role, name, ok := strings.Cut(v, "=")
	if !ok {
		role, name = "", v
	}
	if ok && Role(role) != Coordinator && Role(role) != Worker {
		return fmt.Errorf("found the role %q, want %s or %s", role, Coordinator, Worker)
	}
	if err := certs.CheckHost(name); err != nil {
		return err
	}
	if strings.Contains(name, "*") {
		return errors.New("found a wildcard, want the name itself, which a wildcard certificate is good for")
	}
	return nil
}

// namesOfRoles are the values of --tls-server-name by role. The error tells of a role with two.
func (f *Flags) namesOfRoles() (map[Role]string, error) {
	names := map[Role]string{}
	for _, v := range f.serverNames {
		role, name, ok := strings.Cut(v, "=")
		roles := []Role{Role(role)}
		if !ok {
			name, roles = v, []Role{Coordinator, Worker}
		}
		for _, r := range roles {
			if names[r] != "" {
				return nil, fmt.Errorf("--tls-server-name %s: found two names for the %s, want one",
					strings.Join(f.serverNames, ","), r)
			}
			names[r] = name
		}
	}
	return names, nil
}

// Check checks that all three files are given or none, and that without TLS the addresses stay on
// this machine. Call it after cmd.Parse. An empty address is not checked.
func (f *Flags) Check(cmd *cli.Command, addresses ...Address) error {
	var given, missing []string
	for _, file := range []struct{ flag, path string }{{"--tls-cert", f.files.Cert}, {"--tls-key", f.files.Key},
		{"--tls-ca", f.files.CA}} {
		if file.path == "" {
			missing = append(missing, file.flag)
		} else {
			given = append(given, file.flag)
		}
	}
	switch {
	case len(given) > 0 && len(missing) > 0:
		return cmd.Usagef("%s without %s, want all of --tls-cert, --tls-key and --tls-ca or none",
			strings.Join(given, " and "), strings.Join(missing, " and "))
	case len(given) > 0 && f.insecure:
		return cmd.Usagef("--insecure and --tls-cert, want one of them: with TLS every connection is verified")
	case len(given) == 0 && len(f.serverNames) > 0:
		return cmd.Usagef("--tls-server-name without TLS, want --tls-cert, --tls-key and --tls-ca with it")
	}
	if _, err := f.namesOfRoles(); err != nil {
		return cmd.Usagef("%v", err)
	}
	if len(given) > 0 || f.insecure {
		return nil
	}
	for _, a := range addresses {
		if a.Addr != "" && !cli.Loopback(a.Addr) {
			return cmd.Usagef("--%s %s: reaches beyond this machine without TLS, want --tls-cert, --tls-key and "+
				"--tls-ca (dpt certs makes them), a loopback address or --insecure", a.Flag, a.Addr)
		}
	}
	return nil
}

// Address is the value of a flag that gives an address to listen on or to dial.
type Address struct{ Flag, Addr string }

// Open reads and checks the files, if there are any. Call it after Check.
func (f *Flags) Open(log *slog.Logger) (*Conf, error) {
	if f.files.Cert == "" {
		return Plain(log), nil
	}
	c, err := Open(f.files, nil, log)
	if err != nil {
		return nil, err
	}
	if c.serverNames, err = f.namesOfRoles(); err != nil {
		return nil, err
	}
	leaf := c.source.current().cert.Leaf
	logLine, message := log.Info, "connections use TLS"
	if leaf.NotAfter.Sub(c.now()) < expiresSoon {
		logLine, message = log.Warn, "the TLS certificate expires soon"
	}
	logLine(message, "certificate", nameOf(leaf), "names", names(leaf), "expires", formatTime(leaf.NotAfter))
	return c, nil
}

// Args are the flags as a child process of this program takes them.
func (f *Flags) Args() []string {
	var args []string
	if f.files.Cert != "" {
		args = append(args, "--tls-cert", f.files.Cert, "--tls-key", f.files.Key, "--tls-ca", f.files.CA)
	}
	if len(f.serverNames) > 0 {
		args = append(args, "--tls-server-name", strings.Join(f.serverNames, ","))
	}
	if f.insecure {
		args = append(args, "--insecure")
	}
	return args
}

// LocalAddr is the address by which a process on this machine dials a listener. For one that
// listens on every interface, that is loopback.
func LocalAddr(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Port}).String()
	}
	return addr.String()
}
