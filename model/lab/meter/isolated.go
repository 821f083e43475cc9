package meter

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/dptune/dpt/model/engine"
)

// Isolated measures the highest speed at which an engine multiplies: it runs products with frozen
// weights again, each by itself, with its operands in cache. Alternate it with passes of the
// computation that it is compared with, so that other load on the machine slows both.
type Isolated struct {
	e        engine.Engine
	ws       engine.Workspace
	products []*product
	times    [][]time.Duration // per product
}

// Isolate collects the products that have run since the last Reset. Limits weighs each by the
// number of times that it has run by then.
func (m *Engine) Isolate() *Isolated {
	l := &Isolated{e: m.Engine, ws: m.Engine.NewWorkspace()}
	l.products = slices.SortedFunc(maps.Values(m.shapes), func(a, b *product) int {
		return cmp.Or(
			cmp.Compare(a.in, b.in), cmp.Compare(a.out, b.out), cmp.Compare(a.rows, b.rows),
			cmp.Compare(a.x, b.x), cmp.Compare(a.y, b.y),
			compareBools(a.backward, b.backward), compareBools(a.accumulate, b.accumulate),
		)
	})
	l.times = make([][]time.Duration, len(l.products))
	return l
}

// compareBools orders false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Run runs each product once to warm up and then at least twice, until its share of the budget is
// spent. Calls add up.
func (l *Isolated) Run(budget time.Duration) {
	for i, p := range l.products {
		l.run(p, &l.times[i], budget/time.Duration(len(l.products)))
	}
}

func (l *Isolated) run(p *product, times *[]time.Duration, budget time.Duration) {
	mark := l.ws.Mark()
	defer l.ws.Release(mark)
	x, y := l.ws.Tensor(p.x, p.rows, p.in), l.ws.Tensor(p.y, p.rows, p.out)
	// The results of a product are the operands of the other direction's; both are filled so that
	// no number is abnormal.
	fill(l.e, x)
	fill(l.e, y)
	for began, n := time.Now(), 0; n < 3 || time.Since(began) < budget; n++ {
		start := time.Now()
		if p.backward {
			l.e.LinearBackward(x, y, p.weight, p.accumulate)
		} else {
			l.e.LinearForward(y, x, p.weight)
		}
		if n > 0 {
			*times = append(*times, time.Since(start))
		}
	}
}

// Limits are the FLOPs per second of all products together, by the median and by the fastest of
// each one's times; 0 if none has run. Compare the median with the median of passes, and the
// fastest with the fastest pass.
func (l *Isolated) Limits() (median, fastest float64) {
	var flops, medians, best float64
	for i, p := range l.products {
		times := slices.Sorted(slices.Values(l.times[i]))
		if len(times) == 0 {
			return 0, 0
		}
		n := float64(p.count)
		flops += n * p.flops()
		medians += n * times[len(times)/2].Seconds()
		best += n * times[0].Seconds()
	}
	if flops == 0 {
		return 0, 0
	}
	return flops / medians, flops / best
}

// fill sets t to numbers around 0, a third of them exactly 0, like activations behind a ReLU.
func fill(e engine.Engine, t engine.Tensor) {
	data := make([]float32, t.Rows()*t.Cols())
	for i := range data {
		data[i] = float32(i%7-3) * float32(i%3) / 4
	}
	e.Upload(t, data)
}
