// Package enginetest is the conformance suite of package engine: it checks every op of an engine on
// random ragged shapes against the float64 reference, and the contract's promises about bits,
// memory and Numerics.
package enginetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
)

// Tolerance is how far a result may lie from the reference, relative to the largest magnitude in
// the reference result or to 1, the size of the operands.
type Tolerance float64

// Run checks the engine that open returns, which it closes.
func Run(t *testing.T, open func(threads int) engine.Engine, tol Tolerance) {
	s := &suite{open: open, tol: float64(tol)}
	t.Run("rows", s.rowOps)
	t.Run("attention", s.attention)
	t.Run("shared attention", s.sharedAttention)
	t.Run("move", s.move)
	t.Run("argmax", s.argmax)
	t.Run("workspace", s.workspace)
	t.Run("numerics", s.numerics)
	if _, ok := s.engine(t, 1).(engine.Trainer); ok {
		t.Run("training", s.training)
	}
}

type suite struct {
	open func(threads int) engine.Engine
	tol  float64
}

func (s *suite) engine(t *testing.T, threads int) engine.Engine {
	t.Helper()
	e := s.open(threads)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// reference returns the engine whose results are compared with.
func reference(t *testing.T) engine.Engine {
	e := portable.New[float64](1)
	t.Cleanup(func() { e.Close() })
	return e
}

// random returns n normal numbers as float32, which every engine takes without rounding.
func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// randomIDs returns n numbers in [0, limit).
func randomIDs(r *rand.Rand, n, limit int) []int32 {
	x := make([]int32, n)
	for i := range x {
		x[i] = int32(r.IntN(limit))
	}
	return x
}

func download(t *testing.T, e engine.Engine, x engine.Tensor) []float64 {
	t.Helper()
	out := make([]float64, x.Rows()*x.Cols())
	if err := e.Download(out, x); err != nil {
		t.Fatal(err)
	}
	return out
}

// upload makes a tensor of data.
func upload(e engine.Engine, ws engine.Workspace, p engine.Precision, data []float32, rows, cols int) engine.Tensor {
	x := ws.Tensor(p, rows, cols)
	e.Upload(x, data)
	return x
}

// place is where a test's operands lie in memory; results may not depend on it. With the zero place
// each operand is a fresh tensor. With another it is a view into the middle of a larger tensor,
// which a small one before it shifts.
type place struct{ row, col int }

// upload makes a tensor of data at p, among NaNs.
func (at place) upload(
	e engine.Engine,
	ws engine.Workspace,
	p engine.Precision,
	data []float32,
	rows, cols int,
) engine.Tensor {
	if at == (place{}) {
		return upload(e, ws, p, data, rows, cols)
	}
	around := make([]float32, (rows+at.row+1)*(cols+at.col+1))
	for i := range around {
		around[i] = float32(math.NaN())
	}
	ws.Tensor(engine.Wide, 1, at.col)
	x := ws.View(upload(e, ws, p, around, rows+at.row+1, cols+at.col+1), at.row, rows, at.col, cols)
	e.Upload(x, data)
	return x
}

// places are tried beside the zero place.
var places = []place{{row: 1, col: 1}, {row: 2, col: 3}, {row: 5, col: 6}}

// dirty fills the memory that the next tensors of ws will get with NaNs.
func dirty(e engine.Engine, ws engine.Workspace) {
	nan := make([]float32, 1<<16)
	for i := range nan {
		nan[i] = float32(math.NaN())
	}
	mark := ws.Mark()
	for _, p := range []engine.Precision{engine.Wide, engine.Narrow, engine.Wide, engine.Narrow} {
		e.Upload(ws.Tensor(p, 256, 256), nan)
	}
	ws.Release(mark)
}

// compare reports where got is further from want than the tolerance.
func (s *suite) compare(t *testing.T, what string, got, want []float64) {
	t.Helper()
	scale := 1.0
	for _, w := range want {
		scale = max(scale, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(got[i] - w); !(d <= s.tol*scale) {
			t.Errorf("%s: element %d is %g, want %g within %g", what, i, got[i], w, s.tol*scale)
			return
		}
	}
}

// sameBits reports where got differs from want at all.
func sameBits(t *testing.T, what string, got, want []float64) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }) {
		t.Errorf("%s: bits differ", what)
	}
}

// must returns v; a test's constructor has valid arguments.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("enginetest: %v", err))
	}
	return v
}
