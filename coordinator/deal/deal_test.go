package deal

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// assign deals micro-batches of which nothing is known but what they cost.
func assign(costs []int, speeds []float64) ([][]int, error) {
	shards, _, err := Work{Costs: costs, Speeds: speeds}.Deal()
	return shards, err
}

// bestEnd is when the last rank ends in the best deal of all, found by trying every one.
func bestEnd(costs []int, speeds []float64) float64 {
	least := math.Inf(1)
	loads := make([]float64, len(speeds))
	var try func(i int, end float64)
	try = func(i int, end float64) {
		if end >= least {
			return
		}
		if i == len(costs) {
			least = end
			return
		}
		for r := range loads {
			loads[r] += float64(costs[i])
			try(i+1, max(end, loads[r]/speeds[r]))
			loads[r] -= float64(costs[i])
		}
	}
	try(0, 0)
	return least
}

func lastEnd(costs []int, speeds []float64, shards [][]int) (end float64) {
	for r, shard := range shards {
		load := 0
		for _, i := range shard {
			load += costs[i]
		}
		end = max(end, float64(load)/speeds[r])
	}
	return end
}

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

// Every micro-batch goes to exactly one rank, and no rank ends later than the slowest must: greedy
// dealing is within the longest micro-batch of the mean.
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

// On deals small enough to try them all, ours is within a tenth of the best one, and on the whole
// within a hundredth.
func TestDealIsNearTheBest(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var ours, best float64
	for range 300 {
		costs := make([]int, 1+r.IntN(8))
		for i := range costs {
			costs[i] = 100 + r.IntN(400)
		}
		speeds := make([]float64, 2+r.IntN(3))
		for i := range speeds {
			speeds[i] = 1 / float64(1+r.IntN(3))
		}
		shards, err := assign(costs, speeds)
		if err != nil {
			t.Fatal(err)
		}
		got, want := lastEnd(costs, speeds, shards), bestEnd(costs, speeds)
		ours, best = ours+got, best+want
		if got > want*1.1 {
			t.Errorf("costs %v, speeds %v: %v ends at %v, the best deal at %v", costs, speeds, shards, got, want)
		}
	}
	if ours > 1.01*best {
		t.Errorf("deals end at %v in all, the best ones at %v", ours, best)
	}
}

func TestDealKeepsAuditsApartAndWhatIsHeld(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		n := 1 + r.IntN(6)
		d := Work{
			Costs:    make([]int, r.IntN(20)),
			Speeds:   make([]float64, n),
			Held:     map[int]int{},
			Audited:  map[int]bool{},
			Measured: map[int]bool{},
		}
		for i := range d.Speeds {
			d.Speeds[i], d.Measured[i] = 0.2+r.Float64(), r.IntN(4) == 0
		}
		for i := range d.Costs {
			d.Costs[i] = 1 + r.IntN(100)
			if r.IntN(3) == 0 {
				d.Held[i] = r.IntN(n)
			}
			d.Audited[i] = r.IntN(2) == 0
		}
		no := -1 // one micro-batch that two ranks must not have
		if n > 2 && len(d.Costs) > 0 {
			no = r.IntN(len(d.Costs))
			d.Barred = func(micro, rank int) bool { return micro == no && rank < 2 }
		}
		shards, audits, err := d.Deal()
		if err != nil {
			t.Fatal(err)
		}
		summer, second := map[int]int{}, map[int]int{}
		for rank := range n {
			for _, i := range shards[rank] {
				if _, again := summer[i]; again {
					t.Fatalf("micro-batch %d is summed twice", i)
				}
				summer[i] = rank
			}
			for _, i := range audits[rank] {
				if _, again := second[i]; again {
					t.Fatalf("micro-batch %d is audited twice", i)
				}
				second[i] = rank
			}
		}
		for i := range d.Costs {
			rank, ok := summer[i]
			h, held := d.Held[i]
			a, audited := second[i]
			switch {
			case !ok:
				t.Errorf("micro-batch %d is not dealt", i)
			case audited && a == rank:
				t.Errorf("rank %d audits micro-batch %d of its own", a, i)
			case i == no && (rank < 2 || audited && a < 2):
				t.Errorf("micro-batch %d goes to ranks %d and %d, which must not have it", i, rank, a)
			case held && i != no && h != rank:
				t.Errorf("micro-batch %d goes to rank %d, rank %d holds it", i, rank, h)
			case d.Audited[i] && !audited && n > 1 && i != no:
				t.Errorf("micro-batch %d is not audited among %d ranks", i, n)
			}
		}
	}
}

func TestIdleRankIsMeasured(t *testing.T) {
	d := Work{Costs: []int{5, 3}, Speeds: []float64{10, 10, 0.1}, Measured: map[int]bool{2: true}}
	shards, audits, err := d.Deal()
	if want := [][]int{nil, nil, {1}}; err != nil || len(shards[2]) > 0 || !reflect.DeepEqual(audits, want) {
		t.Errorf("shards %v, audits %v, %v; want the slow rank to audit the shorter one", shards, audits, err)
	}
	nobody := Work{Costs: []int{1}, Speeds: []float64{1}, Barred: func(int, int) bool { return true }}
	if _, _, err := nobody.Deal(); err == nil {
		t.Error("a micro-batch that nobody may have is dealt")
	}
}

func BenchmarkDealToAThousandRanks(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	costs, speeds := make([]int, 2000), make([]float64, 1000)
	for i := range costs {
		costs[i] = 100 + r.IntN(500)
	}
	for i := range speeds {
		speeds[i] = 1 / (1 + r.Float64())
	}
	for b.Loop() {
		if _, err := assign(costs, speeds); err != nil {
			b.Fatal(err)
		}
	}
}
