package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/coordpb"
)

const (
	// outboxSize bounds the messages waiting for one worker. The leader sends at most a few per step and never
	// waits for a worker, so a full outbox means that the worker has stopped reading.
	outboxSize = 64
	// helloTimeout bounds the wait for a new connection's first message.
	helloTimeout = 10 * time.Second
	// maxNameLength bounds every name a worker gives.
	maxNameLength = 256
)

// session is one worker's connection. The fields below the line belong to the controller.
type session struct {
	id      string
	addr    string // its ring address
	host    string
	version string
	outbox  chan *coordpb.CoordinatorMessage
	seen    atomic.Int64 // when it was last heard, Unix nanoseconds
	end     context.CancelCauseFunc
	ended   <-chan struct{} // closed when the stream's context ends

	// ---
	ready  bool
	gen    *generation // the last one that it was part of, as rank
	rank   int
	engine string
	// numerics is what decides the bits of its gradients
	numerics string
	pace
	standing bool      // taken out of its generation, and has not said that it has left it
	rest     time.Time // until when it stays out
	lates    int       // how often it was late
	steady   int       // steps since then
}

func (s *session) String() string {
	return fmt.Sprintf("worker %s (%s, ring %s)", s.id, s.host, s.addr)
}

// close ends the session; the worker is told the code and the reason.
func (s *session) close(code codes.Code, format string, args ...any) {
	s.end(status.Errorf(code, format, args...))
}

// send queues a message. It never waits.
func (s *session) send(m *coordpb.CoordinatorMessage) {
	select {
	case s.outbox <- m:
	default:
		s.close(codes.Unavailable, "%d messages wait for %s, which does not read them", len(s.outbox), s)
	}
}

// event is what the controller's loop takes in. Exactly one field is set beside session.
type event struct {
	session *session
	hello   *coordpb.Hello
	message *coordpb.WorkerMessage
	left    error // the session is over
	applied *applied
	loaded  *loaded
	holds   bool // a replica has said what it has
	tick    bool
}

// server is the controller's side of the streams: it turns them into events, and queued messages into sends.
type server struct {
	events  chan<- event
	version string
	beat    time.Duration // between heartbeats
	logger  *slog.Logger
	closed  <-chan struct{} // closed when the controller takes no more events

	mu     sync.Mutex
	turned turned // workers of another protocol
}

// post hands an event to the controller, or reports that there is none any more.
func (s *server) post(ctx context.Context, e event) error {
	select {
	case s.events <- e:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.closed:
		return status.Error(codes.Unavailable, "this replica does not lead any more")
	}
}

// serve is one worker's session. The stream's goroutine writes; a second one reads.
func (s *server) serve(stream coordpb.Coordinator_SessionServer) error {
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	hello, err := s.hello(ctx, stream)
	if err != nil {
		return err
	}
	introduced(ctx)
	ses := &session{id: hello.WorkerId, addr: hello.RingAddr, host: hello.Host, version: hello.Version,
		outbox: make(chan *coordpb.CoordinatorMessage, outboxSize), end: end, ended: ctx.Done()}
	ses.seen.Store(time.Now().UnixNano())
	if err := s.post(ctx, event{session: ses, hello: hello}); err != nil {
		return err
	}
	// Returning ends the stream, which wakes the reader; it has no other way to be woken.
	go s.read(ctx, stream, ses)
	err = s.write(ctx, stream, ses)
	end(err)
	if lost := s.post(context.WithoutCancel(ctx), event{session: ses, left: err}); lost != nil {
		s.logger.Debug("session ended after the controller", "worker", ses.id, "reason", err)
	}
	return err
}

// hello reads and checks the first message.
func (s *server) hello(ctx context.Context, stream coordpb.Coordinator_SessionServer) (*coordpb.Hello, error) {
	type first struct {
		m   *coordpb.WorkerMessage
		err error
	}
	got := make(chan first, 1)
	go func() {
		m, err := stream.Recv()
		got <- first{m, err}
	}()
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	var f first
	select {
	case f = <-got:
	case <-timer.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "no hello within %v", helloTimeout)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if f.err != nil {
		return nil, f.err
	}
	h := f.m.GetHello()
	if h == nil {
		return nil, status.Errorf(codes.InvalidArgument, "first message is %T, want a hello", f.m.GetBody())
	}
	if h.Protocol != coordpb.ProtocolVersion {
		err := status.Errorf(codes.FailedPrecondition, "worker %.*s (version %.*s) speaks protocol %d, this coordinator (version %s) speaks %d",
			maxNameLength, h.WorkerId, maxNameLength, h.Version, h.Protocol, s.version, coordpb.ProtocolVersion)
		s.mu.Lock()
		say := s.turned.away()
		s.mu.Unlock()
		if say > 0 {
			s.logger.Warn("worker refused", "reason", status.Convert(err).Message(), "refused", say)
		}
		return nil, err
	}
	for name, v := range map[string]string{"id": h.WorkerId, "ring address": h.RingAddr, "version": h.Version, "host": h.Host} {
		if v == "" || len(v) > maxNameLength {
			return nil, status.Errorf(codes.InvalidArgument, "worker's %s has %d bytes, want 1 to %d", name, len(v), maxNameLength)
		}
	}
	return h, nil
}

// read turns the worker's messages into events until the stream or the session ends.
func (s *server) read(ctx context.Context, stream coordpb.Coordinator_SessionServer, ses *session) {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = errors.New("the worker closed its stream")
		}
		if err != nil {
			ses.end(err)
			return
		}
		ses.seen.Store(time.Now().UnixNano())
		if m.GetHeartbeat() != nil {
			continue
		}
		if s.post(ctx, event{session: ses, message: m}) != nil {
			return
		}
	}
}

// write sends queued messages until the session ends, and returns why it did: nil when the session was finished.
func (s *server) write(ctx context.Context, stream coordpb.Coordinator_SessionServer, ses *session) error {
	beat := time.NewTicker(s.beat)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			if err := stream.Send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Heartbeat{Heartbeat: &coordpb.Heartbeat{}}}); err != nil {
				return err
			}
		case m := <-ses.outbox:
			if over, err := deliver(stream, m); over || err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.closed:
			return s.last(stream, ses)
		}
	}
}

// last delivers what the controller has left behind for the worker, and ends the session.
func (s *server) last(stream coordpb.Coordinator_SessionServer, ses *session) error {
	for {
		select {
		case m := <-ses.outbox:
			if over, err := deliver(stream, m); over || err != nil {
				return err
			}
		default:
			return status.Error(codes.Unavailable, "this replica does not lead any more")
		}
	}
}

// deliver sends a message and says whether it was the session's last.
func deliver(stream coordpb.Coordinator_SessionServer, m *coordpb.CoordinatorMessage) (over bool, err error) {
	return m.GetFinish() != nil, stream.Send(m)
}
