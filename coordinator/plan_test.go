package coordinator

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestDeal(t *testing.T) {
	for _, c := range []struct {
		name   string
		costs  []int
		speeds []float64
		want   [][]int
	}{
		{"one rank takes all", []int{3, 1, 2}, []float64{1}, [][]int{{0, 1, 2}}},
		{"equal ranks share", []int{1, 1, 1, 1}, []float64{1, 1}, [][]int{{0, 2}, {1, 3}}},
		{"the longest go apart", []int{5, 1, 1, 5}, []float64{1, 1}, [][]int{{0, 1}, {2, 3}}},
		{"a slow rank gets less", []int{1, 1, 1, 1}, []float64{3, 1}, [][]int{{0, 1, 2}, {3}}},
		{"a very slow rank gets nothing", []int{1, 1}, []float64{10, 1}, [][]int{{0, 1}, nil}},
		{"more ranks than work", []int{4}, []float64{1, 1, 1}, [][]int{{0}, nil, nil}},
		{"no work", nil, []float64{1, 2}, [][]int{nil, nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := assign(c.costs, c.speeds)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("assign(%v, %v) = %v, %v; want %v", c.costs, c.speeds, got, err, c.want)
			}
		})
	}
	for _, speeds := range [][]float64{nil, {1, 0}, {-1}} {
		if _, err := assign([]int{1}, speeds); err == nil {
			t.Errorf("speeds %v are accepted", speeds)
		}
	}
}

// Every micro-batch goes to exactly one rank, and no rank ends later than the slowest must: greedy dealing is within
// the longest micro-batch of the mean.
func TestDealsAllAndEvenly(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		costs := make([]int, r.IntN(40))
		total, longest := 0, 0
		for i := range costs {
			costs[i] = 1 + r.IntN(500)
			total += costs[i]
			longest = max(longest, costs[i])
		}
		speeds := make([]float64, 1+r.IntN(6))
		var sum, slowest float64
		for i := range speeds {
			speeds[i] = 0.1 + r.Float64()
			sum += speeds[i]
			slowest = max(slowest, 1/speeds[i])
		}
		shards, err := assign(costs, speeds)
		if err != nil {
			t.Fatal(err)
		}
		seen := make([]bool, len(costs))
		for rank, shard := range shards {
			load := 0
			for _, i := range shard {
				if seen[i] {
					t.Fatalf("micro-batch %d is dealt twice", i)
				}
				seen[i] = true
				load += costs[i]
			}
			if end, bound := float64(load)/speeds[rank], float64(total)/sum+float64(longest)*slowest; end > bound+1e-9 {
				t.Errorf("rank %d ends at %v, bound %v", rank, end, bound)
			}
		}
		for i, ok := range seen {
			if !ok {
				t.Fatalf("micro-batch %d is not dealt", i)
			}
		}
	}
}
