package tlsconf

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/dptune/dpt/allreduce"
	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

// benchConfs are the same connections without and with TLS.
func benchConfs(b *testing.B) map[string]*Conf {
	ca := newCA(b, "ca")
	var log record
	return map[string]*Conf{
		"plain": Plain(slog.New(slog.DiscardHandler)),
		"tls":   open(b, files(b, newLeaf(b, ca, "a", start), ca), newClock(), &log),
	}
}

// BenchmarkConnect is a connection over loopback to the server's first word, both sides in one
// process.
func BenchmarkConnect(b *testing.B) {
	for name, conf := range benchConfs(b) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if m, _ := meet(b, conf, conf); m.client != nil {
					b.Fatal(m.client)
				}
			}
		})
	}
}

// BenchmarkAllReduce is a step of T5-Large's prompt among four members in one process, over
// loopback.
func BenchmarkAllReduce(b *testing.B) {
	const members, length = 4, 11240 + 2
	for name, conf := range benchConfs(b) {
		b.Run(name, func(b *testing.B) {
			var nodes []*allreduce.Node
			var list []allreduce.Member
			for i := range members {
				server, client := conf.ServerCredentials("the ring"), conf.ClientCredentials("the ring neighbour", true)
				node, err := allreduce.NewNode(allreduce.Config{
					Listener:      cmdtest.Listen(b),
					ServerOptions: []grpc.ServerOption{grpc.Creds(server)},
					DialOptions:   []grpc.DialOption{grpc.WithTransportCredentials(client)},
				})
				if err != nil {
					b.Fatal(err)
				}
				defer node.Close()
				nodes, list = append(nodes, node), append(list, allreduce.Member{ID: fmt.Sprint(i), Addr: node.Addr()})
			}
			rings, accs := make([]*allreduce.Ring, members), make([]*allreduce.Accumulator, members)
			each := func(do func(i int) error) {
				var wg sync.WaitGroup
				for i := range members {
					wg.Go(func() {
						if err := do(i); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
			}
			each(func(i int) (err error) {
				accs[i] = allreduce.NewAccumulator(length)
				rings[i], err = nodes[i].Join(b.Context(), "bench", 1, allreduce.Rank(i), list)
				return err
			})
			if b.Failed() {
				return
			}
			var times []time.Duration
			for step := allreduce.Step(1); b.Loop(); step++ {
				began := time.Now()
				each(func(i int) error { return rings[i].AllReduce(b.Context(), step, accs[i]) })
				times = append(times, time.Since(began))
			}
			slices.Sort(times)
			b.ReportMetric(times[len(times)/2].Seconds()*1e3, "p50-ms")
			b.ReportMetric(times[len(times)*99/100].Seconds()*1e3, "p99-ms")
		})
	}
}
