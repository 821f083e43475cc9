package coordinator

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/dptune/dpt/coordinator/internal/refusals"
)

const (
	// maxStrangers bounds the connections to the workers' port that nobody has introduced himself
	// on: whose handshake is not done, that have not said hello, or asked nothing yet. Jobs of more
	// workers have room for all of them at once, twice.
	maxStrangers = 256
	// maxStreams bounds the calls under way on one connection. A worker needs one.
	maxStreams = 16
	// maxSessions bounds the workers' sessions of a coordinator.
	maxSessions = 8192
)

// admission is the workers' port. It refuses connections while too many strangers are connected, so
// that whoever reaches the port and says nothing costs a bounded number of sockets and goroutines,
// and leaves the workers that are there alone.
type admission struct {
	net.Listener
	maxStrangers int
	logger       *slog.Logger

	mu        sync.Mutex
	strangers map[*admittedConn]struct{}
	refused   refusals.Counter
}

func newAdmission(l net.Listener, maxStrangers int, logger *slog.Logger) *admission {
	return &admission{
		Listener:     l,
		maxStrangers: maxStrangers,
		logger:       logger,
		strangers:    map[*admittedConn]struct{}{},
	}
}

// Accept implements net.Listener.
func (a *admission) Accept() (net.Conn, error) {
	for {
		conn, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &admittedConn{Conn: conn, admission: a}
		a.mu.Lock()
		if len(a.strangers) < a.maxStrangers {
			a.strangers[c] = struct{}{}
			c.timer = time.AfterFunc(strangerTimeout, c.overstay)
			a.mu.Unlock()
			return c, nil
		}
		refused := a.refused.Add()
		a.mu.Unlock()
		_ = conn.Close()
		if refused > 0 {
			a.logger.Warn("connections refused: too many are open on which nobody has introduced himself",
				"address", a.Addr().String(), "limit", a.maxStrangers, "refused", refused,
				"last_from", conn.RemoteAddr().String())
		}
	}
}

// admittedConn is a connection through admission. Its remote address leads back to it from a call's
// context.
type admittedConn struct {
	net.Conn
	admission *admission
	timer     *time.Timer // calls overstay
}

type admittedAddr struct {
	net.Addr
	conn *admittedConn
}

// RemoteAddr implements net.Conn.
func (c *admittedConn) RemoteAddr() net.Addr { return &admittedAddr{c.Conn.RemoteAddr(), c} }

// Close implements net.Conn.
func (c *admittedConn) Close() error {
	c.introduce()
	return c.Conn.Close()
}

// introduce takes the connection from the strangers, and reports whether it was among them.
func (c *admittedConn) introduce() (wasStranger bool) {
	c.admission.mu.Lock()
	defer c.admission.mu.Unlock()
	if _, wasStranger = c.admission.strangers[c]; wasStranger {
		delete(c.admission.strangers, c)
		c.timer.Stop()
	}
	return wasStranger
}

// overstay closes the connection of a stranger whose time is up.
func (c *admittedConn) overstay() {
	if c.introduce() {
		c.admission.logger.Debug("connection closed: nobody has introduced himself on it",
			"from", c.Conn.RemoteAddr().String(), "waited", strangerTimeout)
		_ = c.Conn.Close() // whoever reads from it learns of it
	}
}

// introduced notes that the connection of a call is no stranger's.
func introduced(ctx context.Context) {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(*admittedAddr); ok {
			a.conn.introduce()
		}
	}
}

// introduceUnary and introduceStream introduce the caller. A worker introduces itself by its hello,
// not by its call.
func introduceUnary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	introduced(ctx)
	return handle(ctx, request)
}

func introduceStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo,
	handle grpc.StreamHandler) error {
	if !info.IsClientStream {
		introduced(stream.Context())
	}
	return handle(server, stream)
}
