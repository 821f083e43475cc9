package coordinator

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// FuzzWorkerMessage has one of three workers say anything in the middle of a step: never a panic,
// the other sessions stay, and so does the job. Numbers of generation and step that are 1 stand for
// the present ones, so that what is hostile gets past the check for what is stale.
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
		hostile := fleet.c.attachingRank(fleet.at)
		plans := make([]*coordpb.Plan, workers)
		for r, s := range fleet.sessions {
			plans[r] = (<-s.outbox).GetPlan()
		}
		fleet.present(m)
		say := func(r int, m *coordpb.WorkerMessage) {
			if s := fleet.sessions[r]; fleet.c.roster.has(s) {
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
			if r != hostile && !fleet.c.roster.has(s) {
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
