package allreduce_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"sync"

	"github.com/dptune/dpt/allreduce"
)

// Four members sum the gradients of four micro-batches. The float32 1e-8 is lost when it is added
// to 1 in floating point; here every sum is exact, so the result does not depend on which member
// computed what.
func Example() {
	gradients := [][]float32{{1, 1e-8}, {1e-8, -1}, {-1, 1}, {1e-8, 1e-8}}
	ctx := context.Background()

	// Every member listens first, because all must know the addresses of all.
	var nodes []*allreduce.Node
	var members []allreduce.Member
	for rank := range gradients {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		node, err := allreduce.NewNode(allreduce.Config{Listener: listener})
		if err != nil {
			log.Fatal(err)
		}
		defer node.Close()
		nodes = append(nodes, node)
		members = append(members, allreduce.Member{ID: fmt.Sprint("worker-", rank), Addr: node.Addr()})
	}

	// Then all members, which are processes on machines of their own, do the same at the same time.
	sums := make([]*allreduce.Accumulator, len(gradients))
	var wg sync.WaitGroup
	for rank, gradient := range gradients {
		wg.Go(func() {
			ring, err := nodes[rank].Join(ctx, "job", 1, allreduce.Rank(rank), members)
			if err != nil {
				log.Fatal(err)
			}
			defer ring.Close()
			sum := allreduce.NewAccumulator(len(gradient))
			if err := sum.Add(0, gradient, allreduce.Limit(len(gradients))); err != nil {
				log.Fatal(err)
			}
			if err := ring.AllReduce(ctx, 1, sum); err != nil {
				log.Fatal(err)
			}
			sums[rank] = sum
		})
	}
	wg.Wait()

	for rank, sum := range sums {
		fmt.Printf("rank %d: %.6g %.6g, the same bits as rank 0: %v\n",
			rank, sum.Float64(0), sum.Float64(1), sum.Equal(sums[0]))
	}
	// Output:
	// rank 0: 2e-08 2e-08, the same bits as rank 0: true
	// rank 1: 2e-08 2e-08, the same bits as rank 0: true
	// rank 2: 2e-08 2e-08, the same bits as rank 0: true
	// rank 3: 2e-08 2e-08, the same bits as rank 0: true
}
