package coordinator

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

const (
	// maxStrangers bounds the connections to the workers' port on which nobody has introduced himself: whose handshake is not
	// done, that have not said hello, or asked nothing yet. Jobs of more workers have room for all of them at once, twice.
	maxStrangers = 256
	// strangerTime is how long a connection may stay so: a handshake, a hold and a hello, and some.
	strangerTime = connectionTimeout + holdTime + helloTimeout + 3*time.Second
	// maxStreams bounds the calls under way on one connection. A worker needs one.
	maxStreams = 16
	// maxSessions bounds the workers' sessions of a coordinator.
	maxSessions = 8192
	// idleTime is after how long a connection without calls is closed.
	idleTime = 2 * time.Minute
	// maxUngreeted bounds the connections to the replicas' port that have not greeted.
	maxUngreeted = 64
	// refusalInterval is how often refusals of strangers are mentioned.
	refusalInterval = 10 * time.Second
)

// gate is the workers' port. It refuses connections while too many strangers are connected, so that whoever reaches the port
// and says nothing costs a bounded number of sockets and goroutines, and leaves the workers that are there alone.
type gate struct {
	net.Listener
	max    int
	logger *slog.Logger

	mu        sync.Mutex
	strangers map[*guest]struct{}
	turned    turned
}

func newGate(l net.Listener, most int, logger *slog.Logger) *gate {
	return &gate{Listener: l, max: most, logger: logger, strangers: map[*guest]struct{}{}}
}

// turned counts refusals between two words about them. Its owner's lock guards it.
type turned struct {
	count int
	said  time.Time
}

// away notes a refusal and says how many there were since it was last told to say so; 0 not to.
func (t *turned) away() int {
	t.count++
	if now := time.Now(); now.Sub(t.said) >= refusalInterval {
		n := t.count
		t.said, t.count = now, 0
		return n
	}
	return 0
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		guest := &guest{Conn: conn, gate: g}
		g.mu.Lock()
		if len(g.strangers) < g.max {
			g.strangers[guest] = struct{}{}
			guest.timer = time.AfterFunc(strangerTime, guest.overstay)
			g.mu.Unlock()
			return guest, nil
		}
		say := g.turned.away()
		g.mu.Unlock()
		_ = conn.Close()
		if say > 0 {
			g.logger.Warn("connections refused: too many are open on which nobody has introduced himself", "address", g.Addr().String(), "limit", g.max,
				"refused", say, "last_from", conn.RemoteAddr().String())
		}
	}
}

// guest is a connection through the gate. Its remote address leads back to it from a call's context.
type guest struct {
	net.Conn
	gate  *gate
	timer *time.Timer
}

type guestAddr struct {
	net.Addr
	guest *guest
}

// RemoteAddr implements net.Conn.
func (c *guest) RemoteAddr() net.Addr { return &guestAddr{c.Conn.RemoteAddr(), c} }

// Close implements net.Conn.
func (c *guest) Close() error {
	c.known()
	return c.Conn.Close()
}

// known says that this is no stranger any more.
func (c *guest) known() (was bool) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if _, was = c.gate.strangers[c]; was {
		delete(c.gate.strangers, c)
		c.timer.Stop()
	}
	return was
}

func (c *guest) overstay() {
	if c.known() {
		c.gate.logger.Debug("connection closed: nobody has introduced himself on it", "from", c.Conn.RemoteAddr().String(), "waited", strangerTime)
		_ = c.Conn.Close() // whoever reads from it learns of it
	}
}

// introduced says that the connection of a call is no stranger's.
func introduced(ctx context.Context) {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(*guestAddr); ok {
			a.guest.known()
		}
	}
}

// introduceUnary and introduceStream introduce whoever calls. A worker introduces itself by its hello, not by its call.
func introduceUnary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	introduced(ctx)
	return handle(ctx, request)
}

func introduceStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if !info.IsClientStream {
		introduced(stream.Context())
	}
	return handle(server, stream)
}
