package allreduce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// fakePeer is rank 1 in a ring of two, whose messages the test writes one by one. It accepts
// whatever stream comes and keeps it open until it ends.
type fakePeer struct {
	t       testing.TB
	deaf    atomic.Bool // it reads nothing
	members []Member
	conn    *grpc.ClientConn
}

func (p *fakePeer) pass(stream grpc.ServerStream) error {
	if err := stream.SendHeader(metadata.Pairs(acceptKey, "1")); err != nil {
		return err
	}
	if p.deaf.Load() {
		<-stream.Context().Done()
		return nil
	}
	for in := new(inbound); ; {
		if err := stream.RecvMsg(in); err != nil {
			return nil
		}
	}
}

func newFakePeer(t testing.TB, victim *Node) *fakePeer {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePeer{t: t, members: []Member{{"victim", victim.Addr()}, {"fake", lis.Addr().String()}}}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	server.RegisterService(&serviceDesc, p)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(lis)
	}()
	t.Cleanup(func() { server.Stop(); <-served })
	p.conn = dialNode(t, victim)
	return p
}

func dialNode(t testing.TB, n *Node) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.Addr(), dialOptions(Config{})...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// open opens a stream to a node with the metadata given.
func open(ctx context.Context, t testing.TB, conn *grpc.ClientConn, md ...string) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(metadata.AppendToOutgoingContext(ctx, md...), &streamDesc, fullMethod)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func (p *fakePeer) hello(generation Generation) hello {
	return hello{generation: generation, from: 1, size: 2, members: membershipDigest(p.members), job: testJob}
}

// meet has the victim join a generation with the fake peer, and returns that one's stream to it.
func (p *fakePeer) meet(ctx context.Context, victim *Node, generation Generation) (*Ring, grpc.ClientStream) {
	p.t.Helper()
	stream := open(ctx, p.t, p.conn, helloKey, string(p.hello(generation).append(nil)))
	ring, err := victim.Join(ctx, testJob, generation, 0, p.members)
	if err != nil {
		p.t.Fatal(err)
	}
	return ring, stream
}

func sendBytes(t testing.TB, stream grpc.ClientStream, b []byte) {
	t.Helper()
	if err := stream.SendMsg(&outbound{mem.SliceBuffer(b)}); err != nil && err != io.EOF {
		t.Fatal(err)
	}
}

// endOf returns the status at the end of a stream.
func endOf(stream grpc.ClientStream) error { return stream.RecvMsg(new(inbound)) }

func TestHostileMessagesEndTheirStreamOnly(t *testing.T) {
	t.Run("ring", func(t *testing.T) {
		hostileMessagesEndTheirStreamOnly(t, ringOnly, header{chunk: 1, count: 3})
	})
	t.Run("doubling", func(t *testing.T) {
		hostileMessagesEndTheirStreamOnly(t, func(*Config) {}, header{chunk: 0, count: 6})
	})
}

