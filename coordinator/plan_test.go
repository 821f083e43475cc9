package coordinator

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
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

func testPlanner(t *testing.T, n, batch, micro int, seed uint64) *Planner {
	t.Helper()
	sampler, err := dataset.NewSampler(n, batch, micro, seed)
	if err != nil {
		t.Fatal(err)
	}
	p := &Planner{tok: tokenizer.NewByteLevel(125), sampler: sampler, maxSource: 12, maxTarget: 4, prompt: 5}
	for i := range n {
		p.examples = append(p.examples, dataset.Example{ID: fmt.Sprint(i), Source: strings.Repeat("x", i), Target: "1"})
	}
	return p
}

func TestPlanIsPureAndCoversEachEpochOnce(t *testing.T) {
	const n, batch, micro = 11, 4, 3
	a, b := testPlanner(t, n, batch, micro, 7), testPlanner(t, n, batch, micro, 7)
	for epoch := range int64(3) {
		seen := map[string]int{}
		for i := range int64(3) {
			step := ids.Step(epoch*3 + i + 1)
			p := a.Plan(step)
			if p.Epoch != epoch+1 {
				t.Errorf("step %d is in epoch %d, want %d", step, p.Epoch, epoch+1)
			}
			for m, mb := range p.Micro {
				cost := 0
				for _, e := range mb.Examples {
					seen[e.Id]++
					if len(e.Source) > 12 || e.Source[len(e.Source)-1] != 1 {
						t.Errorf("example %s has %d source ids ending in %d, want at most 12 ending in </s>", e.Id, len(e.Source), e.Source[len(e.Source)-1])
					}
					cost += len(e.Source) + 5 + len(e.Target)
				}
				if len(mb.Examples) > micro || p.Costs[m] != cost {
					t.Errorf("micro-batch of %d examples, cost %d, want %d", len(mb.Examples), p.Costs[m], cost)
				}
			}
			// Asked out of order, from another planner, the plan is the same.
			b.Plan(1)
			if q := b.Plan(step); q.Digest != p.Digest || !reflect.DeepEqual(q.IDs(), p.IDs()) {
				t.Errorf("step %d: two planners of one seed differ", step)
			}
		}
		for id, times := range seen {
			if times != 1 {
				t.Errorf("epoch %d: example %s comes %d times", epoch, id, times)
			}
		}
		if len(seen) != n {
			t.Errorf("epoch %d: %d of %d examples", epoch, len(seen), n)
		}
	}
	if testPlanner(t, n, batch, micro, 8).Plan(1).Digest == a.Plan(1).Digest {
		t.Error("another seed gives the same batch")
	}
}
