package allreduce

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// connTracker tracks a node's connections, so that a test can cut them as a killed process would.
type connTracker struct {
	dead  atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

// trackedConn is a connection that sends nothing any more once its tracker has cut it.
type trackedConn struct {
	net.Conn
	tracker *connTracker
}

func (w trackedConn) Write(b []byte) (int, error) {
	if w.tracker.dead.Load() {
		return 0, net.ErrClosed
	}
	return w.Conn.Write(b)
}

type trackedListener struct {
	net.Listener
	tracker *connTracker
}

func (l trackedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return l.tracker.add(conn, err)
}

func (w *connTracker) add(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, conn)
	return trackedConn{conn, w}, nil
}

// install has a node's connections tracked.
func (w *connTracker) install(c *Config) {
	c.Listener = trackedListener{c.Listener, w}
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		return w.add(new(net.Dialer).DialContext(ctx, "tcp", addr))
	}
	c.DialOptions = append(c.DialOptions, grpc.WithContextDialer(dial))
}

// cut breaks all connections, those made later included.
func (w *connTracker) cut() {
	w.dead.Store(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset
		conn.Close()
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// awaiting reports whether the ring's all-reduce waits for hop i's message.
func (r *Ring) awaiting(i int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.op.awaiting && r.op.next == i
}

// TestMemberDiesMidStep kills one of four at various hops, and goes on with the
// survivors and a fresh member.
func TestMemberDiesMidStep(t *testing.T) {
	// In the ring the member before the dead one gets furthest: it lacks only the last chunk.
	t.Run("ring", func(t *testing.T) { memberDiesMidStep(t, ringOnly, 2) })
	t.Run("doubling", func(t *testing.T) { memberDiesMidStep(t, nil, 1) })
}

func memberDiesMidStep(t *testing.T, config func(*Config), furthest int) {
	noLeaks(t)
	ctx := testContext(t)
	rng := rand.New(rand.NewPCG(21, 22))
	const size, dead = 4, 2
	c := newCluster(t, size, config)
	for round := range 4 {
		var w connTracker
		c.nodes[dead] = newTestNode(t, func(c *Config) {
			w.install(c)
			if config != nil {
				config(c)
			}
		})
		c.members[dead].Addr = c.nodes[dead].Addr()
		rings := c.join(ctx, Generation(2*round))
		// The dead member takes no part in the step, so that all others stop in it. Each round has
		// one more complete step before that.
		for step := range round {
			accs, sums := randomAccumulators(rng, size, 10)
			c.each(func(i int) error { return rings[i].AllReduce(ctx, Step(step), accs[i]) })
			checkSums(t, accs, sums)
		}
		accs, _ := randomAccumulators(rng, size, 10)
		errs := parallel(size, func(i int) error {
			if i != dead {
				return rings[i].AllReduce(ctx, 100, accs[i])
			}
			eventually(t, "the survivors are as far as they can be", func() bool {
				return rings[0].awaiting(1) && rings[1].awaiting(furthest) && rings[3].awaiting(0)
			})
			w.cut()
			return nil
		})
		named := 0
		for i, err := range errs {
			if i == dead {
				continue
			}
			peer := peerErrorOf(t, err)
			switch {
			case peer.Aborted && strings.Contains(peer.Err.Error(), "rank 2 (w2 at "):
			case !peer.Aborted && peer.Rank == dead && peer.ID == "w2" && peer.Addr == c.members[dead].Addr:
				named++
			default:
				t.Errorf("rank %d does not blame rank %d: %v", i, dead, err)
			}
			if peer.Generation != Generation(2*round) || peer.Step != 100 || peer.Phase != Reduce {
				t.Errorf("rank %d: wrong place in %v", i, err)
			}
			if again := rings[i].AllReduce(ctx, 101, accs[i]); again == nil {
				t.Errorf("rank %d: the ring lives on after %v", i, err)
			}
			rings[i].Close()
		}
		if named == 0 {
			t.Errorf("no member saw rank %d itself fail: %v", dead, errs)
		}
		// The survivors go on as three.
		survivors := &cluster{
			t:       t,
			nodes:   slices.Delete(slices.Clone(c.nodes), dead, dead+1),
			members: slices.Delete(slices.Clone(c.members), dead, dead+1),
		}
		rings = survivors.join(ctx, Generation(2*round+1))
		accs, sums := randomAccumulators(rng, size-1, 10)
		survivors.each(func(i int) error { return rings[i].AllReduce(ctx, 100, accs[i]) })
		checkSums(t, accs, sums)
	}
}

func TestContextEndsTheWait(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newCluster(t, 3, ringOnly)
	rings := c.join(ctx, 4)
	gaveUp := errors.New("gave up")
	waitCtx, cancel := context.WithCancelCause(ctx)
	// Rank 1 takes no part, so rank 2 waits for it and rank 0 for rank 2.
	errs := parallel(3, func(i int) error {
		switch i {
		case 1:
			eventually(t, "rank 0 waits for its second chunk", func() bool { return rings[0].awaiting(1) })
			cancel(gaveUp)
			return nil
		case 2:
			return rings[2].AllReduce(waitCtx, 9, NewAccumulator(5))
		}
		return rings[0].AllReduce(ctx, 9, NewAccumulator(5))
	})
	peer := peerErrorOf(t, errs[2])
	want := PeerError{
		Generation: 4,
		Rank:       1,
		ID:         "w1",
		Addr:       c.members[1].Addr,
		Action:     Receiving,
		Step:       9,
		Phase:      Reduce,
		Hop:        0,
		Err:        gaveUp,
	}
	if *peer != want || !errors.Is(errs[2], gaveUp) {
		t.Errorf("rank 2: got %+v, want %+v", *peer, want)
	}
	text := "step 9 of generation 4, reduce hop 0: receive from rank 1 (w1 at " + c.members[1].Addr + "): gave up"
	if got := peer.Error(); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
	if peer = peerErrorOf(t, errs[0]); !peer.Aborted || peer.Hop != 1 ||
		!strings.HasPrefix(peer.Err.Error(), "rank 2 (w2): ") || !strings.HasSuffix(peer.Err.Error(), "gave up") {
		t.Errorf("rank 0: got %v, want that rank 2 aborted and why", errs[0])
	}
	// Rank 1 was idle and still learns of it.
	<-rings[1].life.Done()
	if peer = peerErrorOf(t, rings[1].AllReduce(ctx, 9, NewAccumulator(5))); !peer.Aborted {
		t.Errorf("rank 1: got %v, want that a neighbour aborted", peer)
	}

	expired, cancelNow := context.WithDeadline(ctx, time.Unix(0, 0))
	defer cancelNow()
	rings = c.join(ctx, 5)
	if err := rings[0].AllReduce(expired, 1, NewAccumulator(5)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the deadline was exceeded", err)
	}
}

func TestLaterGenerationEndsTheRing(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newCluster(t, 3, nil)
	old := c.join(ctx, 1)
	waiting := make(chan error)
	go func() { waiting <- old[2].AllReduce(ctx, 1, NewAccumulator(4)) }()
	eventually(t, "rank 2 waits", func() bool { return old[2].awaiting(1) })
	rings := c.join(ctx, 2)
	if err := <-waiting; err == nil {
		t.Error("a step of generation 1 was completed by one member")
	}
	if err := old[0].AllReduce(ctx, 1, NewAccumulator(4)); err == nil {
		t.Error("the ring of generation 1 still works")
	}
	rng := rand.New(rand.NewPCG(23, 24))
	accs, sums := randomAccumulators(rng, 3, 4)
	c.each(func(i int) error { return rings[i].AllReduce(ctx, 1, accs[i]) })
	checkSums(t, accs, sums)
	for _, g := range []Generation{0, 1, 2} {
		_, err := c.nodes[0].Join(ctx, testJob, g, 0, c.members)
		if err == nil || !strings.Contains(err.Error(), "generation 2 was joined before") {
			t.Errorf("joining generation %d after 2: got %v", g, err)
		}
	}
}

// TestStreamWaitsForItsGeneration has one member told of a generation before the other.
func TestStreamWaitsForItsGeneration(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newCluster(t, 2, nil)
	c.join(ctx, 1)
	early := make(chan error)
	go func() {
		ring, err := c.nodes[0].Join(ctx, testJob, 2, 0, c.members)
		if err == nil {
			err = ring.AllReduce(ctx, 1, NewAccumulator(3))
		}
		early <- err
	}()
	eventually(t, "a stream of generation 2 waits", func() bool {
		c.nodes[1].mu.Lock()
		defer c.nodes[1].mu.Unlock()
		return len(c.nodes[1].pending) == 1
	})
	ring, err := c.nodes[1].Join(ctx, testJob, 2, 1, c.members)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ring.AllReduce(ctx, 1, NewAccumulator(3)), <-early); err != nil {
		t.Error(err)
	}
}

func TestJoinWaitsForAMemberThatStartsLater(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	lis.Close()
	first := newTestNode(t, nil)
	members := []Member{{"a", first.Addr()}, {"b", addr}}

	short, cancel := context.WithCancel(ctx)
	failed := make(chan error)
	go func() {
		_, err := first.Join(short, testJob, 1, 0, members)
		failed <- err
	}()
	time.Sleep(10 * time.Millisecond) // for an attempt or two; the outcome does not depend on it
	cancel()
	err = <-failed
	peer := peerErrorOf(t, err)
	if !errors.Is(err, context.Canceled) || peer.Action != Joining ||
		peer.Rank != 1 || peer.ID != "b" || peer.Addr != addr {
		t.Errorf("got %v, want that the join of b was canceled", err)
	}

	joined := make(chan error)
	go func() {
		_, err := first.Join(ctx, testJob, 2, 0, members)
		joined <- err
	}()
	second := newTestNode(t, func(c *Config) {
		c.Listener.Close()
		if c.Listener, err = net.Listen("tcp", addr); err != nil {
			t.Skipf("the port was taken by another process: %v", err)
		}
	})
	if _, err := second.Join(ctx, testJob, 2, 1, members); err != nil {
		t.Error(err)
	}
	if err := <-joined; err != nil {
		t.Error(err)
	}
}

func TestMembersThatDisagree(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newCluster(t, 2, nil)
	errs := parallel(2, func(i int) error {
		members := slices.Clone(c.members)
		if i == 1 {
			members[0].ID = "other"
		}
		_, err := c.nodes[i].Join(ctx, testJob, 1, Rank(i), members)
		return err
	})
	for i, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "other members") {
			t.Errorf("rank %d: got %v, want that the members differ", i, err)
		}
	}
	ids := []Member{{ID: "a"}, {ID: "b"}}
	for _, tt := range []struct {
		name    string
		job     string
		rank    Rank
		members []Member
	}{
		{"no job", "", 0, ids},
		{"long job", strings.Repeat("j", maxJob+1), 0, ids},
		{"no members", "j", 0, nil},
		{"rank too high", "j", 2, ids},
		{"rank negative", "j", -1, ids},
		{"id twice", "j", 0, []Member{{ID: "a"}, {ID: "a"}}},
		{"no id", "j", 0, []Member{{ID: "a"}, {}}},
	} {
		if _, err := c.nodes[0].Join(ctx, tt.job, 1, tt.rank, tt.members); err == nil {
			t.Errorf("%s: joined", tt.name)
		}
	}
}