// hostileMessagesEndTheirStreamOnly sends messages that are wrong where the given chunk is awaited.
func hostileMessagesEndTheirStreamOnly(t *testing.T, config func(*Config), awaited header) {
	noLeaks(t)
	ctx := testContext(t)
	victim := newTestNode(t, func(c *Config) { config(c); c.MaxMessageBytes = 4096 })
	p := newFakePeer(t, victim)
	const length = 6 // in the ring chunks have 3 numbers, with doubling 6
	good := func(generation Generation) header {
		return header{
			kind:       kindReduce,
			hop:        0,
			job:        jobTag(testJob),
			generation: generation,
			step:       7,
			from:       1,
			length:     length,
			chunk:      awaited.chunk,
			count:      awaited.count,
		}
	}
	changed := func(change func(h *header)) func(Generation) []byte {
		return func(g Generation) []byte {
			h := good(g)
			change(&h)
			return sealed(h, zeros(h.count))
		}
	}
	tests := []struct {
		name string
		data func(Generation) []byte
		want string
	}{
		{"garbage", func(Generation) []byte { return bytes.Repeat([]byte{0xa5}, 200) }, "begins with a5"},
		{"empty", func(Generation) []byte { return nil }, "message of 0 bytes"},
		{"damaged", func(g Generation) []byte {
			b := sealed(good(g), zeros(awaited.count))
			b[headerSize+7] ^= 1
			return b
		}, "checksum"},
		{"too large", func(Generation) []byte { return make([]byte, 4097) }, "larger than max"},
		{"another job", changed(func(h *header) { h.job++ }), "job tag"},
		{"another sender", changed(func(h *header) { h.from = 0 }), "sender's rank 0, want 1"},
		{"future generation", changed(func(h *header) { h.generation++ }), "but the stream is of generation"},
		{"last generation of all", changed(func(h *header) { h.generation = math.MaxUint64 }),
			"but the stream is of generation"},
		{"future step", changed(func(h *header) { h.step++ }), "step 8, but step 7 is not complete"},
		{"another phase", changed(func(h *header) { h.kind = kindGather }), "gather hop 0"},
		{"another hop", changed(func(h *header) { h.hop = 1 }), "reduce hop 1"},
		{"another chunk", changed(func(h *header) { h.chunk ^= 1 }),
			fmt.Sprintf("chunk %d of %d numbers, want reduce hop 0, chunk %d of %d",
				awaited.chunk^1, awaited.count, awaited.chunk, awaited.count)},
		{"short", changed(func(h *header) { h.count = 2 }),
			fmt.Sprintf("chunk %d of 2 numbers", awaited.chunk)},
		{"empty chunk", changed(func(h *header) { h.count = 0 }),
			fmt.Sprintf("chunk %d of 0 numbers", awaited.chunk)},
		{"another length", changed(func(h *header) { h.length = 5 }), "vector of 5 numbers, want 6"},
		{"abort", func(g Generation) []byte {
			h := header{kind: kindAbort, job: jobTag(testJob), generation: g, from: 1, count: 3}
			return sealed(h, []byte("\xffwhy")[1:])
		}, "it aborted because of why"},
		{"out of range", func(g Generation) []byte {
			return sealed(good(g), numbers(slices.Repeat([]word{{hi: 1<<63 - 1}}, awaited.count)...))
		}, "leaves the range"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			generation := Generation(2 * i)
			ring, stream := p.meet(ctx, victim, generation)
			sendBytes(t, stream, tt.data(generation))
			acc := NewAccumulator(length)
			for i := range acc.words {
				acc.words[i] = word{hi: 1 << 62}
			}
			err := ring.AllReduce(ctx, 7, acc)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if _, overflow := errors.AsType[*OverflowError](err); !overflow {
				if peer := peerErrorOf(t, err); peer.Rank != 1 || peer.ID != "fake" || peer.Action != Receiving {
					t.Errorf("got %+v, want that it was received from the fake peer", peer)
				}
			}
			reason := strings.TrimPrefix(tt.want, "it aborted because of ")
			if err := endOf(stream); status.Code(err) == codes.OK || !strings.Contains(err.Error(), reason) {
				t.Errorf("the fake peer's stream ends with %v, want the same reason", err)
			}
			// The node goes on.
			ring, stream = p.meet(ctx, victim, generation+1)
			sendBytes(t, stream, sealed(good(generation+1), zeros(awaited.count)))
			if awaited.count < length {
				h := good(generation + 1)
				h.kind, h.chunk = kindGather, 0
				sendBytes(t, stream, sealed(h, zeros(h.count)))
			}
			if err := ring.AllReduce(ctx, 7, NewAccumulator(length)); err != nil {
				t.Errorf("the next generation: %v", err)
			}
		})
	}
}

