package dial

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// TestMain sets proxies that nobody serves for the whole process: the library reads the variables
// once.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"} {
		os.Setenv(name, "http://127.0.0.1:9")
		os.Setenv(strings.ToLower(name), "http://127.0.0.1:9")
	}
	os.Unsetenv("NO_PROXY")
	os.Unsetenv("no_proxy")
	os.Exit(m.Run())
}

// addresses is a resolver that knows one name, peer.test.
func addresses(ips ...string) Lookup {
	return func(_ context.Context, host string) ([]string, error) {
		if host != "peer.test" || len(ips) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.0.0.53:53", IsNotFound: true}
		}
		return ips, nil
	}
}

// serve accepts connections on 127.0.0.1 until the test ends. It returns the port.
func serve(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func TestDialTriesEachAddress(t *testing.T) {
	port := serve(t)
	for name, ips := range map[string][]string{
		"one":               {"127.0.0.1"},
		"refused first":     {"::1", "127.0.0.1"},
		"unreachable first": {"192.0.2.1", "127.0.0.1"}, // a network for documentation (RFC 5737)
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			conn, err := Dialer{Lookup: addresses(ips...)}.Dial(ctx, "peer.test:"+port)
			if err != nil {
				t.Fatal(err)
			}
			if want := "127.0.0.1:" + port; conn.RemoteAddr().String() != want {
				t.Errorf("connected to %s, want %s", conn.RemoteAddr(), want)
			}
			conn.Close()
		})
	}
}

func TestErrorsNameTheNameAndEachAddress(t *testing.T) {
	d := Dialer{Lookup: addresses("::1", "127.0.0.1", "127.0.0.1")}
	_, err := d.Dial(t.Context(), "peer.test:1")
	var failed *ConnectError
	if !errors.As(err, &failed) || len(failed.Attempts) != 2 {
		t.Fatalf("nobody there: %v, want a ConnectError about two addresses", err)
	}
	const want = "cannot connect to peer.test:1: [::1]:1: "
	if text := err.Error(); !strings.HasPrefix(text, want) ||
		!strings.HasSuffix(text, "; 127.0.0.1:1: connect: connection refused") {
		t.Errorf("nobody there: %v", err)
	}
	_, err = d.Dial(t.Context(), "other.test:1")
	var unresolved *ResolveError
	if !errors.As(err, &unresolved) ||
		err.Error() != "cannot resolve other.test: no such host (name server 10.0.0.53:53)" {
		t.Errorf("unknown name: %v", err)
	}
	if _, err = d.Dial(t.Context(), "127.0.0.1:1"); errors.As(err, &failed) ||
		!strings.Contains(err.Error(), "127.0.0.1:1: connect: connection refused") {
		t.Errorf("an IP address: %v, want the system's error", err)
	}
	if _, err = d.Dial(t.Context(), "peer.test"); err == nil || !strings.Contains(err.Error(), "missing port") {
		t.Errorf("no port: %v", err)
	}
	d.Lookup = func(context.Context, string) ([]string, error) { return nil, nil }
	_, err = d.Targets(t.Context(), "peer.test:1")
	if err == nil || err.Error() != "cannot resolve peer.test: it has no address" {
		t.Errorf("no address: %v", err)
	}
}

func TestTargets(t *testing.T) {
	d := Dialer{Lookup: addresses("10.0.0.1", "fd00::1", "10.0.0.1")}
	for addr, want := range map[string][]Target{
		"peer.test:7":    {{"peer.test:7", "10.0.0.1:7"}, {"peer.test:7", "[fd00::1]:7"}},
		"10.0.0.9:7":     {{"10.0.0.9:7", "10.0.0.9:7"}},
		"[fe80::1%lo]:7": {{"[fe80::1%lo]:7", "[fe80::1%lo]:7"}},
		":7":             {{":7", ":7"}},
	} {
		if got, err := d.Targets(t.Context(), addr); err != nil || !slices.Equal(got, want) {
			t.Errorf("targets of %s: %v, %v; want %v", addr, got, err, want)
		}
	}
	for want, target := range map[string]Target{
		"peer.test:7 (10.0.0.1:7)": {"peer.test:7", "10.0.0.1:7"},
		"10.0.0.1:7":               {"10.0.0.1:7", "10.0.0.1:7"},
		"peer.test:7":              {"peer.test:7", ""},
	} {
		if got := target.String(); got != want {
			t.Errorf("%#v prints as %s, want %s", target, got, want)
		}
	}
}

// TestClient is a call by a name, past the proxies that TestMain sets.
func TestClient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	_, port, _ := net.SplitHostPort(l.Addr().String())

	check := func(name string, d Func) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, err := Client(name+":"+port, d, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err
	}
	if err := check("peer.test", Dialer{Lookup: addresses("::1", "127.0.0.1")}.Dial); err != nil {
		t.Error(err)
	}
	// A target is dialed at its own address, whatever its name resolves to.
	target := Target{Name: "peer.test:" + port, Addr: "127.0.0.1:" + port}
	if err := check("peer.test", Dialer{Lookup: addresses()}.DialTarget(target)); err != nil {
		t.Error(err)
	}
	err = check("other.test", Dialer{Lookup: addresses()}.Dial)
	const want = "cannot resolve other.test: no such host (name server 10.0.0.53:53)"
	if err == nil || Reason(err) != want {
		t.Errorf("the reason of %v is %q, want %q", err, Reason(err), want)
	}
}

func TestReason(t *testing.T) {
	if got := Reason(errors.New("plain")); got != "plain" {
		t.Errorf("reason %q of an error that is not gRPC's", got)
	}
	for _, test := range []struct{ message, want string }{
		{"no leader", "no leader"},
		{`connection error: desc = "transport: Error while dialing: a \"b\" c"`, `a "b" c`},
		{`connection error: desc = "transport: authentication handshake failed: no"`, "no"},
		{"connection error: desc = torn", "connection error: desc = torn"},
	} {
		if got := Reason(unavailable(test.message)); got != test.want {
			t.Errorf("reason %q of %q, want %q", got, test.message, test.want)
		}
	}
}

func TestLocalIP(t *testing.T) {
	d := Dialer{Lookup: addresses("127.0.0.1")}
	if ip, err := d.LocalIP(t.Context(), "peer.test:1"); err != nil || ip != "127.0.0.1" {
		t.Errorf("towards loopback this machine is %s, %v; want 127.0.0.1", ip, err)
	}
	var unresolved *ResolveError
	if _, err := d.LocalIP(t.Context(), "other.test:1"); !errors.As(err, &unresolved) {
		t.Errorf("towards an unknown name: %v, want a ResolveError", err)
	}
}

// TestNothingElseDials finds connections that other packages make on their own: those would use a
// proxy, or verify an address in place of its name.
func TestNothingElseDials(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		here := filepath.ToSlash(path)
		if entry.IsDir() && (strings.HasPrefix(entry.Name(), ".git") || strings.HasSuffix(here, "allreduce/dial")) {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, call := range []string{
			"grpc.NewClient(", "grpc.Dial(", "grpc.DialContext(", "net.Dial", "tls.Dial", "http.Get(",
			"http.DefaultClient", "http.Client{",
		} {
			if strings.Contains(string(text), call) {
				t.Errorf("%s has %s, want the connection made by allreduce/dial", here, call)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func unavailable(message string) error { return status.Error(codes.Unavailable, message) }
