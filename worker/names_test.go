package worker_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dptune/dpt/worker"
)

// names is a resolver for tests: IP addresses by host name. A host without any is not found.
type names map[string][]string

func (n names) lookup(_ context.Context, host string) ([]string, error) {
	if len(n[host]) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return n[host], nil
}

// portOf is the port of HOST:PORT.
func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// The coordinator and the ring neighbours are known by names, of whose addresses only the last one
// answers.
func TestNamesOfSeveralAddresses(t *testing.T) {
	c := startCoordinator(t, settings(), 2, t.TempDir(), "")
	hosts := names{"trainer.test": {"::1", "127.0.0.1"}, "w.test": {"::1", "127.0.0.1"}}
	ended := c.startWorkers(2, func(cfg *worker.Config) {
		cfg.Lookup = hosts.lookup
		cfg.Coordinators = []string{"trainer.test:" + portOf(t, c.addr)}
		cfg.Advertise = "w.test:" + portOf(t, cfg.Listener.Addr().String())
	})
	c.finish()
	for _, e := range ended {
		if err := <-e; err != nil {
			t.Errorf("worker: %v", err)
		}
	}
}

// The coordinator's name resolves only after the worker has said that it does not.
func TestNameThatResolvesLater(t *testing.T) {
	c := startCoordinator(t, settings(), 1, t.TempDir(), "")
	var exists atomic.Bool
	hosts := names{"trainer.test": {"127.0.0.1"}}
	_, ended := c.startWorker("w0", func(cfg *worker.Config) {
		cfg.Logger = testLogger(t, "w0", c.logged)
		cfg.Coordinators = []string{"trainer.test:" + portOf(t, c.addr)}
		cfg.Lookup = func(ctx context.Context, host string) ([]string, error) {
			if !exists.Load() {
				return names{}.lookup(ctx, host)
			}
			return hosts.lookup(ctx, host)
		}
	})
	c.awaitLog("no coordinator; trying again until it is there")
	exists.Store(true)
	c.finish()
	if err := <-ended; err != nil {
		t.Errorf("worker: %v", err)
	}
}

// Replicas that do not answer make the first round of questions long; the worker says why it waits
// before that ends.
func TestSilentReplicasAreSaidInTime(t *testing.T) {
	silent := func() string {
		l := listen(t, "127.0.0.1:0") // the kernel accepts, nobody answers
		t.Cleanup(func() { l.Close() })
		return l.Addr().String()
	}
	c := &cluster{t: t, logged: make(chan string, 64)}
	began := time.Now()
	stop, ended := c.startWorker("w0", func(cfg *worker.Config) {
		cfg.Logger = testLogger(t, "w0", c.logged)
		cfg.Coordinators = []string{silent(), silent(), silent(), silent()}
	})
	c.awaitLog("no coordinator; trying again until it is there")
	if waited := time.Since(began); waited > 10*time.Second {
		t.Errorf("the worker says after %v that no coordinator answers, want at most 10s", waited)
	}
	stop()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("worker: %v, want that it was stopped", err)
	}
}
