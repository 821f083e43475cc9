package allreduce

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The benchmarks are a step of T5-Large's prompt among four members: 11,240
// parameters, the loss and the token count.
const (
	benchSize   = 4
	benchLength = 11240 + 2
)

// benchGradient is what a member adds up in a step: the gradients of a few micro-batches, of the
// order of 1e-3 and with all bits of a float32, the loss and the token count.
func benchGradient(seed uint64) *Accumulator {
	rng := rand.New(rand.NewPCG(seed, 41))
	acc := NewAccumulator(benchLength)
	gradient := make([]float32, benchLength-2)
	for range 4 {
		for i := range gradient {
			gradient[i] = float32(1e-3 * rng.NormFloat64())
		}
		if err := acc.Add(0, gradient, Limit(1024)); err != nil {
			panic(err)
		}
	}
	if err := errors.Join(
		acc.AddFloat64(benchLength-2, 37.125, Limit(1024)),
		acc.AddInt(benchLength-1, 4096),
	); err != nil {
		panic(err)
	}
	return acc
}

// copyFrom makes acc hold the numbers of from again, so that sums do not grow over the steps.
func (a *Accumulator) copyFrom(from *Accumulator) { copy(a.words, from.words) }

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
	inputs, accs := make([]*Accumulator, benchSize), make([]*Accumulator, benchSize)
	for i := range accs {
		inputs[i], accs[i] = benchGradient(uint64(i)), NewAccumulator(benchLength)
	}
	var times []time.Duration
	step := Step(0)
	b.ReportAllocs()
	for b.Loop() {
		step++
		for i := range accs {
			accs[i].copyFrom(inputs[i])
		}
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
	input, acc := benchGradient(uint64(rank)), NewAccumulator(benchLength)
	began := cpuTime()
	for step := Step(0); ; step++ {
		acc.copyFrom(input)
		if err := ring.AllReduce(ctx, step, acc); err != nil {
			fmt.Println(int64(cpuTime() - began)) // the measuring process has left
			return nil
		}
	}
}

// cpuTime returns the CPU time that this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAllReduceProcesses has a process per member, over loopback. cpu-ms is what a step takes
// of all of them together. Peers are measured beside it by peers/bench_allreduce.py.
func BenchmarkAllReduceProcesses(b *testing.B) {
	ctx := context.Background()
	node := newTestNode(b, nil)
	members := []Member{{"0", node.Addr()}}
	var inputs []*json.Encoder
	var outputs []*bufio.Scanner
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
		// Close the node first, so that the members end and Wait returns.
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
		inputs, outputs = append(inputs, json.NewEncoder(stdin)), append(outputs, lines)
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
	input, acc := benchGradient(0), NewAccumulator(benchLength)
	var times []time.Duration
	began := cpuTime()
	for step := Step(0); b.Loop(); step++ {
		acc.copyFrom(input)
		begin := time.Now()
		if err := ring.AllReduce(ctx, step, acc); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin))
	}
	cpu := cpuTime() - began
	node.Close()
	for _, lines := range outputs {
		var theirs time.Duration
		if !lines.Scan() {
			b.Fatalf("a member's process printed no time: %v", lines.Err())
		}
		if _, err := fmt.Sscan(lines.Text(), (*int64)(&theirs)); err != nil {
			b.Fatalf("a member's process printed %q: %v", lines.Text(), err)
		}
		cpu += theirs
	}
	reportTimes(b, times)
	b.ReportMetric(cpu.Seconds()*1e3/float64(len(times)), "cpu-ms")
}
