package workercmd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/dptune/dpt/allreduce/dial"
)

const (
	// addrRetry is the pause before a name that does not resolve is looked up again.
	addrRetry = time.Second
	// addrWarnInterval is the time between two warnings about it.
	addrWarnInterval = 30 * time.Second
	// ownNameWait bounds the wait for the name of --advertise: it may resolve for the other workers
	// and never for this one.
	ownNameWait = 30 * time.Second
)

// ownAddress finds the address under which the other workers reach this one. Where that depends on
// a name that does not resolve, it says so and tries again: a cluster may make names only after it
// has started its first processes.
type ownAddress struct {
	dialer dial.Dialer
	logger *slog.Logger
	warned time.Time // of the last warning; zero before the first
}

// findAddr returns the address to give to the other workers. It is the listener's; where that
// listens on every interface, it is the address of this machine from which it reaches the first of
// the coordinator's replicas whose name resolves and to which there is a route. It tries again
// until there is one or ctx ends.
func (o *ownAddress) findAddr(ctx context.Context, listening net.Addr, coord []string) (string, error) {
	tcp, ok := listening.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return listening.String(), nil
	}
	for {
		for _, addr := range coord {
			host, err := o.dialer.LocalIP(ctx, addr)
			if err == nil {
				return net.JoinHostPort(host, fmt.Sprint(tcp.Port)), nil
			}
			if ctx.Err() != nil {
				return "", context.Cause(ctx)
			}
			// A lookup may take seconds, so that the warning does not wait for those that follow.
			o.warn("this machine's address towards the coordinator is not known; trying again until it is "+
				"(--advertise gives it)", "coordinator", strings.Join(coord, ","), "reason", err)
		}
		if err := pause(ctx, addrRetry); err != nil {
			return "", err
		}
	}
}

// awaitName waits until the host of advertise, HOST:PORT, resolves, since ring neighbours could not
// reach this worker before. It waits no longer than ownNameWait. The error is that ctx has ended.
func (o *ownAddress) awaitName(ctx context.Context, advertise string) error {
	for deadline := time.Now().Add(ownNameWait); ; {
		_, err := o.dialer.Targets(ctx, advertise)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			o.logger.Warn("joining under an address that does not resolve here", "advertise", advertise, "reason", err)
			return nil
		}
		o.warn("the address of this worker does not resolve yet; trying again before it joins",
			"advertise", advertise, "for", ownNameWait, "reason", err)
		if err := pause(ctx, addrRetry); err != nil {
			return err
		}
	}
}

// warn logs a warning, once in addrWarnInterval.
func (o *ownAddress) warn(message string, attrs ...any) {
	if time.Since(o.warned) < addrWarnInterval {
		return
	}
	o.warned = time.Now()
	o.logger.Warn(message, attrs...)
}

// pause waits for d. The error is that ctx has ended before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
