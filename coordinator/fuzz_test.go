package coordinator

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// FuzzWorkerMessage has one of three workers send any message in the middle of a step: it causes no
// panic, the other sessions stay, and so does the job. A generation or step of 1 stands for the
// current one, so that hostile messages get past the check for stale ones.
func FuzzWorkerMessage(f *testing.F) {
	for _, m := range seedMessages() {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	const workers = 3
	j := fleetJob(f, workers)
	n := fleetNode(f, j)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(coordpb.WorkerMessage)
		if proto.Unmarshal(data, m) != nil {
			return // gRPC ends the stream
		}
		fleet := startFleet(t, j, n, workers)
		defer fleet.stop()
		// The rank that attaches the state has the most to send.
		hostile := fleet.sessions[fleet.c.attachingRank(fleet.step)]
		plans := make([]*coordpb.Plan, workers)
		for rank, s := range fleet.sessions {
			plans[rank] = (<-s.outbox).GetPlan()
		}

		// The hostile worker sends its message, a report even twice; the others report the step.
		fleet.makeCurrent(m)
		fleet.send(hostile, m)
		if m.GetReport() != nil && fleet.c.roster.has(hostile) {
			fleet.send(hostile, m)
		}
		for rank, s := range fleet.sessions {
			if s != hostile && fleet.c.roster.has(s) {
				fleet.sendReport(s, plans[rank])
			}
		}
		for fleet.c.inFlight > 0 {
			fleet.c.react(event{applied: <-fleet.applied})
		}

		for rank, s := range fleet.sessions {
			if s != hostile && !fleet.c.roster.has(s) {
				t.Errorf("the session of worker %d, which did nothing, ended after %v: %v", rank, m, fleet.ended)
			}
		}
		if fleet.c.failed != nil || fleet.c.deposed != nil || fleet.c.failing {
			t.Errorf("%v ended the job: %v, %v", m, fleet.c.failed, fleet.c.deposed)
		}
	})
}

// seedMessages are messages of every kind, with fields out of range one by one. "right" stands for
// the current state and its digest (see makeCurrent).
func seedMessages() []*coordpb.WorkerMessage {
	digest := make([]byte, 32)
	nan := math.NaN()
	report := func(change func(r *coordpb.Report)) *coordpb.WorkerMessage {
		r := &coordpb.Report{
			Generation:  1,
			Step:        1,
			StateDigest: []byte("right"),
			Tokens:      5,
			State:       []byte("right"),
		}
		change(r)
		return &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Report{Report: r}}
	}
	failure := func(microBatch int32) *coordpb.WorkerMessage {
		return &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Failure{Failure: &coordpb.Failure{
			Generation: 1,
			Step:       1,
			Error:      "why",
			Fatal:      true,
			MicroBatch: microBatch,
		}}}
	}
	progress := func(done int32) *coordpb.WorkerMessage {
		return &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Progress{Progress: &coordpb.Progress{
			Generation: 1,
			Step:       1,
			Done:       done,
		}}}
	}
	return []*coordpb.WorkerMessage{
		{},
		{Body: &coordpb.WorkerMessage_Hello{Hello: &coordpb.Hello{WorkerId: "worker-00000"}}},
		{Body: &coordpb.WorkerMessage_Ready{Ready: &coordpb.Ready{ModelDigest: digest, Numerics: "x"}}},
		report(func(r *coordpb.Report) { r.StateDigest, r.Tokens, r.State = digest, 1, []byte("state") }),
		report(func(r *coordpb.Report) {
			r.StateDigest, r.Tokens, r.State = nil, -1, nil
			r.GradientCost, r.GradientNs = math.MaxInt64, math.MinInt64
		}),
		report(func(r *coordpb.Report) { r.LossSum = nan }),
		report(func(r *coordpb.Report) { r.GradNorm = nan }),
		report(func(r *coordpb.Report) { r.LearningRate = math.Inf(1) }),
		report(func(r *coordpb.Report) { r.Tokens = 0 }),
		report(func(r *coordpb.Report) {
			r.Tokens, r.State = 1, nil
			r.Contributions = []*coordpb.Contribution{{MicroBatch: -1}, {MicroBatch: 1 << 30, Digest: digest}}
		}),
		{Body: &coordpb.WorkerMessage_Evaluation{Evaluation: &coordpb.EvaluationReport{Generation: 1, Step: 1}}},
		failure(1 << 30),
		failure(2),
		failure(0),
		progress(-5),
		progress(math.MaxInt32),
		{Body: &coordpb.WorkerMessage_Standby{Standby: &coordpb.Standby{
			Generation:   1,
			GradientCost: -1,
			GradientNs:   1,
		}}},
		{Body: &coordpb.WorkerMessage_Leave{Leave: &coordpb.Leave{}}},
	}
}

// makeCurrent puts the current generation, step and state where a message has 1, 1 and "right".
func (f *fleet) makeCurrent(m *coordpb.WorkerMessage) {
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
			body.Message().Set(s, protoreflect.ValueOfInt64(int64(f.step)))
		}
		return true
	})
}
