package workercmd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

// resolvesAfter is a resolver that knows every name after a number of failures.
func resolvesAfter(failures int) dial.Lookup {
	return func(_ context.Context, host string) ([]string, error) {
		if failures--; failures >= 0 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []string{"127.0.0.1"}, nil
	}
}

func own(log *cmdtest.Output, lookup dial.Lookup) ownAddress {
	return ownAddress{dialer: dial.Dialer{Lookup: lookup}, logger: slog.New(slog.NewTextHandler(log, nil))}
}

func TestFindAddr(t *testing.T) {
	everywhere := &net.TCPAddr{IP: net.IPv6unspecified, Port: 7}
	one := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}
	const says = "cannot resolve trainer.test: no such host"
	for _, test := range []struct {
		name      string
		listening net.Addr
		failures  int
		coord     []string
		want      string
		warnings  int
	}{
		{"the one listened on", one, 9, []string{"trainer.test:1"}, "10.0.0.1:7", 0},
		{"towards the coordinator", everywhere, 0, []string{"trainer.test:1"}, "127.0.0.1:7", 0},
		{"a name that resolves later", everywhere, 2, []string{"trainer.test:1"}, "127.0.0.1:7", 1},
		{"another replica's name", everywhere, 9, []string{"trainer.test:1", "127.0.0.1:1"}, "127.0.0.1:7", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log cmdtest.Output
			o := own(&log, resolvesAfter(test.failures))
			got, err := o.findAddr(t.Context(), test.listening, test.coord)
			if err != nil || got != test.want {
				t.Errorf("address %s, %v; want %s", got, err, test.want)
			}
			if n := strings.Count(log.String(), says); n != test.warnings {
				t.Errorf("%d warnings with %q, want %d: %s", n, says, test.warnings, &log)
			}
		})
	}
}

func TestFindAddrStops(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	why := errors.New("stopped")
	time.AfterFunc(50*time.Millisecond, func() { stop(why) })
	var log cmdtest.Output
	o := own(&log, resolvesAfter(1000))
	if _, err := o.findAddr(ctx, &net.TCPAddr{IP: net.IPv4zero, Port: 7}, []string{"trainer.test:1"}); err != why {
		t.Errorf("error %v, want %v", err, why)
	}
	if err := o.awaitName(ctx, "w.test:1"); err != why {
		t.Errorf("error %v, want %v", err, why)
	}
}

func TestAwaitName(t *testing.T) {
	var log cmdtest.Output
	o := own(&log, resolvesAfter(1))
	if err := o.awaitName(t.Context(), "w.test:1"); err != nil {
		t.Error(err)
	}
	const says = "cannot resolve w.test: no such host"
	if n := strings.Count(log.String(), says); n != 1 {
		t.Errorf("%d warnings with %q, want one: %s", n, says, &log)
	}
}
