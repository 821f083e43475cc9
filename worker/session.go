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

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/optim"
)

const (
	// leaveGrace bounds the wait for the coordinator to take note of a Leave.
	leaveGrace = time.Second
	// maxUnfinished bounds session.unfinished: a coordinator cannot make this worker pile up
	// goroutines.
	maxUnfinished = 64
	// welcomeTimeout bounds the wait for a coordinator's first answer. A replica holds it back for
	// up to two seconds while it knows no leader.
	welcomeTimeout = 4 * time.Second
)

// errSilent is in the chain of errors of a coordinator that did not answer in time.
var errSilent = errors.New("the coordinator is silent")

// session is one connection to the coordinator. The goroutine that runs it reads from the stream
// and owns the fields that have no comment about others; send may be called from any goroutine.
type session struct {
	*worker
	addr   string // of the coordinator
	joined bool   // the coordinator has welcomed this worker
	stream coordpb.Coordinator_SessionClient
	blobs  coordpb.BlobsClient // on the same connection
	mu     sync.Mutex          // serializes stream.Send and CloseSend
	gen    *generation         // the latest generation; nil before the first

	// unfinished counts the generations that have not ended, including the present one, and the
	// Standbys that wait for the end of one. The goroutines that wait lower it.
	unfinished atomic.Int32
	// standDowns waits for the goroutines that send a Standby when a generation has ended.
	standDowns sync.WaitGroup
	// abort ends the session from within, for the reason given. Any goroutine calls it.
	abort context.CancelCauseFunc
}

// session connects, joins and works until the stream ends. It returns nil after the coordinator's
// Finish; joined reports whether the coordinator took this worker.
func (w *worker) session(ctx context.Context, replica dial.Target) (joined bool, err error) {
	addr := replica.String()
	conn, err := dial.Client(replica.Name, w.targetDialer(replica),
		grpc.WithTransportCredentials(w.Credentials.Coordinator),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(coordpb.MaxMessage),
			grpc.MaxCallSendMsgSize(coordpb.MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    10 * time.Second,
			Timeout: 10 * time.Second,
		}))
	if err != nil {
		return false, &localError{fmt.Errorf("coordinator %s: %w", addr, err)}
	}
	defer conn.Close()

	// The stream outlives ctx until the Leave is sent.
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
	s := &session{worker: w, addr: addr, stream: stream, blobs: coordpb.NewBlobsClient(conn), abort: cancel}
	defer s.standDowns.Wait()
	defer s.stopGeneration()

	// When ctx ends, leave; then run.
	left := context.AfterFunc(ctx, func() {
		_ = s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Leave{Leave: &coordpb.Leave{}}})
		time.AfterFunc(leaveGrace, func() { cancel(context.Cause(ctx)) })
	})
	defer left()
	err = s.run(streamCtx, welcome)
	if cause := context.Cause(streamCtx); cause != nil && ctx.Err() == nil {
		err = cause // why the session was aborted, not that its stream was cancelled
	}
	return s.joined, err
}

// run says hello and handles the coordinator's messages until the stream ends. It stops
// welcomeTimer at the first answer.
func (s *session) run(ctx context.Context, welcomeTimer *time.Timer) error {
	if err := s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Hello{Hello: &coordpb.Hello{
		Protocol: coordpb.ProtocolVersion,
		Version:  s.Version,
		WorkerId: s.ID,
		RingAddr: s.Advertise,
		Host:     s.hostname,
	}}}); err != nil {
		return s.streamError(err)
	}

	// The first answer welcomes this worker to a job or to wait for one, or says that all is done.
	first, err := s.stream.Recv()
	if err != nil {
		return err
	}
	welcomeTimer.Stop()
	if first.GetFinish() != nil {
		return s.closeSend()
	}
	welcome, idle := first.GetWelcome(), first.GetIdle()
	if welcome == nil && idle == nil {
		return &localError{fmt.Errorf("coordinator %s: first message is %T, want a welcome", s.addr, first.Body)}
	}
	s.welcomed = true
	interval, timeout, err := heartbeatsOf(welcome, idle)
	if err != nil {
		return &localError{fmt.Errorf("coordinator %s: %w", s.addr, err)}
	}
	s.joined = true

	// Heartbeats go out from here on, also while this goroutine loads the backbone.
	beatCtx, stopBeat := context.WithCancel(ctx)
	beatsEnded := make(chan struct{})
	go func() { defer close(beatsEnded); s.sendHeartbeats(beatCtx, interval) }()
	defer func() { stopBeat(); <-beatsEnded }()

	var job *trainer // nil while there is no job
	if welcome != nil {
		if job, err = s.prepareJob(welcome); err != nil {
			return err
		}
	} else {
		s.Logger.Info("joined the coordinator, which has no job now", "coordinator", s.addr, "ring", s.Advertise)
	}

	// A coordinator that hangs keeps its connections, but its heartbeats stay out.
	silence := time.AfterFunc(timeout, func() {
		s.abort(fmt.Errorf("coordinator %s: %w: not heard for %v", s.addr, errSilent, timeout))
	})
	defer silence.Stop()
	for {
		m, err := s.stream.Recv()
		silence.Reset(timeout)
		if err != nil {
			if err == io.EOF {
				err = status.Error(codes.Unavailable, "the coordinator closed the session")
			}
			return err
		}
		switch b := m.Body.(type) {
		case *coordpb.CoordinatorMessage_Welcome:
			s.stopGeneration()
			silence.Stop() // while this goroutine loads the backbone, it reads no messages
			if job, err = s.prepareJob(b.Welcome); err != nil {
				return err
			}
			silence.Reset(timeout)
		case *coordpb.CoordinatorMessage_Idle:
			s.stopGeneration()
			job = nil
		case *coordpb.CoordinatorMessage_StartGeneration:
			if job == nil {
				return &localError{fmt.Errorf("coordinator %s: generation %d without a job, want a welcome first",
					s.addr, b.StartGeneration.Generation)}
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
			return s.closeSend()
		default:
			return &localError{fmt.Errorf("coordinator %s: unknown message %T", s.addr, m.Body)}
		}
	}
}

