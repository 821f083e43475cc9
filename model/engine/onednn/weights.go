//go:build onednn && cgo

package onednn

import (
	"fmt"
	"unsafe"

	"github.com/dptune/dpt/model/engine"
)

// linear is a weight packed for forward and for backward; the latter may have no memory of its own.
type linear struct {
	out, in  int
	forward  []*packed // one: [in, out]
	backward []*packed // one: [out, in]
}

func (l *linear) Out() int { return l.out }
func (l *linear) In() int  { return l.in }

// NewLinear packs the stacked weights.
func (e *Engine) NewLinear(spec engine.LinearSpec) (engine.Linear, error) {
	out := 0
	for i, w := range spec.Weights {
		if spec.In <= 0 || len(w)%spec.In != 0 {
			return nil, fmt.Errorf("linear: weight %d has %d elements, want a multiple of the input size %d",
				i, len(w), spec.In)
		}
		out += len(w) / spec.In
	}
	if out == 0 {
		return nil, fmt.Errorf("linear: no weights")
	}
	if len(spec.Weights) == 1 {
		return e.pack(spec.Weights[0], out, spec.In)
	}
	size := out * spec.In
	tmp := e.alloc(4 * size)
	if tmp == nil {
		return nil, fmt.Errorf("linear: no memory for %d×%d weights", out, spec.In)
	}
	defer e.free(tmp)
	all := unsafe.Slice((*float32)(tmp), size)[:0]
	for _, w := range spec.Weights {
		all = append(all, w...)
	}
	return e.pack(all, out, spec.In)
}

// table is an embedding table, in float32: it feeds the residual stream.
type table struct{ w tensor }

func (t *table) Rows() int { return t.w.rows }
func (t *table) Cols() int { return t.w.cols }

// NewTable copies an embedding table.
func (e *Engine) NewTable(rows, cols int, w []float32) (engine.Table, error) {
	if len(w) != rows*cols || rows < 1 || cols < 1 {
		return nil, fmt.Errorf("table: %d elements, want %d×%d", len(w), rows, cols)
	}
	p, err := e.keep(w)
	if err != nil {
		return nil, fmt.Errorf("table: %w", err)
	}
	return &table{tensor{rows: rows, cols: cols, ld: cols, dt: f32, p: p}}, nil
}

// keep copies w.
func (e *Engine) keep(w []float32) (unsafe.Pointer, error) {
	p := e.hold(4 * len(w))
	if p == nil {
		return nil, fmt.Errorf("no memory for %d numbers", len(w))
	}
	copy(unsafe.Slice((*float32)(p), len(w)), w)
	return p, nil
}

// TableLinear packs the table as a weight.
func (e *Engine) TableLinear(t engine.Table) (engine.Linear, error) {
	w := t.(*table).w
	return e.pack(unsafe.Slice((*float32)(w.p), w.rows*w.cols), w.rows, w.cols)
}

// gain is the scale of a norm.
type gain struct {
	n int
	p unsafe.Pointer
}

func (g *gain) Len() int { return g.n }

// NewGain copies the scale of a norm.
func (e *Engine) NewGain(w []float32) (engine.Gain, error) {
	p, err := e.keep(w)
	if err != nil {
		return nil, fmt.Errorf("gain: %w", err)
	}
	return &gain{len(w), p}, nil
}

// bias holds, per head, one value for each distance lo..hi.
type bias struct {
	heads, lo, hi int
	p             unsafe.Pointer
}

func (b *bias) Heads() int { return b.heads }

// NewBias copies a bias table.
func (e *Engine) NewBias(heads, lo, hi int, values []float32) (engine.Bias, error) {
	if lo > 0 || hi < 0 || len(values) != heads*(hi-lo+1) {
		return nil, fmt.Errorf("bias: %d values for %d heads and distances %d..%d, want %d",
			len(values), heads, lo, hi, heads*(hi-lo+1))
	}
	p, err := e.keep(values)
	if err != nil {
		return nil, fmt.Errorf("bias: %w", err)
	}
	return &bias{heads, lo, hi, p}, nil
}
