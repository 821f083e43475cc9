package coordinator

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
)

// dealing is what a step's micro-batches are dealt to ranks by.
type dealing struct {
	costs  []int                   // costs[i] is the work in micro-batch i
	speeds []float64               // speeds[r] is the work that rank r does in a unit of time
	held   map[int]int             // by micro-batch, the rank that has its contribution from before, at no cost
	twice  map[int]bool            // micro-batches that another rank audits
	barred func(micro, r int) bool // ranks that must not have a micro-batch in their shard, nor audit it; nil bars none
	probe  map[int]bool            // ranks that get something to audit if they get nothing else
}

// piece is a micro-batch to compute, for the sum or to audit it.
type piece struct {
	micro int
	audit bool
}

// maxTrials bounds the search for a better deal: to a fraction of a millisecond.
const maxTrials = 100_000

// deal is a deal in the making.
type deal struct {
	dealing
	hands  [][]piece // by rank, what takes it time
	loads  []float64 // by rank, the cost of that
	pace   []float64 // time for a unit of work, by rank
	summer []int     // by micro-batch, the rank whose shard it is in
	second []int     // by micro-batch, the rank that audits it; -1 if none
	trials int
}

// deal deals the longest first, each to the rank that would finish it earliest, the lowest on a tie. Then it moves and swaps
// pieces of the rank that ends last for as long as that makes it end earlier, and where there are few it tries all deals: with few
// micro-batches the first deal is often far from the best. shards and audits list each rank's micro-batches in ascending order. Who
// computes what has no influence on the result, only on its time.
func (d dealing) deal() (shards, audits [][]int, err error) {
	if len(d.speeds) == 0 {
		return nil, nil, fmt.Errorf("assign %d micro-batches: no ranks", len(d.costs))
	}
	t := deal{dealing: d, hands: make([][]piece, len(d.speeds)), loads: make([]float64, len(d.speeds)), pace: make([]float64, len(d.speeds)), summer: make([]int, len(d.costs)), second: make([]int, len(d.costs))}
	for r, v := range d.speeds {
		if !(v > 0) {
			return nil, nil, fmt.Errorf("assign %d micro-batches: rank %d has speed %v, want a positive one", len(d.costs), r, v)
		}
		t.pace[r] = 1 / v
	}
	order := make([]int, len(d.costs))
	for i := range order {
		order[i], t.summer[i], t.second[i] = i, -1, -1
	}
	sort.SliceStable(order, func(a, b int) bool { return d.costs[order[a]] > d.costs[order[b]] })
	for _, i := range order {
		if r, ok := d.held[i]; ok && !t.bars(i, r) {
			t.summer[i] = r
		} else if err := t.place(piece{i, false}); err != nil {
			return nil, nil, err
		}
		if d.twice[i] && len(d.speeds) > 1 {
			if err := t.place(piece{i, true}); err != nil {
				return nil, nil, err
			}
		}
	}
	for t.improve() {
	}
	t.search()
	t.probes(order)
	shards, audits = make([][]int, len(d.speeds)), make([][]int, len(d.speeds))
	for i, r := range t.summer {
		shards[r] = append(shards[r], i)
	}
	for i, r := range t.second {
		if r >= 0 {
			audits[r] = append(audits[r], i)
		}
	}
	return shards, audits, nil
}

func (t *deal) bars(micro, r int) bool { return t.barred != nil && t.barred(micro, r) }

// may says whether a rank may take a piece.
func (t *deal) may(p piece, r int) bool {
	if p.audit {
		return t.summer[p.micro] != r && !t.bars(p.micro, r)
	}
	return t.second[p.micro] != r && !t.bars(p.micro, r)
}

// end is when a rank ends with more work in hand.
func (t *deal) end(r, more int) float64 { return (t.loads[r] + float64(more)) * t.pace[r] }

func (t *deal) give(p piece, r int) {
	t.hands[r] = append(t.hands[r], p)
	t.loads[r] += float64(t.costs[p.micro])
	if p.audit {
		t.second[p.micro] = r
	} else {
		t.summer[p.micro] = r
	}
}

func (t *deal) take(r, at int) piece {
	p := t.hands[r][at]
	t.hands[r] = slices.Delete(t.hands[r], at, at+1)
	t.loads[r] -= float64(t.costs[p.micro])
	return p
}

