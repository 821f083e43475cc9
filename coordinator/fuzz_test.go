package coordinator

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"math"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
)

// FuzzParseSnapshot: whatever a snapshot's file holds, an error or what it says of itself.
func FuzzParseSnapshot(f *testing.F) {
	dir, err := openSnapshots(f.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	sink, err := dir.Create(1, 7, 3, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a:1"}}}, 2, nil)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := sink.Write([]byte("the machine")); err != nil {
		f.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		f.Fatal(err)
	}
	list, err := dir.List()
	if err != nil || len(list) != 1 {
		f.Fatalf("%d snapshots, %v, want one", len(list), err)
	}
	good, body, err := dir.read(list[0].ID)
	if err != nil || good.Index != 7 || good.Term != 3 || string(body) != "the machine" {
		f.Fatalf("got %+v with %q, %v", good, body, err)
	}
	seal := func(content []byte) []byte {
		sum := sha256.Sum256(content)
		return append(bytes.Clone(content), sum[:]...)
	}
	head := []byte(snapshotMagic)
	f.Add(append(binary.LittleEndian.AppendUint32(bytes.Clone(head), 2), "{}machine"...))
	f.Add(append(binary.LittleEndian.AppendUint32(bytes.Clone(head), 1<<31), "{}"...))
	f.Add(append(binary.LittleEndian.AppendUint32(bytes.Clone(head), 13), `{"Index":1e9}`...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range [][]byte{data, seal(data)} { // as it is, and past the digest
			meta, body, err := parseSnapshot(file)
			if err != nil {
				continue
			}
			if meta == nil || len(body) > len(file)-sha256.Size-len(snapshotMagic)-4 || !bytes.HasSuffix(file[:len(file)-sha256.Size], body) {
				t.Errorf("%d bytes give %+v and %d bytes of the machine", len(file), meta, len(body))
			}
		}
	})
}

// FuzzParseRequest: whatever a client submits, an error or settings that are in range and come back from their own encoding.
func FuzzParseRequest(f *testing.F) {
	s := job.DefaultSettings()
	good, err := s.Request()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	s.Patience, s.Shots, s.Task, s.Mixture = 3, 16, "rte,cb", "equal"
	if good, err = s.Request(); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"LR":0.3`), []byte(`"LR":-1`), 1))
	f.Add(append(bytes.Clone(good), "{}"...))
	f.Add([]byte(`{"PromptLength":1e99}`))
	f.Add([]byte(`{"Sudo":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := job.ParseRequest(data)
		if err != nil {
			return
		}
		again, err := s.Request()
		if err != nil {
			t.Fatalf("%s is taken as %+v, which is out of range: %v", data, s, err)
		}
		if back, err := job.ParseRequest(again); err != nil || back != s {
			t.Errorf("%s is taken as %+v and comes back as %+v, %v", data, s, back, err)
		}
	})
}

