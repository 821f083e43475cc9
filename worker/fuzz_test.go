package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/dptune/dpt/allreduce"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/lab/tinyrandom"
	"github.com/dptune/dpt/model/optim"
)

// scriptedStream is a session's stream whose other side sends the messages of a script, whatever it
// receives.
type scriptedStream struct {
	grpc.ClientStream
	session  *session
	lines    []*coordpb.CoordinatorMessage // what is left of the script
	finished bool                          // a Finish was read
	heard    chan struct{}                 // receives when the session sends a message
}

var errScriptOver = errors.New("the script is over")

// Recv is called by the session's goroutine. The stream ends when the work that the script asked
// for is done, has failed, or takes long.
func (s *scriptedStream) Recv() (*coordpb.CoordinatorMessage, error) {
	if len(s.lines) > 0 {
		m := s.lines[0]
		s.lines = s.lines[1:]
		s.finished = m.GetFinish() != nil
		return m, nil
	}
	if g := s.session.gen; g != nil {
		patience := time.After(20 * time.Millisecond)
		for open := true; open; {
			select {
			case <-s.heard:
			case <-g.done:
				open = false
			case <-patience:
				open = false
			}
		}
	}
	return nil, errScriptOver
}

func (s *scriptedStream) Send(m *coordpb.WorkerMessage) error {
	if _, err := proto.Marshal(m); err != nil {
		return err
	}
	select {
	case s.heard <- struct{}{}:
	default:
	}
	return nil
}

func (s *scriptedStream) CloseSend() error { return nil }

