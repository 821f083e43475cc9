// Package deal divides a step's micro-batches among ranks, so that the rank that ends last ends
// early.
//
// Who computes what has no influence on a step's result, only on its time: sums over micro-batches
// are exact. So a deal may be greedy, and weigh measured speeds, without touching the bits.
package deal

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// Work is what there is to deal. Costs and speeds are in any units, as long as all costs share one
// and all speeds share one.
type Work struct {
	// Costs[i] is the work in micro-batch i.
	Costs []int
	// Speeds[r] is the work that rank r does in a unit of time.
	Speeds []float64
	// Held maps a micro-batch to the rank that has its contribution from an abandoned attempt, at
	// no cost.
	Held map[int]int
	// Audited holds the micro-batches that a second rank computes too.
	Audited map[int]bool
	// Barred reports whether a rank must get a micro-batch neither in its shard nor to audit; nil
	// bars none.
	Barred func(micro, rank int) bool
	// Measured holds the ranks that get something to audit if they get nothing else, so that their
	// speed is measured.
	Measured map[int]bool
}

// piece is a micro-batch to compute: for the sum, or to audit it.
type piece struct {
	micro int
	audit bool
}

// maxTrials bounds the work of improving a deal to a fraction of a millisecond.
const maxTrials = 100_000

// deal is a deal in the making.
type deal struct {
	Work
	hands   [][]piece // by rank, what takes it time
	loads   []float64 // by rank, the cost of its hand
	pace    []float64 // by rank, the time for a unit of work
	summer  []int     // by micro-batch, the rank whose shard it is in
	auditor []int     // by micro-batch, the rank that audits it; -1 if none
	trials  int       // deals looked at, up to maxTrials
}

// Deal returns each rank's shard and what it audits, as lists of micro-batches in ascending order.
//
// It deals the longest micro-batch first, each to the rank that would finish it earliest, the
// lowest rank on a tie. Then it moves and swaps pieces of the rank that ends last for as long as
// that makes it end earlier, and where there are few pieces it tries all deals: with few
// micro-batches the first deal is often far from the best.
//
// It fails where there are no ranks, a speed is not positive, or Barred leaves a micro-batch to no
// rank. An audit that no rank may make is left out.
func (w Work) Deal() (shards, audits [][]int, err error) {
	if len(w.Speeds) == 0 {
		return nil, nil, fmt.Errorf("assign %d micro-batches: found no ranks, want at least one", len(w.Costs))
	}
	d := newDeal(w)
	for r, v := range w.Speeds {
		if !(v > 0) {
			return nil, nil, fmt.Errorf("assign %d micro-batches: rank %d has speed %v, want a positive one",
				len(w.Costs), r, v)
		}
		d.pace[r] = 1 / v
	}
	longestFirst := make([]int, len(w.Costs))
	for i := range longestFirst {
		longestFirst[i] = i
	}
	sort.SliceStable(longestFirst, func(a, b int) bool { return w.Costs[longestFirst[a]] > w.Costs[longestFirst[b]] })
	for _, i := range longestFirst {
		if r, ok := w.Held[i]; ok && !d.bars(i, r) {
			d.summer[i] = r
		} else if err := d.place(piece{micro: i}); err != nil {
			return nil, nil, err
		}
		if w.Audited[i] && len(w.Speeds) > 1 {
			if err := d.place(piece{micro: i, audit: true}); err != nil {
				return nil, nil, err
			}
		}
	}
	for d.improve() {
	}
	d.search()
	d.measure(longestFirst)
	shards, audits = d.lists()
	return shards, audits, nil
}

// newDeal is a deal of which nothing is dealt.
func newDeal(w Work) *deal {
	d := &deal{
		Work:    w,
		hands:   make([][]piece, len(w.Speeds)),
		loads:   make([]float64, len(w.Speeds)),
		pace:    make([]float64, len(w.Speeds)),
		summer:  make([]int, len(w.Costs)),
		auditor: make([]int, len(w.Costs)),
	}
	for i := range w.Costs {
		d.summer[i], d.auditor[i] = -1, -1
	}
	return d
}