func TestStaleMessagesAreDropped(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	victim := newTestNode(t, ringOnly)
	p := newFakePeer(t, victim)
	ring, stream := p.meet(ctx, victim, 5)
	message := func(change func(h *header), value byte) []byte {
		h := header{
			kind:       kindReduce,
			job:        jobTag(testJob),
			generation: 5,
			step:       8,
			from:       1,
			length:     2,
			chunk:      1,
			count:      1,
		}
		change(&h)
		return sealed(h, numbers(slices.Repeat([]word{{hi: uint64(value) << 32}}, h.count)...))
	}
	gather := func(h *header) { h.kind, h.chunk = kindGather, 0 }
	older := func(h *header) { h.generation-- }
	before := func(h *header) { h.step-- }
	sendBytes(t, stream, message(older, 99))
	sendBytes(t, stream, message(before, 99))
	sendBytes(t, stream, message(func(h *header) {}, 10))
	sendBytes(t, stream, message(older, 99))
	sendBytes(t, stream, message(gather, 20))
	// A step ahead, before the victim begins it; stale ones of the step just done come late.
	sendBytes(t, stream, message(gather, 99))
	sendBytes(t, stream, message(func(h *header) { h.step = 9 }, 30))
	sendBytes(t, stream, message(before, 99))
	sendBytes(t, stream, message(func(h *header) { gather(h); h.step = 9 }, 40))
	for i, want := range [][2]int64{{20, 12}, {40, 32}} {
		acc := NewAccumulator(2)
		for j := range 2 {
			if err := acc.AddInt(j, int64(j+1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := ring.AllReduce(ctx, Step(8+i), acc); err != nil {
			t.Fatal(err)
		}
		for j := range 2 {
			if got, err := acc.Int(j); err != nil || got != want[j] {
				t.Errorf("step %d, number %d: got %d, %v, want %d", 8+i, j, got, err, want[j])
			}
		}
	}
}

// TestMessageTooMany has a neighbour send its part of a step twice, while others' are awaited.
func TestMessageTooMany(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newCluster(t, 4, nil)
	rings := c.join(ctx, 1)
	errs := parallel(2, func(i int) error {
		if i == 1 {
			eventually(t, "rank 0 awaits rank 2", func() bool { return rings[0].awaiting(1) })
			again := sealed(header{
				kind:       kindReduce,
				job:        jobTag(testJob),
				generation: 1,
				step:       3,
				from:       1,
				length:     1,
				count:      1,
			}, zeros(1))
			return rings[1].send(rings[1].outTo(0), &again)
		}
		go func() {
			_ = rings[1].AllReduce(ctx, 3, NewAccumulator(1)) // fails when rank 0 does
		}()
		return rings[0].AllReduce(ctx, 3, NewAccumulator(1))
	})
	if peer := peerErrorOf(t, errs[0]); errs[1] != nil || peer.Rank != 1 ||
		!strings.Contains(peer.Error(), "want nothing more from it") {
		t.Errorf("got %v, want that rank 1 has sent too much", errs)
	}
}

func TestStreamsThatAreRefused(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	victim := newTestNode(t, func(c *Config) { c.pendingTimeout = time.Millisecond })
	p := newFakePeer(t, victim)
	ring, _ := p.meet(ctx, victim, 5)
	with := func(change func(h *hello)) []string {
		h := p.hello(5)
		change(&h)
		return []string{helloKey, string(h.append(nil))}
	}
	tests := []struct {
		name string
		md   []string
		code codes.Code
		want string
	}{
		{"no hello", nil, codes.InvalidArgument, "0 values"},
		{"garbled hello", []string{helloKey, "x"}, codes.InvalidArgument, "hello of 1 bytes"},
		{"older generation", with(func(h *hello) { h.generation = 4 }),
			codes.FailedPrecondition, "generation 4 of job \"job\" is over"},
		{"later generation", with(func(h *hello) { h.generation = 6 }),
			codes.Unavailable, "was not joined here within"},
		{"another job", with(func(h *hello) { h.job = "x" }), codes.Unavailable, "was not joined here within"},
		{"second stream", with(func(h *hello) {}), codes.AlreadyExists, "already has a stream"},
		{"another rank", with(func(h *hello) { h.from = 0 }),
			codes.FailedPrecondition, "stream from rank 0, rank 0 wants none from it"},
		{"another size", with(func(h *hello) { h.size = 3 }), codes.FailedPrecondition, "2 members here, 3 there"},
		{"other members", with(func(h *hello) { h.members[0]++ }), codes.FailedPrecondition, "other members"},
	}
	for _, tt := range tests {
		err := endOf(open(ctx, t, p.conn, tt.md...))
		if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %v with %q", tt.name, err, tt.code, tt.want)
		}
	}
	ring.mu.Lock()
	err := ring.err
	ring.mu.Unlock()
	if err != nil {
		t.Errorf("the ring has ended: %v", err)
	}
}

func TestPendingStreamsAreBounded(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	victim := newTestNode(t, func(c *Config) { c.maxPending = 2 })
	p := newFakePeer(t, victim)
	pending := func() int {
		victim.mu.Lock()
		defer victim.mu.Unlock()
		return len(victim.pending)
	}
	streamCtx, cancel := context.WithCancel(ctx)
	for i := range 2 {
		// A connection each, so that the server's own bound on streams does not apply.
		open(streamCtx, t, dialNode(t, victim), helloKey, string(p.hello(Generation(i)).append(nil)))
		eventually(t, "the stream waits", func() bool { return pending() == i+1 })
	}
	err := endOf(open(ctx, t, dialNode(t, victim), helloKey, string(p.hello(2).append(nil))))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want that streams are exhausted", err)
	}
	cancel()
	eventually(t, "streams that were canceled are forgotten", func() bool { return pending() == 0 })
}

// TestNeighbourThatReadsNothing has the next member hang: flow control blocks the ring in
// the middle of a step.
func TestNeighbourThatReadsNothing(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	const length = 400_000 // chunks of 3.2 MB, more than the windows hold
	victim := newTestNode(t, nil)
	p := newFakePeer(t, victim)
	p.deaf.Store(true)
	ring, stream := p.meet(ctx, victim, 1)
	sendBytes(t, stream, sealed(header{
		kind:       kindReduce,
		job:        jobTag(testJob),
		generation: 1,
		step:       1,
		from:       1,
		length:     length,
		chunk:      1,
		count:      length / 2,
	}, zeros(length/2)))
	gaveUp := errors.New("gave up")
	waitCtx, cancel := context.WithCancelCause(ctx)
	done := make(chan error)
	acc, rng := NewAccumulator(length), rand.New(rand.NewPCG(25, 26))
	for i := range acc.words {
		acc.words[i] = word{lo: rng.Uint64(), hi: rng.Uint64() >> 2} // the wire form cannot be shorter
	}
	go func() { done <- ring.AllReduce(waitCtx, 1, acc) }()
	eventually(t, "the second chunk is being sent", func() bool {
		ring.mu.Lock()
		defer ring.mu.Unlock()
		return ring.op.sending != nil && ring.op.next == 1
	})
	cancel(gaveUp)
	err := <-done
	if peer := peerErrorOf(t, err); !errors.Is(err, gaveUp) ||
		peer.Rank != 1 || peer.Action != Sending || peer.Phase != Gather {
		t.Errorf("got %v, want that sending to rank 1 was given up", err)
	}
	<-ring.finished
}
