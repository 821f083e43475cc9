// Package meter measures an engine from outside: it is an engine that passes every op on to another one and notes how long it
// took and how much it multiplied. The other engine's ops must be done when they return, as a CPU's are.
package meter

import (
	"cmp"
	"slices"
	"time"

	"github.com/dptune/dpt/model/engine"
)

// Kind groups ops that are fast or slow for the same reason.
type Kind string

const (
	Linear    Kind = "linear"    // products with frozen weights
	Attention Kind = "attention" // scores, softmax and what is gathered, both ways
	Other     Kind = "other"     // norms, activations, losses, copies
)

// Entry is what the ops of one kind in one part of the computation took.
type Entry struct {
	Part  string
	Kind  Kind
	Calls int
	Time  time.Duration
	// FLOPs are multiplications and additions of matrix products. Zeros that an engine skips count as if computed.
	FLOPs float64
}

// Engine is an engine.Engine that measures.
type Engine struct {
	engine.Engine
	part    string
	entries map[key]*Entry
	order   []key
	shapes  map[shape]*product
	live    int
	peak    int

	// What engine.Engine's handles do not tell. Engines recycle them; an entry is overwritten when its handle is handed out again.
	work      map[engine.Segments]float64 // Σ queries × keys
	precision map[engine.Tensor]engine.Precision
}

var (
	_ engine.Engine   = (*Engine)(nil)
	_ engine.Observer = (*Engine)(nil)
)

type key struct {
	part string
	kind Kind
}

// New measures e.
func New(e engine.Engine) *Engine {
	m := &Engine{Engine: e, work: make(map[engine.Segments]float64), precision: make(map[engine.Tensor]engine.Precision)}
	m.Reset()
	return m
}

// Reset forgets what was measured.
func (m *Engine) Reset() {
	m.entries, m.order, m.shapes = make(map[key]*Entry), nil, make(map[shape]*product)
	m.peak = m.live
}

// Part implements engine.Observer.
func (m *Engine) Part(name string) { m.part = name }

// Entries are what was measured since the last Reset, in the order in which the kinds first ran.
func (m *Engine) Entries() []Entry {
	out := make([]Entry, len(m.order))
	for i, k := range m.order {
		out[i] = *m.entries[k]
	}
	return out
}

// FLOPs of all products since the last Reset.
func (m *Engine) FLOPs() float64 {
	var sum float64
	for _, e := range m.entries {
		sum += e.FLOPs
	}
	return sum
}

// PeakElems is the most numbers that tensors held at once since the last Reset.
func (m *Engine) PeakElems() int { return m.peak }

func (m *Engine) note(kind Kind, flops float64, began time.Time) {
	k := key{m.part, kind}
	e := m.entries[k]
	if e == nil {
		e = &Entry{Part: m.part, Kind: kind}
		m.entries[k] = e
		m.order = append(m.order, k)
	}
	e.Calls++
	e.Time += time.Since(began)
	e.FLOPs += flops
}

// shape is a product with a frozen weight on so many rows.
type shape struct {
	rows, in, out        int
	backward, accumulate bool
	x, y                 engine.Precision
}

// product is how often a shape ran, and one of the weights that it ran with.
type product struct {
	shape
	count  int
	weight engine.Linear
}

func (s shape) flops() float64 { return 2 * float64(s.rows) * float64(s.in) * float64(s.out) }

// Limit measures how fast the engine multiplies at best: each product with a frozen weight that ran since the last Reset runs again, by itself,
// with its operands resident, for about its share of the budget, and its fastest time counts as often as it ran. In FLOPs per second; 0
// if none ran.
func (m *Engine) Limit(budget time.Duration) float64 {
	if len(m.shapes) == 0 {
		return 0
	}
	products := make([]*product, 0, len(m.shapes))
	for _, p := range m.shapes {
		products = append(products, p)
	}
	slices.SortFunc(products, func(a, b *product) int {
		return cmp.Or(cmp.Compare(a.in, b.in), cmp.Compare(a.out, b.out), cmp.Compare(a.rows, b.rows), cmp.Compare(a.x, b.x), cmp.Compare(a.y, b.y))
	})
	var flops, seconds float64
	for _, p := range products {
		best := m.fastest(p, budget/time.Duration(len(products)))
		flops += float64(p.count) * p.flops()
		seconds += float64(p.count) * best.Seconds()
	}
	return flops / seconds
}

// fastest runs p at least 3 times, until budget is spent.
func (m *Engine) fastest(p *product, budget time.Duration) time.Duration {
	ws := m.Engine.NewWorkspace()
	x, y := ws.Tensor(p.x, p.rows, p.in), ws.Tensor(p.y, p.rows, p.out)
	// The results of a product are the operands of the other direction's; both are filled so that no number is abnormal.
	fill(m.Engine, x)
	fill(m.Engine, y)
	best := time.Duration(0)
	for began, n := time.Now(), 0; n < 3 || time.Since(began) < budget; n++ {
		start := time.Now()
		if p.backward {
			m.Engine.LinearBackward(x, y, p.weight, p.accumulate)
		} else {
			m.Engine.LinearForward(y, x, p.weight)
		}
		if took := time.Since(start); n == 1 || n > 1 && took < best { // the first warms up
			best = took
		}
	}
	return best
}

// fill sets t to numbers around 0, a third of them exactly that, as activations are behind a ReLU.
func fill(e engine.Engine, t engine.Tensor) {
	data := make([]float32, t.Rows()*t.Cols())
	for i := range data {
		data[i] = float32(i%7-3) * float32(i%3) / 4
	}
	e.Upload(t, data)
}