// lists are the shards and the audits by rank.
func (d *deal) lists() (shards, audits [][]int) {
	shards, audits = make([][]int, len(d.Speeds)), make([][]int, len(d.Speeds))
	for i, r := range d.summer {
		shards[r] = append(shards[r], i)
	}
	for i, r := range d.auditor {
		if r >= 0 {
			audits[r] = append(audits[r], i)
		}
	}
	return shards, audits
}

func (d *deal) bars(micro, r int) bool { return d.Barred != nil && d.Barred(micro, r) }

// allows reports whether a rank may take a piece: nobody audits its own sum.
func (d *deal) allows(p piece, r int) bool {
	if p.audit {
		return d.summer[p.micro] != r && !d.bars(p.micro, r)
	}
	return d.auditor[p.micro] != r && !d.bars(p.micro, r)
}

// end is when a rank ends with more work in hand.
func (d *deal) end(r, more int) float64 { return (d.loads[r] + float64(more)) * d.pace[r] }

// give puts a piece into a rank's hand.
func (d *deal) give(p piece, r int) {
	d.hands[r] = append(d.hands[r], p)
	d.loads[r] += float64(d.Costs[p.micro])
	if p.audit {
		d.auditor[p.micro] = r
	} else {
		d.summer[p.micro] = r
	}
}

// takeBack takes the piece at an index out of a rank's hand.
func (d *deal) takeBack(r, at int) piece {
	p := d.hands[r][at]
	d.hands[r] = slices.Delete(d.hands[r], at, at+1)
	d.loads[r] -= float64(d.Costs[p.micro])
	return p
}

// place gives a piece to the rank that would finish it earliest.
func (d *deal) place(p piece) error {
	best, end, cost := -1, math.Inf(1), float64(d.Costs[p.micro])
	pace := d.pace[:len(d.loads)]
	for r, load := range d.loads {
		if e := (load + cost) * pace[r]; e < end && d.allows(p, r) {
			best, end = r, e
		}
	}
	switch {
	case best >= 0:
		d.give(p, best)
	case !p.audit:
		return fmt.Errorf("assign micro-batch %d: none of %d ranks may have it", p.micro, len(d.hands))
	}
	return nil
}

// improve makes the rank that ends last end earlier, by the best move or swap, and reports whether
// there was one.
func (d *deal) improve() bool {
	last, end := 0, d.end(0, 0)
	for r := range d.hands {
		if e := d.end(r, 0); e > end {
			last, end = r, e
		}
	}

	// The best exchange found so far: piece `at` of the last rank goes to rank `to`, which gives
	// piece `back`; -1 gives none.
	best, to, at, back := end, -1, 0, -1
	for i, p := range d.hands[last] {
		cost := d.Costs[p.micro]
		for r := range d.hands {
			if d.trials++; d.trials > maxTrials {
				return false
			}
			if r == last || !d.allows(p, r) {
				continue
			}
			if e := max(d.end(r, cost), d.end(last, -cost)); e < best {
				best, to, at, back = e, r, i, -1
			}
			for j, q := range d.hands[r] {
				other := d.Costs[q.micro]
				d.trials++
				e := max(d.end(r, cost-other), d.end(last, other-cost))
				if e < best && q.micro != p.micro && d.allows(q, last) {
					best, to, at, back = e, r, i, j
				}
			}
		}
	}
	if to < 0 || best >= end*(1-1e-9) {
		return false
	}
	p := d.takeBack(last, at)
	if back >= 0 {
		d.give(d.takeBack(to, back), last)
	}
	d.give(p, to)
	return true
}

// measure gives ranks whose speed is to be measured, and that have nothing to do, the shortest
// micro-batch that they may audit.
func (d *deal) measure(longestFirst []int) {
	for r := range d.hands {
		if !d.Measured[r] || len(d.hands[r]) > 0 {
			continue
		}
		for _, i := range slices.Backward(longestFirst) {
			if p := (piece{micro: i, audit: true}); d.auditor[i] < 0 && d.allows(p, r) {
				d.give(p, r)
				break
			}
		}
	}
}