// FuzzCoordinatorMessages has a coordinator send any messages, in any order. The session ends with
// an error that names the reason, or well after a Finish, and never with a panic; no goroutine goes
// on afterwards, and the memory used is in proportion to the messages.
//
// The first byte is how many messages of a good beginning (welcome, generation, plan) come first.
// Then comes each message after its length.
func FuzzCoordinatorMessages(f *testing.F) {
	backbone, err := model.Open(tinyrandom.Dir(f), model.Options{Threads: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { backbone.Close() })
	digest := backbone.Digest()
	spec := func() *coordpb.TrainSpec {
		return &coordpb.TrainSpec{
			Method:       "dpt",
			Dim:          int32(backbone.Dim()),
			Length:       2,
			Bottleneck:   1,
			LearningRate: 0.1,
			Beta1:        0.9,
			Beta2:        0.99,
			Epsilon:      1e-8,
			TotalSteps:   10,
		}
	}
	state, err := optim.NewState(make([]float32, (backbone.Dim()+2)*1)).MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	example := func(source ...int32) *coordpb.Example {
		return &coordpb.Example{Id: "x", Source: source, Target: []int32{5, 1}}
	}
	welcome := func(change func(*coordpb.Welcome)) *coordpb.CoordinatorMessage {
		w := &coordpb.Welcome{
			JobId:               "job",
			Version:             "v",
			ModelDigest:         digest[:],
			Train:               spec(),
			HeartbeatIntervalMs: 1000,
			StepTimeoutMs:       1000,
		}
		if change != nil {
			change(w)
		}
		return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Welcome{Welcome: w}}
	}
	generation := func(change func(*coordpb.StartGeneration)) *coordpb.CoordinatorMessage {
		g := &coordpb.StartGeneration{
			Generation: 1,
			Members:    []*coordpb.Member{{Id: "w", RingAddr: "127.0.0.1:1"}},
			State:      state,
		}
		if change != nil {
			change(g)
		}
		return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_StartGeneration{StartGeneration: g}}
	}
	plan := func(change func(*coordpb.Plan)) *coordpb.CoordinatorMessage {
		p := &coordpb.Plan{
			Generation:   1,
			Step:         1,
			MicroBatches: 1,
			Shard:        []*coordpb.MicroBatch{{Examples: []*coordpb.Example{example(4, 1)}}},
			AttachState:  true,
		}
		if change != nil {
			change(p)
		}
		return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Plan{Plan: p}}
	}
	evaluate := func(e *coordpb.Evaluate) *coordpb.CoordinatorMessage {
		e.Generation = 1
		return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Evaluate{Evaluate: e}}
	}
	standDown := &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_StandDown{
		StandDown: &coordpb.StandDown{Generation: 1},
	}}
	idle := func(ms int64) *coordpb.CoordinatorMessage {
		return &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Idle{
			Idle: &coordpb.Idle{HeartbeatIntervalMs: ms},
		}}
	}
	finish := &coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Finish{Finish: &coordpb.Finish{}}}
	good := []*coordpb.CoordinatorMessage{welcome(nil), generation(nil), plan(nil)}

	add := func(before byte, messages ...*coordpb.CoordinatorMessage) {
		data := []byte{before}
		for _, m := range messages {
			b, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			data = append(binary.AppendUvarint(data, uint64(len(b))), b...)
		}
		f.Add(data)
	}
	many := func(n int, m *coordpb.CoordinatorMessage) (list []*coordpb.CoordinatorMessage) {
		for range n {
			list = append(list, m)
		}
		return list
	}
	add(0)
	add(0, &coordpb.CoordinatorMessage{})
	add(0, finish)
	add(3, finish)
	add(0, plan(nil))
	add(0, idle(0), good[0], good[1], good[2], idle(-1), good[1])
	add(0, idle(math.MaxInt64))
	add(0, welcome(func(w *coordpb.Welcome) { w.HeartbeatIntervalMs = math.MinInt64 }), good[1], good[2])
	add(0, welcome(func(w *coordpb.Welcome) { w.HeartbeatTimeoutMs = 7000 }), good[1], good[2])
	add(0, welcome(func(w *coordpb.Welcome) { w.HeartbeatTimeoutMs = math.MaxInt64 }), good[1], good[2])
	add(0, welcome(func(w *coordpb.Welcome) { w.StepTimeoutMs = math.MaxInt64 }), good[1], good[2])
	add(0, welcome(func(w *coordpb.Welcome) { w.Train = nil }))
	add(0, welcome(func(w *coordpb.Welcome) { w.ModelDigest = nil }))
	add(0, welcome(func(w *coordpb.Welcome) { w.Train.Length, w.Train.Bottleneck = 1<<16, 1<<13 }))
	add(0, welcome(func(w *coordpb.Welcome) { w.Train.Method, w.Train.Length, w.Train.Bottleneck = "pt", 1<<23, 0 }))
	add(0, welcome(func(w *coordpb.Welcome) { w.Train.Dim = -1 }))
	add(0, welcome(func(w *coordpb.Welcome) { w.Train.LearningRate, w.Train.Epsilon = math.NaN(), 0 }),
		good[1], good[2])
	add(1, generation(func(g *coordpb.StartGeneration) { g.Rank = -1 }), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) { g.Rank = 1 << 30 }), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) { g.Members = nil }), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) { g.Members = append(g.Members, g.Members[0]) }), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) {
		g.Members = append(g.Members, &coordpb.Member{Id: "b"})
	}), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) { g.ResumeStep = math.MaxInt64 }), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) { g.State = g.State[:20] }), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) { g.State = make([]byte, len(g.State)) }), good[2])
	asBlob := generation(func(g *coordpb.StartGeneration) {
		d := ids.Sum(state)
		g.State, g.StateSize, g.StateDigest = nil, int64(len(state)), d[:]
	})
	storing := plan(func(p *coordpb.Plan) { p.AttachState, p.StoreState = false, true })
	add(1, asBlob, storing)
	add(2, storing)
	add(1, generation(func(g *coordpb.StartGeneration) { g.State, g.StateSize = nil, int64(len(state)) }), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) {
		g.State, g.StateSize, g.StateDigest = nil, int64(len(state)), make([]byte, 32)
	}), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) { g.StateSize = math.MinInt64 }), good[2])
	add(1, generation(func(g *coordpb.StartGeneration) { g.State, g.StateSize = nil, math.MaxInt64 }), good[2])
	add(2, good[1], good[2], good[2])
	add(2, many(2*maxUnfinished, good[1])...)
	add(2, many(2*maxUnfinished, standDown)...)
	add(2, many(2*queueSize, good[2])...)
	add(2, plan(func(p *coordpb.Plan) { p.Step = math.MinInt64 }))
	add(2, plan(func(p *coordpb.Plan) { p.Shard = nil }))
	add(2, plan(func(p *coordpb.Plan) { p.MicroBatches = math.MinInt32 }))
	add(2, plan(func(p *coordpb.Plan) { p.MicroBatches = math.MaxInt32 }))
	add(2, plan(func(p *coordpb.Plan) { p.Shard[0].Examples = nil }))
	add(2, plan(func(p *coordpb.Plan) { p.Shard[0].Examples[0] = example() }))
	add(2, plan(func(p *coordpb.Plan) { p.Shard[0].Examples[0] = example(-1) }))
	add(2, plan(func(p *coordpb.Plan) { p.Shard[0].Examples[0] = example(math.MaxInt32, 1) }))
	add(2, plan(func(p *coordpb.Plan) { p.Shard[0].Index = math.MaxInt32; p.Compare = []int32{math.MaxInt32, -1} }))
	add(2, plan(func(p *coordpb.Plan) { p.Audit, p.Committed = p.Shard, math.MaxInt64 }))
	add(2, evaluate(&coordpb.Evaluate{MaxNewTokens: math.MaxInt32, Examples: []*coordpb.Example{example(4, 1)}}))
	add(2, evaluate(&coordpb.Evaluate{MaxNewTokens: -1, Examples: []*coordpb.Example{example(4, 1)}}))
	add(2, evaluate(&coordpb.Evaluate{
		MaxNewTokens: 2,
		Chunk:        -1,
		Examples:     []*coordpb.Example{{Source: []int32{4, 1}}},
	}))
	add(2, evaluate(&coordpb.Evaluate{MaxNewTokens: 2}))
	add(3, standDown, generation(func(g *coordpb.StartGeneration) { g.Generation = 2 }))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	ring, err := allreduce.NewNode(allreduce.Config{Listener: listener, Logger: logger})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { ring.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &scriptedStream{heard: make(chan struct{}, 1)}
		size := len(data)
		if len(data) > 0 {
			s.lines = append(s.lines, good[:int(data[0])%(len(good)+1)]...)
			data = data[1:]
		}
		for len(data) > 0 {
			n, k := binary.Uvarint(data)
			if k <= 0 || n > uint64(len(data)-k) {
				break
			}
			m := new(coordpb.CoordinatorMessage)
			if proto.Unmarshal(data[k:k+int(n)], m) != nil {
				break // gRPC ends the stream
			}
			if w := m.GetWelcome(); w != nil {
				w.ModelName = "" // any path is allowed; the files there are for the model's own tests
			}
			if e := m.GetEvaluate(); e != nil && e.MaxNewTokens > 8 && e.MaxNewTokens <= maxNewTokens {
				e.MaxNewTokens = 8 // as many as asked for would take too long
			}
			s.lines = append(s.lines, m)
			data = data[k+int(n):]
		}
		w := &worker{
			Config:   Config{ID: "w", Logger: logger, Version: "v"},
			hostname: "host",
			ring:     ring,
			backbone: backbone,
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		s.session = &session{
			worker: w,
			addr:   "coordinator:1",
			stream: s,
			blobs:  &fakeBlobs{fetch: [][]byte{state}},
			abort:  cancel,
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := s.session.run(ctx, time.NewTimer(time.Hour))
		s.session.stopGeneration()
		s.session.standDowns.Wait()
		runtime.ReadMemStats(&after)
		if s.finished != (err == nil) {
			t.Errorf("the session ended with %v when %d messages were left; finished: %v",
				err, len(s.lines), s.finished)
		}
		if err != nil && err.Error() == "" {
			t.Error("the session ended without a reason")
		}
		if n := s.session.unfinished.Load(); n != 0 {
			t.Errorf("%d generations go on after the session", n)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20+uint64(size)<<16 {
			t.Errorf("%d bytes of messages took %d bytes of memory", size, used)
		}
	})
}
