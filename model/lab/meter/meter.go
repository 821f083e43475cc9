// Package meter is part of the lab, not of the trainer: it measures an engine from outside. Its
// engine passes every op on to another one and notes how long it took and how much it multiplied.
// The other engine's ops must be done when they return, as a CPU's are.
package meter

import (
	"time"

	"github.com/dptune/dpt/model/engine"
)

// Kind groups ops that are fast or slow for the same reason.
type Kind string

const (
	Linear    Kind = "linear"    // products with frozen weights
	Attention Kind = "attention" // scores, softmax and weighted sums, forward and backward
	Other     Kind = "other"     // norms, activations, losses, copies
)

// Entry is the cost of the ops of one kind in one part of the computation.
type Entry struct {
	Part  string
	Kind  Kind
	Calls int
	Time  time.Duration
	// FLOPs are multiplications and additions of matrix products. Zeros that an engine skips count
	// as if computed.
	FLOPs float64
}

// Engine is an engine.Engine that measures. It computes the other engine's bits, so its Numerics is
// the other engine's too.
type Engine struct {
	engine.Engine
	part    string
	entries map[key]*Entry
	order   []key
	shapes  map[shape]*product
	live    int
	peak    int

	// Properties that engine.Engine's handles do not tell. Engines recycle handles; an entry is
	// overwritten when its handle is handed out again.
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
	m := &Engine{
		Engine:    e,
		work:      make(map[engine.Segments]float64),
		precision: make(map[engine.Tensor]engine.Precision),
	}
	m.Reset()
	return m
}

// Reset forgets all measurements.
func (m *Engine) Reset() {
	m.entries, m.order, m.shapes = make(map[key]*Entry), nil, make(map[shape]*product)
	m.peak = m.live
}

// Part implements engine.Observer.
func (m *Engine) Part(name string) { m.part = name }

// Entries are the measurements since the last Reset, in the order in which the kinds first ran.
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
	for _, k := range m.order {
		sum += m.entries[k].FLOPs
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

// shape is a product with a frozen weight on a number of rows.
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