// FuzzWorkerMessage has one of three workers say anything in the middle of a step: never a panic, the other sessions stay, and so does
// the job. Numbers of generation and step that are 1 stand for the present ones, so that what is hostile gets past the check for what is stale.
func FuzzWorkerMessage(f *testing.F) {
	digest := make([]byte, 32)
	nan := math.NaN()
	for _, m := range []*coordpb.WorkerMessage{
		{},
		{Body: &coordpb.WorkerMessage_Hello{Hello: &coordpb.Hello{WorkerId: "worker-00000"}}},
		{Body: &coordpb.WorkerMessage_Ready{Ready: &coordpb.Ready{ModelDigest: digest, Numerics: "x"}}},
		{Body: &coordpb.WorkerMessage_Report{Report: &coordpb.Report{Generation: 1, Step: 1, StateDigest: digest, Tokens: 1, State: []byte("state")}}},
		{Body: &coordpb.WorkerMessage_Report{Report: &coordpb.Report{Generation: 1, Step: 1, Tokens: -1, GradientCost: math.MaxInt64, GradientNs: math.MinInt64}}},
		{Body: &coordpb.WorkerMessage_Report{Report: &coordpb.Report{Generation: 1, Step: 1, StateDigest: []byte("right"), Tokens: 5, LossSum: nan, State: []byte("right")}}},
		{Body: &coordpb.WorkerMessage_Report{Report: &coordpb.Report{Generation: 1, Step: 1, StateDigest: []byte("right"), Tokens: 5, GradNorm: nan, State: []byte("right")}}},
		{Body: &coordpb.WorkerMessage_Report{Report: &coordpb.Report{Generation: 1, Step: 1, StateDigest: []byte("right"), Tokens: 5, LearningRate: math.Inf(1), State: []byte("right")}}},
		{Body: &coordpb.WorkerMessage_Report{Report: &coordpb.Report{Generation: 1, Step: 1, StateDigest: []byte("right"), Tokens: 0, State: []byte("right")}}},
		{Body: &coordpb.WorkerMessage_Report{Report: &coordpb.Report{Generation: 1, Step: 1, StateDigest: []byte("right"), Tokens: 1, Contributions: []*coordpb.Contribution{{MicroBatch: -1}, {MicroBatch: 1 << 30, Digest: digest}}}}},
		{Body: &coordpb.WorkerMessage_Evaluation{Evaluation: &coordpb.EvaluationReport{Generation: 1, Step: 1}}},
		{Body: &coordpb.WorkerMessage_Failure{Failure: &coordpb.Failure{Generation: 1, Step: 1, Error: "why", Fatal: true, MicroBatch: 1 << 30}}},
		{Body: &coordpb.WorkerMessage_Failure{Failure: &coordpb.Failure{Generation: 1, Step: 1, Error: "why", Fatal: true, MicroBatch: 2}}},
		{Body: &coordpb.WorkerMessage_Failure{Failure: &coordpb.Failure{Generation: 1, Step: 1, Error: "why", Fatal: true}}},
		{Body: &coordpb.WorkerMessage_Progress{Progress: &coordpb.Progress{Generation: 1, Step: 1, Done: -5}}},
		{Body: &coordpb.WorkerMessage_Progress{Progress: &coordpb.Progress{Generation: 1, Step: 1, Done: math.MaxInt32}}},
		{Body: &coordpb.WorkerMessage_Standby{Standby: &coordpb.Standby{Generation: 1, GradientCost: -1, GradientNs: 1}}},
		{Body: &coordpb.WorkerMessage_Leave{Leave: &coordpb.Leave{}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	const workers = 3
	job := fleetJob(f, workers)
	n := fleetNode(f, job)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(coordpb.WorkerMessage)
		if proto.Unmarshal(data, m) != nil {
			return // gRPC ends the stream
		}
		fleet := muster(t, job, n, workers)
		defer fleet.disband()
		// The rank that attaches the state has the most to say.
		hostile := fleet.c.attaches(fleet.at)
		plans := make([]*coordpb.Plan, workers)
		for r, s := range fleet.sessions {
			plans[r] = (<-s.outbox).GetPlan()
		}
		fleet.present(m)
		say := func(r int, m *coordpb.WorkerMessage) {
			if s := fleet.sessions[r]; fleet.c.sessions[s.id] == s {
				fleet.c.react(event{session: s, message: m})
			}
		}
		say(hostile, m)
		if m.GetReport() != nil {
			say(hostile, m) // twice
		}
		for r := range workers {
			if r != hostile {
				say(r, &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Report{Report: fleet.report(plans[r])}})
			}
		}
		for fleet.c.inFlight > 0 {
			fleet.c.react(event{applied: <-fleet.applied})
		}
		for r, s := range fleet.sessions {
			if r != hostile && fleet.c.sessions[s.id] != s {
				t.Errorf("the session of worker %d, which did nothing, ended after %v: %v", r, m, fleet.ended)
			}
		}
		if fleet.c.failed != nil || fleet.c.deposed != nil || fleet.c.failing {
			t.Errorf("%v ended the job: %v, %v", m, fleet.c.failed, fleet.c.deposed)
		}
	})
}

// present puts the present generation, step and state where a message has 1, 1 and "right".
func (f *fleet) present(m *coordpb.WorkerMessage) {
	digest := ids.Sum(f.state)
	if r := m.GetReport(); r != nil && string(r.StateDigest) == "right" {
		r.StateDigest = digest[:]
		if string(r.State) == "right" {
			r.State = f.state
		}
	}
	m.ProtoReflect().Range(func(_ protoreflect.FieldDescriptor, body protoreflect.Value) bool {
		fields := body.Message().Descriptor().Fields()
		if g := fields.ByName("generation"); g != nil && body.Message().Get(g).Uint() == 1 {
			body.Message().Set(g, protoreflect.ValueOfUint64(uint64(f.c.gen.number)))
		}
		if s := fields.ByName("step"); s != nil && body.Message().Get(s).Int() == 1 {
			body.Message().Set(s, protoreflect.ValueOfInt64(int64(f.at)))
		}
		return true
	})
}
