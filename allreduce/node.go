package allreduce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Config is what a Node needs. Exactly one of Listener and Registrar is set; every other field has
// a default.
type Config struct {
	// Listener is served by a gRPC server of the node's own, which Close stops.
	Listener net.Listener
	// Registrar is a server of the caller's, not yet serving, on which the node registers its
	// service. The caller sets that server's message size (the default of grpc-go receives 4 MiB),
	// window sizes and credentials, and stops it after Close.
	Registrar grpc.ServiceRegistrar
	// ServerOptions are for the node's own server, credentials for example.
	ServerOptions []grpc.ServerOption
	// Dial connects to a neighbour's address; nil is TCP to each of its addresses in turn.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// DialOptions are for connections to neighbours. Without credentials among them, connections
	// are in plain text.
	DialOptions []grpc.DialOption
	// Refusal, if set, returns why the latest connection to the neighbour at addr was refused, if
	// another attempt would be refused too, for example because of a certificate. It returns nil if
	// the connection was not refused, or if Refusal was asked about it before. After a refusal Join
	// fails at once.
	Refusal func(addr string) error
	// MaxMessageBytes bounds a message, and so a chunk; all members need the same. A longer vector
	// goes round the ring in rounds. The default is 16 MiB, which is room for at least a million
	// numbers per member and round.
	MaxMessageBytes int
	// Logger defaults to slog.Default().
	Logger *slog.Logger

	// What follows has a default that only tests change.

	// smallVector is the length of the longest vector, in numbers, that is summed by recursive
	// doubling; longer ones go round the ring. All members need the same. Negative means none.
	smallVector int
	// maxPending bounds the streams that wait for this node to join their generation, and
	// pendingTimeout how long each waits.
	maxPending     int
	pendingTimeout time.Duration
	// linger bounds how long a ring that ends waits for its neighbours to take what was sent.
	linger time.Duration
}

// Node is a process's part in all rings that it joins, one after another. Its methods may be called
// from any goroutine.
type Node struct {
	config  Config
	log     *slog.Logger
	server  *grpc.Server  // nil with a Registrar
	served  chan struct{} // closed when server accepts no more connections
	buffers bufferPool

	done     chan struct{}  // closed by Close
	handlers sync.WaitGroup // counts the streams being served; added to under mu

	mu      sync.Mutex // guards what follows
	closed  bool
	jobs    map[string]membership       // by job id
	live    map[*Ring]struct{}          // rings that hold goroutines or connections
	pending map[*pendingStream]struct{} // streams that came before their generation was joined
}

// membership is a job's latest generation here and its ring.
type membership struct {
	generation Generation
	ring       *Ring
}

// pendingStream is an incoming stream for a generation that is not joined here yet.
type pendingStream struct {
	hello     hello
	admission chan admission // has room for one
}

// admission is the decision on an incoming stream: its ring, or why the node refuses it.
type admission struct {
	ring *Ring
	err  error
}

// NewNode returns a node that serves until Close.
func NewNode(config Config) (*Node, error) {
	if (config.Listener == nil) == (config.Registrar == nil) {
		return nil, errors.New("all-reduce node: want a listener or a registrar, and not both")
	}
	setDefault(&config.MaxMessageBytes, 16<<20)
	setDefault(&config.smallVector, 32<<10)
	setDefault(&config.maxPending, 64)
	setDefault(&config.pendingTimeout, 30*time.Second)
	setDefault(&config.linger, time.Second)
	setDefault(&config.Logger, slog.Default())
	n := &Node{
		config:  config,
		log:     config.Logger,
		served:  make(chan struct{}),
		done:    make(chan struct{}),
		jobs:    make(map[string]membership),
		live:    make(map[*Ring]struct{}),
		pending: make(map[*pendingStream]struct{}),
	}
	if config.Registrar != nil {
		config.Registrar.RegisterService(&serviceDesc, n)
		close(n.served)
		return n, nil
	}
	n.server = grpc.NewServer(serverOptions(config)...)
	n.server.RegisterService(&serviceDesc, n)
	go func() {
		defer close(n.served)
		if err := n.server.Serve(config.Listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			n.log.Error("all-reduce node no longer accepts connections", "addr", n.Addr(), "reason", err)
		}
	}()
	return n, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Addr returns the listener's address, at which other members reach it if the listener is bound to
// one interface; empty with a Registrar.
func (n *Node) Addr() string {
	if n.config.Listener == nil {
		return ""
	}
	return n.config.Listener.Addr().String()
}

// Close closes all rings (in good order where no all-reduce is in progress), stops the node's own
// server, and waits for all of the node's goroutines. It takes about two seconds at most. Closing
// twice is fine. The error is always nil.
func (n *Node) Close() error {
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.done)
	}
	rings := make([]*Ring, 0, len(n.live))
	for r := range n.live {
		rings = append(rings, r)
	}
	n.mu.Unlock()
	for _, r := range rings {
		r.leave(fmt.Errorf("node: %w", ErrClosed))
	}
	for _, r := range rings {
		<-r.finished
	}
	n.handlers.Wait()
	if n.server != nil {
		// A graceful stop lets the streams' last statuses reach the neighbours.
		linger := time.AfterFunc(n.config.linger, n.server.Stop)
		n.server.GracefulStop()
		linger.Stop()
	}
	<-n.served
	return nil
}

