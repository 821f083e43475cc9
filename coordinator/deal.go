package coordinator

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// Assign deals micro-batches to ranks so that all end at about the same time: costs[i] is the work in micro-batch i,
// speeds[r] the work a unit of time that rank r does. The answer lists each rank's micro-batches in ascending order. Who computes
// what has no influence on the result, only on its time.
func Assign(costs []int, speeds []float64) ([][]int, error) {
	shards, _, err := dealing{costs: costs, speeds: speeds}.deal()
	return shards, err
}

// dealing is what a step's micro-batches are dealt by.
type dealing struct {
	costs  []int
	speeds []float64
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

// hand is the work of one rank so far.
type hand struct {
	pieces []piece // that take time
}

// maxTrials bounds the search for a better deal: about a millisecond.
const maxTrials = 200_000

// deal is a deal in the making.
type deal struct {
	dealing
	hands  []hand
	load   []float64 // work in hand, by rank
	pace   []float64 // time for a unit of work, by rank
	summer []int     // by micro-batch, the rank whose shard it is in
	second []int     // by micro-batch, the rank that audits it; -1 if none
	trials int
}

// deal deals the longest first, each to the rank that would finish it earliest, the lowest on a tie. Then it moves and swaps
// pieces of the rank that ends last for as long as that makes it end earlier: with few micro-batches the first deal is
// often a good deal off the best. shards and audits list each rank's micro-batches in ascending order.
func (d dealing) deal() (shards, audits [][]int, err error) {
	if len(d.speeds) == 0 {
		return nil, nil, fmt.Errorf("assign %d micro-batches: no ranks", len(d.costs))
	}
	t := deal{dealing: d, hands: make([]hand, len(d.speeds)), load: make([]float64, len(d.speeds)), pace: make([]float64, len(d.speeds)), summer: make([]int, len(d.costs)), second: make([]int, len(d.costs))}
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
func (t *deal) end(r, more int) float64 { return (t.load[r] + float64(more)) * t.pace[r] }

func (t *deal) give(p piece, r int) {
	h := &t.hands[r]
	h.pieces = append(h.pieces, p)
	t.load[r] += float64(t.costs[p.micro])
	if p.audit {
		t.second[p.micro] = r
	} else {
		t.summer[p.micro] = r
	}
}

func (t *deal) take(r, at int) piece {
	h := &t.hands[r]
	p := h.pieces[at]
	h.pieces = slices.Delete(h.pieces, at, at+1)
	t.load[r] -= float64(t.costs[p.micro])
	return p
}

func (t *deal) place(p piece) error {
	best, end, cost := -1, math.Inf(1), float64(t.costs[p.micro])
	pace := t.pace[:len(t.load)]
	for r, load := range t.load {
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
	for i, p := range t.hands[last].pieces {
		cost := t.costs[p.micro]
		for r := range t.hands {
			if t.trials++; r == last || t.trials > maxTrials || !t.may(p, r) {
				continue
			}
			if e := max(t.end(r, cost), t.end(last, -cost)); e < best {
				best, to, at, back = e, r, i, -1
			}
			for j, q := range t.hands[r].pieces {
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

// probes gives ranks that are to be measured and have nothing to do the shortest micro-batch that they may audit.
func (t *deal) probes(order []int) {
	for r := range t.hands {
		if !t.probe[r] || len(t.hands[r].pieces) > 0 {
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