// prepareJob loads the backbone, makes a trainer for the job and sends Ready.
func (s *session) prepareJob(w *coordpb.Welcome) (*trainer, error) {
	if _, err := ids.DigestOf(w.ModelDigest); err != nil {
		return nil, &localError{fmt.Errorf("coordinator %s: model %w", s.addr, err)}
	}
	if err := s.load(w.ModelName); err != nil {
		return nil, &localError{err}
	}
	job, err := newTrainer(s.worker, w)
	if err != nil {
		return nil, &localError{err}
	}
	s.Logger.Info("joined the coordinator", "coordinator", s.addr, "job", w.JobId, "ring", s.Advertise)
	digest := s.backbone.Digest()
	if err := s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Ready{Ready: &coordpb.Ready{
		ModelDigest: digest[:],
		ModelName:   s.backbonePath,
		Engine:      s.backbone.EngineName(),
		Numerics:    s.backbone.Numerics(),
		JobId:       w.JobId,
		Blobs:       true,
	}}}); err != nil {
		return nil, s.streamError(err)
	}
	return job, nil
}

// streamError returns the reason that the server gave for a failed Send, which itself is only
// io.EOF.
func (s *session) streamError(err error) error {
	if err != io.EOF {
		return err
	}
	for {
		if _, err := s.stream.Recv(); err != nil {
			return err
		}
	}
}

// send sends a message to the coordinator. Any goroutine may call it.
func (s *session) send(m *coordpb.WorkerMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

// closeSend ends the messages to the coordinator. A heartbeat may be on its way: a stream allows no
// CloseSend beside a Send.
func (s *session) closeSend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.CloseSend()
}

// startGeneration abandons the present generation and starts the next. It does not wait for the
// abandoned one's end, so that this goroutine goes on reading.
func (s *session) startGeneration(ctx context.Context, t *trainer, m *coordpb.StartGeneration) error {
	// The state comes in the message or as a blob, whole in either case.
	want := int64(optim.StateSize(len(t.grad)))
	if size := m.StateSize + int64(len(m.State)); size != want || m.StateSize != 0 && len(m.State) > 0 {
		return &localError{fmt.Errorf(
			"coordinator %s: generation %d with a state of %d bytes, want %d for %d parameters",
			s.addr, m.Generation, size, want, len(t.grad))}
	}
	if m.StateSize != 0 {
		if _, err := ids.DigestOf(m.StateDigest); err != nil {
			return &localError{fmt.Errorf("coordinator %s: generation %d: state %w", s.addr, m.Generation, err)}
		}
	}
	if err := s.addUnfinished(); err != nil {
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

// addUnfinished counts one more goroutine that waits for the end of a generation, unless there are
// too many. That goroutine lowers unfinished.
func (s *session) addUnfinished() error {
	if n := s.unfinished.Add(1); n > maxUnfinished {
		s.unfinished.Add(-1)
		return &localError{fmt.Errorf("coordinator %s: %d generations that have not ended here, want at most %d",
			s.addr, n, maxUnfinished)}
	}
	return nil
}

// standDown abandons a generation that goes on without this worker, and sends a Standby when that
// has ended here: late, if the worker hangs or computes slowly.
func (s *session) standDown(generation uint64) error {
	if err := s.addUnfinished(); err != nil {
		return err
	}
	g := s.gen
	if g != nil && uint64(g.number) == generation {
		g.cancel()
	}
	s.standDowns.Go(func() {
		defer s.unfinished.Add(-1)
		m := &coordpb.Standby{Generation: generation}
		if g != nil && uint64(g.number) == generation {
			<-g.done
			m.GradientNs, m.GradientCost = g.abandonedWork.took.Nanoseconds(), g.abandonedWork.cost
		}
		// If this fails, the reader learns why.
		_ = s.send(&coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Standby{Standby: m}})
	})
	return nil
}

// stopGeneration abandons the step in flight and waits until the generation has ended.
func (s *session) stopGeneration() {
	if s.gen != nil {
		s.gen.cancel()
		<-s.gen.done
		s.gen = nil
	}
}

// queue hands work to the generation that it belongs to, and drops that of another.
func (s *session) queue(generation uint64, m *coordpb.CoordinatorMessage) {
	if s.gen == nil || uint64(s.gen.number) != generation {
		return
	}
	select {
	case s.gen.queue <- m:
	default:
		s.abort(&localError{fmt.Errorf("coordinator %s: more than %d messages ahead of this worker",
			s.addr, cap(s.gen.queue))})
	}
}