func (t *deal) place(p piece) error {
	best, end, cost := -1, math.Inf(1), float64(t.costs[p.micro])
	pace := t.pace[:len(t.loads)]
	for r, load := range t.loads {
		if e := (load + cost) * pace[r]; e < end && t.may(p, r) {
			best, end = r, e
		}
	}
	switch {
	case best >= 0:
		t.give(p, best)
	case !p.audit: // an audit that nobody may make is left out
		return fmt.Errorf("assign micro-batch %d: none of %d ranks may have it", p.micro, len(t.hands))
	}
	return nil
}

// improve makes the rank that ends last end earlier, by the best move or swap, and says whether there was one.
func (t *deal) improve() bool {
	last, end := 0, t.end(0, 0)
	for r := range t.hands {
		if e := t.end(r, 0); e > end {
			last, end = r, e
		}
	}
	best, to, at, back := end, -1, 0, -1
	for i, p := range t.hands[last] {
		cost := t.costs[p.micro]
		for r := range t.hands {
			if t.trials++; t.trials > maxTrials {
				return false
			}
			if r == last || !t.may(p, r) {
				continue
			}
			if e := max(t.end(r, cost), t.end(last, -cost)); e < best {
				best, to, at, back = e, r, i, -1
			}
			for j, q := range t.hands[r] {
				other := t.costs[q.micro]
				t.trials++
				if e := max(t.end(r, cost-other), t.end(last, other-cost)); e < best && q.micro != p.micro && t.may(q, last) {
					best, to, at, back = e, r, i, j
				}
			}
		}
	}
	if to < 0 || best >= end*(1-1e-9) {
		return false
	}
	p := t.take(last, at)
	if back >= 0 {
		t.give(t.take(to, back), last)
	}
	t.give(p, to)
	return true
}

// fewPieces is up to how many all deals are tried, as far as maxTrials goes.
const fewPieces = 12

// search looks for a deal that ends earlier than the present one, by branch and bound.
func (t *deal) search() {
	var pieces []piece
	for _, h := range t.hands {
		pieces = append(pieces, h...)
	}
	if len(pieces) > fewPieces {
		return
	}
	slices.SortFunc(pieces, func(a, b piece) int { // an audit comes after what it audits
		if c := cmp.Or(t.costs[b.micro]-t.costs[a.micro], a.micro-b.micro); c != 0 || a.audit == b.audit {
			return c
		}
		if b.audit {
			return -1
		}
		return 1
	})
	var best, total, speed float64
	for r := range t.hands {
		best = max(best, t.end(r, 0))
		total += t.loads[r]
		speed += t.speeds[r]
	}
	ranks, found := make([]int, len(pieces)), []int(nil)
	loads := make([]int, len(t.hands))
	var try func(i int, end float64)
	try = func(i int, end float64) {
		if t.trials++; t.trials > maxTrials || end >= best*(1-1e-9) || total/speed >= best*(1-1e-9) {
			return
		}
		if i == len(pieces) {
			best, found = end, slices.Clone(ranks)
			return
		}
		p := pieces[i]
		for r := range loads {
			same := func(o int) bool { return loads[o] == loads[r] && t.speeds[o] == t.speeds[r] }
			switch {
			case t.bars(p.micro, r):
				continue
			case p.audit && i > 0 && pieces[i-1].micro == p.micro && ranks[i-1] == r:
				continue
			case p.audit && (i == 0 || pieces[i-1].micro != p.micro) && t.summer[p.micro] == r:
				continue // summed from what it holds
			case !p.audit && t.barred == nil && len(t.held) == 0 && len(t.twice) == 0 && r > 0 && same(r-1):
				continue // the same as with the rank before
			}
			ranks[i] = r
			loads[r] += t.costs[p.micro]
			try(i+1, max(end, float64(loads[r])*t.pace[r]))
			loads[r] -= t.costs[p.micro]
		}
	}
	if try(0, 0); found == nil {
		return
	}
	for r := range t.hands {
		t.hands[r], t.loads[r] = nil, 0
	}
	for i, p := range pieces {
		t.give(p, found[i])
	}
}

// probes gives ranks that are to be measured and have nothing to do the shortest micro-batch that they may audit.
func (t *deal) probes(order []int) {
	for r := range t.hands {
		if !t.probe[r] || len(t.hands[r]) > 0 {
			continue
		}
		for _, i := range slices.Backward(order) {
			if p := (piece{i, true}); t.second[i] < 0 && t.may(p, r) {
				t.give(p, r)
				break
			}
		}
	}
}
