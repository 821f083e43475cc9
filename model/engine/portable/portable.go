// Package portable is the reference engine: pure Go with gonum's matrix products. It runs wherever
// Go does, and other engines are tested against it. Models run on it in float32; tests use float64
// to check gradients by finite differences.
package portable

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/internal/pool"
)

// Float is the type of an engine's numbers.
type Float interface{ float32 | float64 }

// Engine implements engine.Engine in F. Narrow and Wide tensors are the same to it.
type Engine[F Float] struct {
	pool    *pool.Pool
	scratch [][]F // per worker, grown on demand

	// One of each task, so that running an op allocates nothing.
	gemm  gemmTask[F]
	heads headsTask[F]
	attn  attentionTask[F]
	rows  rowsTask[F]
	embed embedBackwardTask[F]

	weight   weightGradientTask[F]
	gainGrad gainGradientTask[F]
	biasGrad biasGradientTask[F]
}

var _ engine.Engine = (*Engine[float32])(nil)

// New returns an engine with the given number of threads; 0 or less means one per CPU that Go may
// use.
func New[F Float](threads int) *Engine[F] {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Engine[F]{pool: pool.New(threads), scratch: make([][]F, threads)}
}

// Name is "portable/float32/2 threads" or the like.
func (e *Engine[F]) Name() string {
	return fmt.Sprintf("portable/float%d/%d threads", 8*unsafe.Sizeof(F(0)), e.pool.Workers())
}

// Numerics is "portable/f32/amd64" or the like: sums depend on the type and on what the compiler
// fuses, by architecture.
func (e *Engine[F]) Numerics() string {
	return fmt.Sprintf("portable/f%d/%s", 8*unsafe.Sizeof(F(0)), runtime.GOARCH)
}

// Close ends the worker goroutines.
func (e *Engine[F]) Close() error {
	e.pool.Close()
	return nil
}

// run spreads the parts of t over the workers, or runs them here if the whole work is too small for
// that.
func (e *Engine[F]) run(parts, flops int, t pool.Task) {
	if flops >= serialFlops {
		e.pool.Run(parts, t)
		return
	}
	for i := range parts {
		t.Do(i, 0)
	}
}

// scratchFor returns n elements, contents undefined, that belong to worker until its next call.
func (e *Engine[F]) scratchFor(worker, n int) []F {
	if cap(e.scratch[worker]) < n {
		e.scratch[worker] = aligned[F](n + n/2)
	}
	return e.scratch[worker][:n]
}

// alignment in bytes of every tensor's and weight's first element. gonum's dot products peel off
// elements up to a 16-byte boundary of their right operand, so their bits depend on its address. A
// right operand is therefore a weight, all of whose rows are aligned, or is copied to an aligned
// place.
const alignment = 64

// isAligned reports whether x starts at a 16-byte boundary.
func isAligned[F Float](x []F) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(x)))%16 == 0 }

// aligned allocates n zeros at an aligned address.
func aligned[F Float](n int) []F {
	size := int(unsafe.Sizeof(F(0)))
	s := make([]F, n+alignment/size)
	off := int(uintptr(unsafe.Pointer(unsafe.SliceData(s))) % alignment)
	skip := 0
	if off != 0 {
		skip = (alignment - off) / size
	}
	return s[skip : skip+n : skip+n]
}

// padded is a row length rounded up so that all rows are equally aligned.
func padded(cols int) int { return (cols + 3) &^ 3 }

// matrix is the tensor of this package: element (i, j) is data[i*ld+j].
type matrix[F Float] struct {
	rows, cols, ld int
	data           []F
}

func (m *matrix[F]) Rows() int { return m.rows }
func (m *matrix[F]) Cols() int { return m.cols }

func (m *matrix[F]) row(i int) []F { return m.data[i*m.ld : i*m.ld+m.cols] }

func mat[F Float](t engine.Tensor) *matrix[F] { return t.(*matrix[F]) }

// check panics unless t is rows × cols.
func check[F Float](op, name string, t *matrix[F], rows, cols int) {
	if t.rows != rows || t.cols != cols {
		panic(fmt.Sprintf("portable: %s: %s is %d×%d, want %d×%d", op, name, t.rows, t.cols, rows, cols))
	}
}