func TestWrongUseEndsTheRing(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newCluster(t, 2, func(config *Config) { config.MaxMessageBytes = headerSize + maxPacked(10) })
	tests := []struct {
		name string
		act  func(rings []*Ring, i int) error
		want string // in the error of one member
	}{
		{"a step again", func(rings []*Ring, i int) error {
			if err := rings[i].AllReduce(ctx, 5, NewAccumulator(1)); err != nil {
				return err
			}
			return rings[i].AllReduce(ctx, 5, NewAccumulator(1))
		}, "step 5 was begun before"},
		{"too many hops", func(rings []*Ring, i int) error {
			return rings[i].AllReduce(ctx, 1, NewAccumulator(2*10*maxHops+1))
		}, "1310701 numbers in messages of at most 214 bytes take 65536 hops, want at most 65535"},
		{"lengths differ", func(rings []*Ring, i int) error {
			return rings[i].AllReduce(ctx, 1, NewAccumulator(4+i))
		}, "a vector of"},
		{"steps differ", func(rings []*Ring, i int) error {
			return rings[i].AllReduce(ctx, Step(i), NewAccumulator(4))
		}, "message with step 1, but step 0 is not complete"},
		{"overflow", func(rings []*Ring, i int) error {
			acc := NewAccumulator(4)
			acc.words[3] = word{hi: 1 << 62}
			return rings[i].AllReduce(ctx, 1, acc)
		}, "number 3: the sum leaves the range"},
		{"two at once", func(rings []*Ring, i int) error {
			if i == 1 {
				<-rings[1].life.Done()
				return rings[1].AllReduce(ctx, 1, NewAccumulator(1))
			}
			first := make(chan error)
			go func() { first <- rings[0].AllReduce(ctx, 1, NewAccumulator(1)) }()
			eventually(t, "the first is in progress", func() bool { return rings[0].awaiting(0) })
			err := rings[0].AllReduce(ctx, 2, NewAccumulator(1))
			if <-first == nil {
				t.Error("the first all-reduce was completed by one member")
			}
			return err
		}, "step 1 is still in progress"},
		{"a neighbour has left", func(rings []*Ring, i int) error {
			if i == 1 {
				return rings[1].Close()
			}
			eventually(t, "rank 0 has noticed", func() bool {
				rings[0].mu.Lock()
				defer rings[0].mu.Unlock()
				return rings[0].inLinks[0].left != nil && rings[0].outLinks[0].ended != nil
			})
			err := rings[0].AllReduce(ctx, 1, NewAccumulator(1))
			if !errors.Is(err, ErrLeft) {
				t.Errorf("got %v, want ErrLeft", err)
			}
			return err
		}, "it has left the ring"},
		{"a neighbour leaves mid-step", func(rings []*Ring, i int) error {
			if i == 1 {
				eventually(t, "rank 0 waits", func() bool { return rings[0].awaiting(0) })
				return rings[1].Close()
			}
			return rings[0].AllReduce(ctx, 1, NewAccumulator(1))
		}, "it has left the ring"},
		{"closed here", func(rings []*Ring, i int) error {
			rings[i].Close()
			err := rings[i].AllReduce(ctx, 1, NewAccumulator(1))
			if !errors.Is(err, ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
			return err
		}, "closed"},
	}
	for g, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rings := c.join(ctx, Generation(g))
			errs := parallel(2, func(i int) error { return tt.act(rings, i) })
			if err := errors.Join(errs...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	// One member alone has no neighbour to fail, but the same rules hold.
	ring, err := c.nodes[0].Join(ctx, testJob, 100, 0, c.members[:1])
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.AllReduce(ctx, 1, NewAccumulator(100)); err != nil {
		t.Error(err)
	}
	if err := ring.AllReduce(ctx, 1, NewAccumulator(100)); err == nil {
		t.Error("a step was summed twice")
	}
}

func TestNodeCloseWakesEveryone(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newCluster(t, 3, nil)
	rings := c.join(ctx, 1)
	reduced, joined := make(chan error), make(chan error)
	go func() { reduced <- rings[0].AllReduce(ctx, 1, NewAccumulator(4)) }()
	go func() {
		_, err := c.nodes[0].Join(ctx, "another job", 1, 0, c.members)
		joined <- err
	}()
	eventually(t, "both wait", func() bool {
		c.nodes[2].mu.Lock()
		defer c.nodes[2].mu.Unlock()
		return rings[0].awaiting(0) && len(c.nodes[2].pending) == 1
	})
	c.nodes[0].Close()
	for _, done := range []chan error{reduced, joined} {
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	}
	if _, err := c.nodes[0].Join(ctx, testJob, 2, 0, c.members); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	// The others are told.
	peer := peerErrorOf(t, rings[1].AllReduce(ctx, 1, NewAccumulator(4)))
	if !peer.Aborted || !strings.Contains(peer.Err.Error(), "rank 0 (w0): node: closed") {
		t.Errorf("got %v, want an abort because rank 0 was closed", peer)
	}
	c.nodes[0].Close()
}
