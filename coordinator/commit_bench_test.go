package coordinator

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/internal/replicatest"
	"github.com/dptune/dpt/coordinator/replica"
)

// BenchmarkCommit times the commit of a step with T5-Large's trainer state, from proposal to
// applied, on replicas in one process that talk over loopback and share a disk. This is the latency
// that --commit-window hides.
func BenchmarkCommit(b *testing.B) {
	const stateSize = t5LargeState + 64
	for _, replicas := range []int{1, 3} {
		b.Run(fmt.Sprintf("replicas=%d", replicas), func(b *testing.B) {
			lead := benchNodes(b, replicas, stateSize)
			replicatest.Commit(b, lead, replicatest.Start(math.MaxInt32)...)
			var took []time.Duration
			for t := int64(1); b.Loop(); t++ {
				e := replicatest.Steps(t, t, stateSize)[0]
				began := time.Now()
				replicatest.Commit(b, lead, e)
				took = append(took, time.Since(began))
			}
			reportLatency(b, took)
		})
	}
}

// BenchmarkStepsWithCommit measures what committing every step costs training: three replicas on
// one disk, four workers whose gradients take 300 ms of the clock and no processor, T5-Large's
// trainer state, --commit-window 1. overhead-% is the part of a step in which no gradient is
// computed: planning, reports and waiting for commits. p50-ms and p99-ms are a commit's latency,
// from proposal to applied.
func BenchmarkStepsWithCommit(b *testing.B) {
	const gradient = 300 * time.Millisecond
	j := fleetJob(b, 4)
	lead := benchNodes(b, 3, t5LargeState+64)
	commitFleetJob(b, j, lead)
	f := startFleet(b, j, lead, 4)
	var slept time.Duration
	began := time.Now()
	for b.Loop() {
		plans := f.nextPlans()
		before := time.Now()
		time.Sleep(gradient)
		slept += time.Since(before)
		for rank, s := range f.sessions {
			s.heardAt.Store(time.Now().UnixNano())
			f.sendReport(s, plans[rank])
		}
		f.check()
	}
	rest := time.Since(began) - slept
	f.stop()
	b.ReportMetric(100*rest.Seconds()/slept.Seconds(), "overhead-%")
	reportLatency(b, f.commits)
}

// nextPlans returns the next plan of every rank. What the log applies meanwhile goes into the
// controller.
func (f *fleet) nextPlans() []*coordpb.Plan {
	plans := make([]*coordpb.Plan, len(f.sessions))
	for rank, s := range f.sessions {
		for plans[rank] == nil {
			select {
			case m := <-s.outbox:
				plans[rank] = m.GetPlan()
			case a := <-f.applied:
				f.c.react(event{applied: a})
			}
		}
	}
	return plans
}

// reportLatency reports the median and the 99th percentile of the times that commits took.
func reportLatency(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
}

// benchNodes starts replicas and returns the one that leads. stateSize is that of replica.Open.
func benchNodes(b *testing.B, replicas, stateSize int) *replica.Node {
	b.Helper()
	if replicas == 1 {
		n := replicatest.OpenLeader(b, b.TempDir())
		b.Cleanup(func() { _ = n.Close() })
		return n
	}
	var peers []replica.Peer
	var listeners []net.Listener
	for i := range replicas {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		listeners = append(listeners, l)
		peers = append(peers, replica.Peer{ID: fmt.Sprint(i), Addr: l.Addr().String()})
	}
	leads := make(chan *replica.Node, replicas)
	for i, p := range peers {
		rep := &replica.Replication{ID: p.ID, Peers: peers, Listener: listeners[i]}
		n, err := replica.Open(b.TempDir(), replica.Storage{}, rep, stateSize, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			for {
				select {
				case lead := <-n.Leadership():
					if lead {
						leads <- n
					}
				case <-done:
					return
				}
			}
		}()
		b.Cleanup(func() { _ = n.Close(); close(done) })
	}
	return <-leads
}
