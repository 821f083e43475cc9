package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/optim"
)

const (
	maxMessage = 64 << 20
	// leaveGrace bounds the wait for the coordinator to take note of a leave.
	leaveGrace = time.Second
	// defaultHeartbeat stands in until the coordinator names its interval.
	defaultHeartbeat = time.Second
	// missedBeats is how many intervals of silence end a session.
	missedBeats = 5
	// maxHeartbeat bounds what it may name, so that a worker does not wait for long for a coordinator that is gone.
	maxHeartbeat = time.Hour
	// maxAbandoned bounds the generations, and the words that they are abandoned, that wait for an abandoned one's micro-batch to end.
	maxAbandoned = 64
	// welcomeTimeout bounds the wait for a coordinator's first answer: it may hold the question for two seconds while it
	// has no leader.
	welcomeTimeout = 4 * time.Second
)

var errSilent = errors.New("the coordinator is silent")

// session is one connection to the coordinator. The goroutine that runs it reads; send may be called from any.
type session struct {
	*worker
	addr   string // of the coordinator
	joined bool   // it has welcomed us
	stream coordpb.Coordinator_SessionClient
	blobs  coordpb.BlobsClient // of the same connection
	mu     sync.Mutex          // serializes Send
	gen    *generation
	// abandoned counts the generations that have not ended, with the present one, and the Standbys that wait for that.
	abandoned atomic.Int32
	// standing are the goroutines that wait for a generation that this worker stands down from.
	standing sync.WaitGroup
	broken   context.CancelCauseFunc // ends the session from within
}

// session connects, joins and works until the stream ends. It returns nil after the coordinator's Finish; joined says
// whether the coordinator took this worker.
func (w *worker) session(ctx context.Context, addr string) (joined bool, err error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, append(w.dialOptions(), grpc.WithTransportCredentials(w.Credentials.Coordinator),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}))...)
	if err != nil {
		return false, &localError{fmt.Errorf("coordinator %s: %w", addr, err)}
	}
	defer conn.Close()
	// The stream outlives ctx for as long as it takes to say that we leave.
	streamCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	welcome := time.AfterFunc(welcomeTimeout, func() {
		cancel(fmt.Errorf("coordinator %s: %w: no welcome within %v", addr, errSilent, welcomeTimeout))
	})
	defer welcome.Stop()
	stream, err := coordpb.NewCoordinatorClient(conn).Session(streamCtx)
	if err != nil {
		return false, err
	}
	s := &session{worker: w, addr: addr, stream: stream, blobs: coordpb.NewBlobsClient(conn), broken: cancel}
	defer s.standing.Wait()
	defer s.stopGeneration()
	left := context.AfterFunc(ctx, func() {
		_ = s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Leave{Leave: &coordpb.Leave{}}})
		time.AfterFunc(leaveGrace, func() { cancel(context.Cause(ctx)) })
	})
	defer left()
	err = s.run(streamCtx, welcome)
	if cause := context.Cause(streamCtx); cause != nil && ctx.Err() == nil {
		err = cause // broken from within: say why, not that it was cancelled
	}
	return s.joined, err
}

func (s *session) run(ctx context.Context, silence *time.Timer) error {
	if err := s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Hello{Hello: &coordpb.Hello{
		Protocol: coordpb.ProtocolVersion, Version: s.Version, WorkerId: s.ID, RingAddr: s.Advertise, Host: s.host,
	}}}); err != nil {
		return s.ended(err)
	}
	first, err := s.stream.Recv()
	if err != nil {
		return err
	}
	silence.Stop()
	if first.GetFinish() != nil {
		return s.stream.CloseSend()
	}
	welcome, idle := first.GetWelcome(), first.GetIdle()
	if welcome == nil && idle == nil {
		return &localError{fmt.Errorf("coordinator %s: first message is %T, want a welcome", s.addr, first.Body)}
	}
	s.welcome = true
	beat := defaultHeartbeat
	if ms := welcome.GetHeartbeatIntervalMs() + idle.GetHeartbeatIntervalMs(); ms > maxHeartbeat.Milliseconds() {
		return &localError{fmt.Errorf("coordinator %s: heartbeats every %d ms, want at most %d", s.addr, ms, maxHeartbeat.Milliseconds())}
	} else if ms > 0 {
		beat = time.Duration(ms) * time.Millisecond
	}
	s.joined = true
	beatCtx, stopBeat := context.WithCancel(ctx)
	beating := make(chan struct{})
	go func() { defer close(beating); s.beat(beatCtx, beat) }()
	defer func() { stopBeat(); <-beating }()

	var job *trainer // nil while there is no job
	if welcome != nil {
		if job, err = s.take(welcome); err != nil {
			return err
		}
	} else {
		s.Logger.Info("joined the coordinator, which has no job now", "coordinator", s.addr, "ring", s.Advertise)
	}
	// A coordinator that hangs keeps its connections. It is missed by its heartbeats.
	limit := missedBeats * beat
	watch := time.AfterFunc(limit, func() {
		s.broken(fmt.Errorf("coordinator %s: %w: not heard for %v", s.addr, errSilent, limit))
	})
	defer watch.Stop()
	for {
		m, err := s.stream.Recv()
		watch.Reset(limit)
		if err != nil {
			if err == io.EOF {
				err = status.Error(codes.Unavailable, "the coordinator closed the session")
			}
			return err
		}
		switch b := m.Body.(type) {
		case *coordpb.CoordinatorMessage_Welcome:
			s.stopGeneration()
			watch.Stop() // while this goroutine loads, it does not listen
			if job, err = s.take(b.Welcome); err != nil {
				return err
			}
			watch.Reset(limit)
		case *coordpb.CoordinatorMessage_Idle:
			s.stopGeneration()
			job = nil
		case *coordpb.CoordinatorMessage_StartGeneration:
			if job == nil {
				return &localError{fmt.Errorf("coordinator %s: generation %d without a job", s.addr, b.StartGeneration.Generation)}
			}
			if err := s.startGeneration(ctx, job, b.StartGeneration); err != nil {
				return err
			}
		case *coordpb.CoordinatorMessage_Plan:
			s.queue(b.Plan.Generation, m)
		case *coordpb.CoordinatorMessage_Evaluate:
			s.queue(b.Evaluate.Generation, m)
		case *coordpb.CoordinatorMessage_StandDown:
			if err := s.standDown(b.StandDown.Generation); err != nil {
				return err
			}
		case *coordpb.CoordinatorMessage_Heartbeat:
		case *coordpb.CoordinatorMessage_Finish:
			return s.stream.CloseSend()
		default:
			return &localError{fmt.Errorf("coordinator %s: unexpected message %T", s.addr, m.Body)}
		}
	}
}

