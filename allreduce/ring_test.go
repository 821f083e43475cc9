package allreduce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// patience bounds the wait for what must happen; no test passes because it runs out.
const patience = 30 * time.Second

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func newTestNode(t testing.TB, change func(*Config)) *Node {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Listener: lis, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&config)
	}
	n, err := NewNode(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// cluster is n nodes on loopback, all closed at the test's end.
type cluster struct {
	t       testing.TB
	nodes   []*Node
	members []Member
}

func newCluster(t testing.TB, n int, change func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t}
	for i := range n {
		node := newTestNode(t, change)
		c.nodes = append(c.nodes, node)
		c.members = append(c.members, Member{ID: fmt.Sprintf("w%d", i), Addr: node.Addr()})
	}
	return c
}

// ringOnly has every vector go round the ring.
func ringOnly(c *Config) { c.smallVector = -1 }

// ringInRounds has every vector go round the ring, ten numbers to a message.
func ringInRounds(c *Config) { c.smallVector, c.MaxMessageBytes = -1, headerSize+maxPacked(10) }

// forEachSchedule runs a test once with each schedule: the ring, the ring in rounds, and doubling.
func forEachSchedule(t *testing.T, test func(t *testing.T, config func(*Config))) {
	t.Run("ring", func(t *testing.T) { test(t, ringOnly) })
	t.Run("rounds", func(t *testing.T) { test(t, ringInRounds) })
	t.Run("doubling", func(t *testing.T) { test(t, nil) })
}

const testJob = "job"

// join makes all members join at once.
func (c *cluster) join(ctx context.Context, generation Generation) []*Ring {
	c.t.Helper()
	rings := make([]*Ring, len(c.nodes))
	c.each(func(i int) error {
		var err error
		rings[i], err = c.nodes[i].Join(ctx, testJob, generation, Rank(i), c.members)
		return err
	})
	return rings
}

// each runs f for every member at once and fails the test on an error.
func (c *cluster) each(f func(i int) error) {
	c.t.Helper()
	for i, err := range parallel(len(c.nodes), f) {
		if err != nil {
			c.t.Fatalf("rank %d: %v", i, err)
		}
	}
}

func parallel(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errs
}

// randomAccumulators returns one accumulator per rank and their exact sums.
func randomAccumulators(rng *rand.Rand, ranks, length int) ([]*Accumulator, []*big.Int) {
	accs, sums := make([]*Accumulator, ranks), make([]*big.Int, length)
	for i := range sums {
		sums[i] = new(big.Int)
	}
	for r := range accs {
		accs[r] = NewAccumulator(length)
		for i := range sums {
			if err := accs[r].AddFloat64(i, float64(randomFloat32(rng)), Limit(ranks)); err != nil {
				panic(err)
			}
			sums[i].Add(sums[i], bigOf(accs[r].words[i]))
		}
	}
	return accs, sums
}

func checkSums(t testing.TB, accs []*Accumulator, sums []*big.Int) {
	t.Helper()
	for r, acc := range accs {
		for i, want := range sums {
			if got := bigOf(acc.words[i]); got.Cmp(want) != 0 {
				t.Fatalf("rank %d, number %d: got %v units, want %v", r, i, got, want)
			}
		}
	}
}

// peerErrorOf returns the *PeerError in err.
func peerErrorOf(t testing.TB, err error) *PeerError {
	t.Helper()
	peer, ok := errors.AsType[*PeerError](err)
	if !ok {
		t.Fatalf("got error %v, want a *PeerError", err)
	}
	return peer
}

// noLeaks fails the test if goroutines remain that were not there when it was called.
// Call it before anything that registers a cleanup.
func noLeaks(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(patience)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before:\n%s",
					runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func TestAllReduceSums(t *testing.T) { forEachSchedule(t, allReduceSums) }

func allReduceSums(t *testing.T, config func(*Config)) {
	noLeaks(t)
	rng := rand.New(rand.NewPCG(7, 8))
	for size := 1; size <= 8; size++ {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			ctx := testContext(t)
			c := newCluster(t, size, config)
			rings := c.join(ctx, 1)
			for step, length := range []int{0, 1, 2, size - 1, size, size + 1, 100, 1001} {
				accs, sums := randomAccumulators(rng, size, length)
				c.each(func(i int) error { return rings[i].AllReduce(ctx, Step(step), accs[i]) })
				checkSums(t, accs, sums)
			}
			c.each(func(i int) error { return rings[i].Close() })
		})
	}
}

func TestBitsAreIndependentOfSplitAndOrder(t *testing.T) {
	forEachSchedule(t, bitsAreIndependentOfSplitAndOrder)
}