// pass serves one incoming stream: it finds the ring that the stream belongs to, waiting for it if
// need be, and returns when that ring has no more use for the stream.
func (n *Node) pass(stream grpc.ServerStream) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return status.Error(codes.Unavailable, "the node is closed")
	}
	n.handlers.Add(1)
	n.mu.Unlock()
	defer n.handlers.Done()

	h, err := helloOf(stream.Context())
	if err != nil {
		n.log.Warn("all-reduce stream refused", "reason", err)
		return status.Error(codes.InvalidArgument, err.Error())
	}
	r, err := n.admit(stream.Context(), h)
	var i *inLink
	if err == nil {
		i, err = r.claimLink(h)
	}
	if err != nil {
		n.log.Debug("all-reduce stream refused",
			"job", h.job, "generation", h.generation, "from", h.from, "reason", err)
		return err
	}
	return r.serve(i, stream)
}

// admit returns the ring of the hello's generation. If that generation is yet to be joined here, it
// waits. Errors are gRPC statuses for the sender: Unavailable and ResourceExhausted mean that it
// may try again.
func (n *Node) admit(ctx context.Context, h hello) (*Ring, error) {
	n.mu.Lock()
	if m, ok := n.jobs[h.job]; ok && h.generation <= m.generation {
		n.mu.Unlock()
		return m.admit(h)
	}
	if len(n.pending) >= n.config.maxPending {
		n.mu.Unlock()
		return nil, status.Errorf(codes.ResourceExhausted, "%d streams already wait for a generation to be joined",
			n.config.maxPending)
	}
	w := &pendingStream{hello: h, admission: make(chan admission, 1)}
	n.pending[w] = struct{}{}
	n.mu.Unlock()

	defer func() {
		n.mu.Lock()
		delete(n.pending, w)
		n.mu.Unlock()
	}()
	timeout := time.NewTimer(n.config.pendingTimeout)
	defer timeout.Stop()
	select {
	case v := <-w.admission:
		return v.ring, v.err
	case <-timeout.C:
		return nil, status.Errorf(codes.Unavailable, "generation %d of job %q was not joined here within %v",
			h.generation, h.job, n.config.pendingTimeout)
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-n.done:
		return nil, status.Error(codes.Unavailable, "the node is closed")
	}
}

// admit decides on a stream whose generation is m's or an earlier one.
func (m membership) admit(h hello) (*Ring, error) {
	if h.generation < m.generation {
		return nil, status.Errorf(codes.FailedPrecondition,
			"generation %d of job %q is over: generation %d was joined here", h.generation, h.job, m.generation)
	}
	return m.ring, nil
}

// register makes r the latest ring of its job, ends the one before it and decides on the streams
// that wait.
func (n *Node) register(r *Ring) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return fmt.Errorf("node: %w", ErrClosed)
	}
	m, ok := n.jobs[r.job]
	if ok && r.generation <= m.generation {
		n.mu.Unlock()
		return fmt.Errorf("generation %d was joined before, want a later one", m.generation)
	}
	before := m.ring
	m = membership{generation: r.generation, ring: r}
	n.jobs[r.job] = m
	n.live[r] = struct{}{}
	for w := range n.pending {
		if w.hello.job == r.job && w.hello.generation <= r.generation {
			ring, err := m.admit(w.hello)
			w.admission <- admission{ring, err}
			delete(n.pending, w)
		}
	}
	n.mu.Unlock()
	if before != nil {
		before.leave(fmt.Errorf("generation %d: %w: this member has joined generation %d",
			before.generation, ErrClosed, r.generation))
	}
	return nil
}

// unregister forgets a ring that holds no goroutines and connections any more.
func (n *Node) unregister(r *Ring) {
	n.mu.Lock()
	delete(n.live, r)
	n.mu.Unlock()
}