// take makes this worker ready for a job, and says so.
func (s *session) take(w *coordpb.Welcome) (*trainer, error) {
	want, err := ids.DigestOf(w.ModelDigest)
	if err != nil {
		return nil, &localError{fmt.Errorf("coordinator %s: model %w", s.addr, err)}
	}
	if err := s.load(w.ModelName, want); err != nil {
		return nil, &localError{err}
	}
	job, err := newTrainer(s.worker, w)
	if err != nil {
		return nil, &localError{err}
	}
	s.Logger.Info("joined the coordinator", "coordinator", s.addr, "job", w.JobId, "ring", s.Advertise)
	digest := s.backbone.Digest()
	if err := s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Ready{Ready: &coordpb.Ready{
		ModelDigest: digest[:], ModelName: s.path, Engine: s.backbone.EngineName(), Numerics: s.backbone.Numerics(), JobId: w.JobId, Blobs: true,
	}}}); err != nil {
		return nil, s.ended(err)
	}
	return job, nil
}

// ended turns a failed Send into the reason that the server gave: Send itself only says EOF.
func (s *session) ended(err error) error {
	if err != io.EOF {
		return err
	}
	for {
		if _, err := s.stream.Recv(); err != nil {
			return err
		}
	}
}

func (s *session) send(m *coordpb.WorkerMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

// beat tells the coordinator that this process is alive, also while it loads or computes.
func (s *session) beat(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Heartbeat{Heartbeat: &coordpb.Heartbeat{}}}) != nil {
				return // the reader learns why
			}
		}
	}
}

// startGeneration abandons the generation before. It does not wait for its end, so that the coordinator is heard meanwhile.
func (s *session) startGeneration(ctx context.Context, t *trainer, m *coordpb.StartGeneration) error {
	most := optim.StateSize(len(t.grad))
	if size := m.StateSize + int64(len(m.State)); size != int64(most) || m.StateSize != 0 && len(m.State) > 0 {
		return &localError{fmt.Errorf("coordinator %s: generation %d with a state of %d bytes, want %d for %d parameters", s.addr, m.Generation, size, most, len(t.grad))}
	}
	if m.StateSize != 0 {
		if _, err := ids.DigestOf(m.StateDigest); err != nil {
			return &localError{fmt.Errorf("coordinator %s: generation %d: state %w", s.addr, m.Generation, err)}
		}
	}
	if err := s.abandon(); err != nil {
		return err
	}
	before := s.gen
	if before != nil {
		before.cancel()
	}
	s.gen = newGeneration(s, t, m)
	s.gen.start(ctx, before)
	return nil
}

// abandon counts one more that waits for what was abandoned to end; abandoned is lowered when it has.
func (s *session) abandon() error {
	if n := s.abandoned.Add(1); n > maxAbandoned {
		s.abandoned.Add(-1)
		return &localError{fmt.Errorf("coordinator %s: %d generations that have not ended here, want at most %d", s.addr, n, maxAbandoned)}
	}
	return nil
}

// standDown abandons a generation that goes on without this worker, and says when that is done: a worker that hangs or
// computes slowly says so late.
func (s *session) standDown(generation uint64) error {
	if err := s.abandon(); err != nil {
		return err
	}
	g := s.gen
	if g != nil && uint64(g.number) == generation {
		g.cancel()
	}
	s.standing.Go(func() {
		defer s.abandoned.Add(-1)
		m := &coordpb.Standby{Generation: generation}
		if g != nil && uint64(g.number) == generation {
			<-g.done
			m.GradientNs, m.GradientCost = g.left.took.Nanoseconds(), g.left.cost
		}
		_ = s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Standby{Standby: m}}) // the reader learns why
	})
	return nil
}

// stopGeneration abandons the step in flight and waits until it is.
func (s *session) stopGeneration() {
	if s.gen != nil {
		s.gen.cancel()
		<-s.gen.done
		s.gen = nil
	}
}

// queue hands work to the generation it belongs to; work of an ended one is dropped.
func (s *session) queue(generation uint64, m *coordpb.CoordinatorMessage) {
	if s.gen == nil || uint64(s.gen.number) != generation {
		return
	}
	select {
	case s.gen.work <- m:
	default:
		s.broken(&localError{fmt.Errorf("coordinator %s: more than %d messages ahead of this worker", s.addr, cap(s.gen.work))})
	}
}
