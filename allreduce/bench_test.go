package allreduce

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// The benchmarks are a step of T5-Large's prompt among four members: 11,240
// parameters, the loss and the token count.
const (
	benchSize   = 4
	benchLength = 11240 + 2
)

func reportTimes(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(times[len(times)*99/100].Seconds()*1e3, "p99-ms")
}

// BenchmarkAllReduce has all members in one process, over loopback.
func BenchmarkAllReduce(b *testing.B) {
	ctx := context.Background()
	c := newCluster(b, benchSize, nil)
	rings := c.join(ctx, 1)
	accs := make([]*Accumulator, benchSize)
	for i := range accs {
		accs[i] = NewAccumulator(benchLength)
	}
	var times []time.Duration
	step := Step(0)
	b.ReportAllocs()
	for b.Loop() {
		step++
		begin := time.Now()
		c.each(func(i int) error { return rings[i].AllReduce(ctx, step, accs[i]) })
		times = append(times, time.Since(begin))
	}
	reportTimes(b, times)
}

// benchRank in the environment makes the test binary a member of BenchmarkAllReduceProcesses.
const benchRank = "DPT_ALLREDUCE_BENCH_RANK"

func TestMain(m *testing.M) {
	if os.Getenv(benchRank) == "" {
		os.Exit(m.Run())
	}
	if err := benchMember(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// benchMember is a process of its own: it prints its address, reads the members, and takes
// part in one step after another until a neighbour leaves.
func benchMember() error {
	var rank Rank
	if _, err := fmt.Sscan(os.Getenv(benchRank), &rank); err != nil {
		return err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	node, err := NewNode(Config{Listener: lis})
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Println(node.Addr())
	var members []Member
	if err := json.NewDecoder(os.Stdin).Decode(&members); err != nil {
		return err
	}
	ctx := context.Background()
	ring, err := node.Join(ctx, testJob, 1, rank, members)
	if err != nil {
		return err
	}
	acc := NewAccumulator(benchLength)
	for step := Step(0); ; step++ {
		if err := ring.AllReduce(ctx, step, acc); err != nil {
			return nil // the measuring process has left
		}
	}
}

// BenchmarkAllReduceProcesses has a process per member, over loopback.
func BenchmarkAllReduceProcesses(b *testing.B) {
	ctx := context.Background()
	node := newTestNode(b, nil)
	members := []Member{{"0", node.Addr()}}
	var inputs []*json.Encoder
	for rank := 1; rank < benchSize; rank++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", benchRank, rank))
		cmd.Stderr = os.Stderr
		stdin, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		// The node closes before the cleanups of newTestNode: this one is there to reap.
		b.Cleanup(func() {
			node.Close()
			if err := cmd.Wait(); err != nil {
				b.Errorf("a member's process: %v", err)
			}
		})
		lines := bufio.NewScanner(stdout)
		if !lines.Scan() {
			b.Fatalf("a member's process printed no address: %v", lines.Err())
		}
		members = append(members, Member{fmt.Sprint(rank), lines.Text()})
		inputs = append(inputs, json.NewEncoder(stdin))
	}
	for _, in := range inputs {
		if err := in.Encode(members); err != nil {
			b.Fatal(err)
		}
	}
	ring, err := node.Join(ctx, testJob, 1, 0, members)
	if err != nil {
		b.Fatal(err)
	}
	acc := NewAccumulator(benchLength)
	var times []time.Duration
	step := Step(0)
	for b.Loop() {
		begin := time.Now()
		if err := ring.AllReduce(ctx, step, acc); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin))
		step++
	}
	reportTimes(b, times)
}