func bitsAreIndependentOfSplitAndOrder(t *testing.T, config func(*Config)) {
	noLeaks(t)
	ctx := testContext(t)
	rng := rand.New(rand.NewPCG(9, 10))
	const microBatches, length = 12, 57
	gradients := make([][]float32, microBatches)
	for m := range gradients {
		for range length {
			gradients[m] = append(gradients[m], randomFloat32(rng))
		}
	}
	var want *Accumulator
	for generation, size := range []int{1, 2, 3, 5} {
		c := newCluster(t, size, config)
		rings := c.join(ctx, Generation(generation))
		accs := make([]*Accumulator, size)
		for r := range accs {
			accs[r] = NewAccumulator(length)
		}
		for _, m := range rng.Perm(microBatches) {
			if err := accs[rng.IntN(size)].Add(0, gradients[m], Limit(microBatches)); err != nil {
				t.Fatal(err)
			}
		}
		c.each(func(i int) error { return rings[i].AllReduce(ctx, 0, accs[i]) })
		for r, acc := range accs {
			if want == nil {
				want = acc
			}
			if !acc.Equal(want) {
				t.Errorf("rank %d of %d has other bits than one member alone", r, size)
			}
		}
	}
}

// TestMembersRunAtTheirOwnPace has fast members send the next step's chunks before slow
// ones have begun it.
func TestMembersRunAtTheirOwnPace(t *testing.T) { forEachSchedule(t, membersRunAtTheirOwnPace) }

func membersRunAtTheirOwnPace(t *testing.T, config func(*Config)) {
	noLeaks(t)
	ctx := testContext(t)
	const size, steps, length = 4, 40, 50
	rng := rand.New(rand.NewPCG(11, 12))
	c := newCluster(t, size, config)
	rings := c.join(ctx, 1)
	var accs [steps][]*Accumulator
	var sums [steps][]*big.Int
	for s := range steps {
		accs[s], sums[s] = randomAccumulators(rng, size, length)
	}
	c.each(func(i int) error {
		rng := rand.New(rand.NewPCG(13, uint64(i)))
		for s := range steps {
			if rng.IntN(3) == 0 {
				time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
			}
			// Steps need not follow one another without a gap.
			if err := rings[i].AllReduce(ctx, Step(2*s), accs[s][i]); err != nil {
				return err
			}
		}
		// A member may leave at once after its last step; the others still end theirs.
		return rings[i].Close()
	})
	for s := range steps {
		checkSums(t, accs[s], sums[s])
	}
}

// TestNodesCloseAfterTheLastStep plays the end of a job: each process exits as soon as it has its
// result.
func TestNodesCloseAfterTheLastStep(t *testing.T) { forEachSchedule(t, nodesCloseAfterTheLastStep) }

func nodesCloseAfterTheLastStep(t *testing.T, config func(*Config)) {
	noLeaks(t)
	ctx := testContext(t)
	rng := rand.New(rand.NewPCG(15, 16))
	for range 10 {
		c := newCluster(t, 4, config)
		rings := c.join(ctx, 1)
		accs, sums := randomAccumulators(rng, 4, 5000)
		c.each(func(i int) error {
			if err := rings[i].AllReduce(ctx, 1, accs[i]); err != nil {
				return err
			}
			return c.nodes[i].Close()
		})
		checkSums(t, accs, sums)
	}
}

// TestChunksLargerThanEveryWindow has all members send more at once than flow
// control lets pass unread.
func TestChunksLargerThanEveryWindow(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	const size, length = 3, 200_000 // 1.1 MB a chunk
	c := newCluster(t, size, func(config *Config) {
		config.ServerOptions = []grpc.ServerOption{
			grpc.StaticStreamWindowSize(64 << 10),
			grpc.StaticConnWindowSize(64 << 10),
		}
	})
	rings := c.join(ctx, 1)
	for step := range 2 {
		accs := make([]*Accumulator, size)
		for i := range accs {
			accs[i] = NewAccumulator(length)
			for j := range length {
				accs[i].words[j] = word{lo: uint64(j), hi: uint64(i)}
			}
		}
		c.each(func(i int) error { return rings[i].AllReduce(ctx, Step(step), accs[i]) })
		for j := range length {
			want := word{lo: size * uint64(j), hi: size * (size - 1) / 2}
			for i := range accs {
				if accs[i].words[j] != want {
					t.Fatalf("rank %d, number %d: got %v, want %v", i, j, accs[i].words[j], want)
				}
			}
		}
	}
}

func TestNodeOnACallersServer(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := &cluster{t: t}
	for i := range 2 {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		node, err := NewNode(Config{Registrar: server})
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(lis) })
		t.Cleanup(func() { node.Close(); server.Stop(); serving.Wait() })
		c.nodes = append(c.nodes, node)
		c.members = append(c.members, Member{ID: fmt.Sprint(i), Addr: lis.Addr().String()})
	}
	rings := c.join(ctx, 1)
	accs, sums := randomAccumulators(rand.New(rand.NewPCG(17, 18)), 2, 100)
	c.each(func(i int) error { return rings[i].AllReduce(ctx, 1, accs[i]) })
	checkSums(t, accs, sums)
	if _, err := NewNode(Config{}); err == nil {
		t.Error("a node without listener and registrar was made")
	}
}
