package coordinator

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// assign deals micro-batches of which nothing is known but what they cost.
func assign(costs []int, speeds []float64) ([][]int, error) {
	shards, _, err := dealing{costs: costs, speeds: speeds}.deal()
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

// On deals small enough to try them all, ours is within a tenth of the best one, and on the whole within a hundredth.
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
		d := dealing{costs: make([]int, r.IntN(20)), speeds: make([]float64, n), held: map[int]int{}, twice: map[int]bool{}, probe: map[int]bool{}}
		for i := range d.speeds {
			d.speeds[i], d.probe[i] = 0.2+r.Float64(), r.IntN(4) == 0
		}
		for i := range d.costs {
			d.costs[i] = 1 + r.IntN(100)
			if r.IntN(3) == 0 {
				d.held[i] = r.IntN(n)
			}
			d.twice[i] = r.IntN(2) == 0
		}
		no := -1 // one micro-batch that two ranks must not have
		if n > 2 && len(d.costs) > 0 {
			no = r.IntN(len(d.costs))
			d.barred = func(micro, rank int) bool { return micro == no && rank < 2 }
		}
		shards, audits, err := d.deal()
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
		for i := range d.costs {
			rank, ok := summer[i]
			h, held := d.held[i]
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
			case d.twice[i] && !audited && n > 1 && i != no:
				t.Errorf("micro-batch %d is not audited among %d ranks", i, n)
			}
		}
	}
}

func TestIdleRankIsProbed(t *testing.T) {
	d := dealing{costs: []int{5, 3}, speeds: []float64{10, 10, 0.1}, probe: map[int]bool{2: true}}
	shards, audits, err := d.deal()
	if want := [][]int{nil, nil, {1}}; err != nil || len(shards[2]) > 0 || !reflect.DeepEqual(audits, want) {
		t.Errorf("shards %v, audits %v, %v; want the slow rank to audit the shorter one", shards, audits, err)
	}
	if _, _, err := (dealing{costs: []int{1}, speeds: []float64{1}, barred: func(int, int) bool { return true }}).deal(); err == nil {
		t.Error("a micro-batch that nobody may have is dealt")
	}
}

func TestPaceFollowsAChangeAndNotAnOutlier(t *testing.T) {
	var p pace
	for range 5 {
		p.measure(300, time.Second)
	}
	if p.speed != 300 {
		t.Fatalf("speed %v, want 300", p.speed)
	}
	p.measure(100, time.Second)
	if p.speed < 200 {
		t.Errorf("after one slow step the speed is %v, want it to move by less than half", p.speed)
	}
	p.measure(100, time.Second)
	if p.speed != 100 {
		t.Errorf("after two slow steps the speed is %v, want 100", p.speed)
	}
	p.measure(300, time.Second)
	p.measure(300, time.Second)
	if p.speed != 300 {
		t.Errorf("after two fast steps the speed is %v, want 300", p.speed)
	}
	p.rough = true
	if p.measure(50, time.Second); p.speed != 50 || p.rough {
		t.Errorf("after a measurement in place of a rough one the speed is %v, want 50", p.speed)
	}
	if p.measure(0, 0); !(p.speed > 0) {
		t.Errorf("speed %v, want a positive one", p.speed)
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
