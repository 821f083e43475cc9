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
	"github.com/dptune/dpt/coordinator/internal/refusals"
)

// outboxSize bounds the messages that wait for one worker. The leader sends at most a few per step
// and never waits for a worker, so a full outbox means that the worker has stopped reading.
const outboxSize = 64

// session is one worker's connection.
type session struct {
	id      string
	addr    string // of its ring
	host    string
	version string
	outbox  chan *coordpb.CoordinatorMessage
	heardAt atomic.Int64 // when it was last heard, Unix nanoseconds; set by the stream's reader
	end     context.CancelCauseFunc
	ended   <-chan struct{} // closed when the stream's context ends

	// The fields below belong to the controller's goroutine.
	ready    bool
	gen      *generation // the last one that it was part of, as rank
	rank     int
	engine   string // for messages to people
	numerics string // what decides the bits of its gradients
	pace
	attendance
}

func (s *session) String() string {
	return fmt.Sprintf("worker %s (%s, ring %s)", s.id, s.host, s.addr)
}

// lastHeard is when the worker was last heard.
func (s *session) lastHeard() time.Time { return time.Unix(0, s.heardAt.Load()) }

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

// event is what the controller's loop takes in. One field is set beside session.
type event struct {
	session *session
	hello   *coordpb.Hello         // the session's first message
	message *coordpb.WorkerMessage // any later one
	left    error                  // the session is over
	applied *applied
	loaded  *loadedJob
	holds   bool // a replica has reported which blobs it holds
	tick    bool
}

// handle dispatches an event.
func (c *controller) handle(e event) {
	switch {
	case e.applied != nil:
		c.inFlight--
		c.onApplied(e.applied)
	case e.hello != nil:
		c.onHello(e.session)
	case e.session != nil && !c.roster.has(e.session):
		// A session that was refused or replaced has nothing more to say.
	case e.message != nil:
		c.onMessage(e.session, e.message)
	case e.session != nil:
		c.onLeft(e.session, e.left)
	case e.loaded != nil:
		c.onLoaded(e.loaded)
	case e.tick:
		c.onTick()
	}
}

// onMessage dispatches a worker's message.
func (c *controller) onMessage(s *session, m *coordpb.WorkerMessage) {
	switch b := m.Body.(type) {
	case *coordpb.WorkerMessage_Ready:
		c.onReady(s, b.Ready)
	case *coordpb.WorkerMessage_Report:
		c.onReport(s, b.Report)
	case *coordpb.WorkerMessage_Evaluation:
		c.onEvaluation(s, b.Evaluation)
	case *coordpb.WorkerMessage_Failure:
		c.onFailure(s, b.Failure)
	case *coordpb.WorkerMessage_Progress:
		c.onProgress(s, b.Progress)
	case *coordpb.WorkerMessage_Standby:
		c.onStandby(s, b.Standby)
	case *coordpb.WorkerMessage_Leave:
		s.close(codes.OK, "")
		c.drop(s, errors.New("it asked to leave"))
	default:
		s.close(codes.InvalidArgument, "unexpected message %T from %s", m.Body, s)
	}
}

// server is the controller's side of the streams: it turns them into events, and queued messages
// into sends.
type server struct {
	events  chan<- event
	version string
	beat    time.Duration // between heartbeats
	logger  *slog.Logger
	closed  <-chan struct{} // closed when the controller takes no more events

	mu      sync.Mutex
	refused refusals.Counter // workers that speak another protocol; under mu
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
	ses := &session{
		id:      hello.WorkerId,
		addr:    hello.RingAddr,
		host:    hello.Host,
		version: hello.Version,
		outbox:  make(chan *coordpb.CoordinatorMessage, outboxSize),
		end:     end,
		ended:   ctx.Done(),
	}
	ses.heardAt.Store(time.Now().UnixNano())
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
	type received struct {
		m   *coordpb.WorkerMessage
		err error
	}
	got := make(chan received, 1)
	go func() {
		m, err := stream.Recv()
		got <- received{m, err}
	}()
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	var first received
	select {
	case first = <-got:
	case <-timer.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "no hello within %v", helloTimeout)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if first.err != nil {
		return nil, first.err
	}
	h := first.m.GetHello()
	if h == nil {
		return nil, status.Errorf(codes.InvalidArgument, "first message is %T, want a hello", first.m.GetBody())
	}
	if h.Protocol != coordpb.ProtocolVersion {
		return nil, s.refuseProtocol(h)
	}
	for _, f := range []struct{ name, value string }{
		{"id", h.WorkerId},
		{"ring address", h.RingAddr},
		{"version", h.Version},
		{"host", h.Host},
	} {
		if f.value == "" || len(f.value) > coordpb.MaxNameLength {
			return nil, status.Errorf(codes.InvalidArgument, "worker's %s has %d bytes, want 1 to %d",
				f.name, len(f.value), coordpb.MaxNameLength)
		}
	}
	return h, nil
}

// refuseProtocol refuses a worker that speaks another protocol, and logs it now and then.
func (s *server) refuseProtocol(h *coordpb.Hello) error {
	err := status.Errorf(codes.FailedPrecondition,
		"worker %.*s (version %.*s) speaks protocol %d, this coordinator (version %s) speaks %d",
		coordpb.MaxNameLength, h.WorkerId, coordpb.MaxNameLength, h.Version, h.Protocol,
		s.version, coordpb.ProtocolVersion)
	s.mu.Lock()
	refused := s.refused.Add()
	s.mu.Unlock()
	if refused > 0 {
		s.logger.Warn("worker refused", "reason", status.Convert(err).Message(), "refused", refused)
	}
	return err
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
		ses.heardAt.Store(time.Now().UnixNano())
		if m.GetHeartbeat() != nil {
			continue
		}
		if s.post(ctx, event{session: ses, message: m}) != nil {
			return
		}
	}
}

// write sends queued messages until the session ends, and returns why it did: nil when the session
// was finished.
func (s *server) write(ctx context.Context, stream coordpb.Coordinator_SessionServer, ses *session) error {
	beat := time.NewTicker(s.beat)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			if err := stream.Send(heartbeatMessage()); err != nil {
				return err
			}
		case m := <-ses.outbox:
			if finished, err := deliver(stream, m); finished || err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.closed:
			return s.drain(stream, ses)
		}
	}
}

// drain delivers what the controller has left behind for the worker, and ends the session.
func (s *server) drain(stream coordpb.Coordinator_SessionServer, ses *session) error {
	for {
		select {
		case m := <-ses.outbox:
			if finished, err := deliver(stream, m); finished || err != nil {
				return err
			}
		default:
			return status.Error(codes.Unavailable, "this replica does not lead any more")
		}
	}
}

// deliver sends a message and reports whether it was the session's last.
func deliver(stream coordpb.Coordinator_SessionServer, m *coordpb.CoordinatorMessage) (finished bool, err error) {
	return m.GetFinish() != nil, stream.Send(m)
}
