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

// BenchmarkCommit times the commit of a step with T5-Large's trainer state (A, B and both moments
// of 11,240 numbers): proposal to applied, on replicas in one process that talk over loopback and
// share a disk. It is what --commit-window hides.
func BenchmarkCommit(b *testing.B) {
	const stateSize = 3*11240*4 + 64
	for _, replicas := range []int{1, 3} {
		b.Run(fmt.Sprintf("replicas=%d", replicas), func(b *testing.B) {
			lead := benchNodes(b, replicas, stateSize)
			for _, e := range replicatest.Start(math.MaxInt32) {
				if err := lead.Propose(e).Wait(); err != nil {
					b.Fatal(err)
				}
			}
			var took []time.Duration
			for t := int64(1); b.Loop(); t++ {
				e := replicatest.Steps(t, t, stateSize)[0]
				began := time.Now()
				if err := lead.Propose(e).Wait(); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// BenchmarkStepsWithCommit is what committing every step costs training: three replicas on one
// disk, four workers whose gradients take 300 ms of the clock and no processor, T5-Large's trainer
// state, --commit-window 1. overhead-% is the time in which no gradient is computed, planning,
// reports and waiting for commits, of a step's; p50-ms and p99-ms are a commit's latency, from
// proposal to applied.
func BenchmarkStepsWithCommit(b *testing.B) {
	const gradient = 300 * time.Millisecond
	job := fleetJob(b, 4)
	lead := benchNodes(b, 3, 3*11240*4+64)
	startFleetJob(b, job, lead)
	f := muster(b, job, lead, 4)
	var slept time.Duration
	began := time.Now()
	for b.Loop() {
		plans := make([]*coordpb.Plan, len(f.sessions))
		for r, s := range f.sessions {
			for plans[r] == nil {
				select {
				case m := <-s.outbox:
					plans[r] = m.GetPlan()
				case a := <-f.applied:
					f.c.react(event{applied: a})
				}
			}
		}
		before := time.Now()
		time.Sleep(gradient)
		slept += time.Since(before)
		for r, s := range f.sessions {
			s.heardAt.Store(time.Now().UnixNano())
			f.c.react(event{session: s, message: &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Report{Report: f.report(plans[r])}}})
		}
		if f.c.failed != nil || f.c.deposed != nil || len(f.ended) > 0 {
			b.Fatalf("the controller ends: %v, %v, or sessions: %v", f.c.failed, f.c.deposed, f.ended)
		}
	}
	rest := time.Since(began) - slept
	f.disband()
	slices.Sort(f.commits)
	b.ReportMetric(100*rest.Seconds()/slept.Seconds(), "overhead-%")
	b.ReportMetric(f.commits[len(f.commits)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(f.commits[len(f.commits)*99/100].Seconds()*1e3, "p99-ms")
}

// benchNodes starts replicas and returns the one that leads.
func benchNodes(b *testing.B, replicas, stateSize int) *replica.Node {
	b.Helper()
	if replicas == 1 {
		n, err := replica.Open(b.TempDir(), replica.Storage{}, nil, stateSize, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = n.Stop() })
		for !<-n.Leadership() {
		}
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
		n, err := replica.Open(b.TempDir(), replica.Storage{}, &replica.Replication{ID: p.ID, Peers: peers, Listener: listeners[i]}, stateSize, slog.New(slog.DiscardHandler))
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
		b.Cleanup(func() { _ = n.Stop(); close(done) })
	}
	return <-leads
}
