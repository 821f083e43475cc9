package portable

import (
	"unsafe"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
)

// Block sizes. gonum multiplies serially, without goroutines or allocation and in one fixed order
// per element, as long as the result has fewer than four of its 64×64 blocks: at most 64 rows by
// 192 columns. Within that limit these sizes were the fastest at T5-Small's shapes (about 19
// GFLOP/s a core; one call for the whole product gives 12).
const (
	blockRows   = 64
	dotCols     = 64  // columns of a block when B is transposed (dot products)
	axpyCols    = 192 // columns of a block when B is not (scaled row sums)
	axpyDepth   = 64  // rows of B that stay in cache during a block
	serialFlops = 1 << 18
)

var impl gonum.Implementation

// gemmBlock adds op(A)·op(B) to C, for at most 64 rows and 192 columns of C.
func gemmBlock[F Float](ta, tb blas.Transpose, m, n, k int, a []F, lda int, b []F, ldb int, c []F, ldc int) {
	if m == 0 || n == 0 || k == 0 {
		return
	}
	if unsafe.Sizeof(F(0)) == 4 {
		impl.Sgemm(ta, tb, m, n, k, 1, as[float32](a), lda, as[float32](b), ldb, 1, as[float32](c), ldc)
		return
	}
	impl.Dgemm(ta, tb, m, n, k, 1, as[float64](a), lda, as[float64](b), ldb, 1, as[float64](c), ldc)
}

// as reinterprets x, whose elements are T already, for code chosen by their size.
func as[T, F Float](x []F) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// gemm adds op(A)·op(B) to C on the calling goroutine, block by block. An element's bits depend
// only on its row of op(A), its column of op(B) and what C held.
func gemm[F Float](ta, tb blas.Transpose, m, n, k int, a []F, lda int, b []F, ldb int, c []F, ldc int) {
	cols := axpyCols
	if tb == blas.Trans {
		cols = dotCols
	}
	for i := 0; i < m; i += blockRows {
		mi := min(blockRows, m-i)
		ai := i * lda
		if ta == blas.Trans {
			ai = i
		}
		for j := 0; j < n; j += cols {
			nj := min(cols, n-j)
			bj := j
			if tb == blas.Trans {
				bj = j * ldb
			}
			gemmBlock(ta, tb, mi, nj, k, a[ai:], lda, b[bj:], ldb, c[i*ldc+j:], ldc)
		}
	}
}

// gemmTask computes C = A·op(B), or C += A·op(B), for any size, in blocks that run in parallel.
type gemmTask[F Float] struct {
	tb         blas.Transpose
	m, n, k    int
	a, b, c    matrix[F]
	accumulate bool
	colBlocks  int
}

func (t *gemmTask[F]) cols() int {
	if t.tb == blas.Trans {
		return dotCols
	}
	return axpyCols
}

func (t *gemmTask[F]) Do(part, _ int) {
	cols := t.cols()
	i, j := part/t.colBlocks*blockRows, part%t.colBlocks*cols
	m, n := min(blockRows, t.m-i), min(cols, t.n-j)
	c := t.c.data[i*t.c.ld+j:]
	if !t.accumulate {
		for r := range m {
			clear(c[r*t.c.ld : r*t.c.ld+n])
		}
	}
	a := t.a.data[i*t.a.ld:]
	if t.tb == blas.Trans {
		gemmBlock(blas.NoTrans, blas.Trans, m, n, t.k, a, t.a.ld, t.b.data[j*t.b.ld:], t.b.ld, c, t.c.ld)
		return
	}
	for l := 0; l < t.k; l += axpyDepth {
		gemmBlock(blas.NoTrans, blas.NoTrans, m, n, min(axpyDepth, t.k-l), a[l:], t.a.ld, t.b.data[l*t.b.ld+j:], t.b.ld,
			c, t.c.ld)
	}
}

// multiply runs t on the engine's workers, or on the calling goroutine if it is too small to be
// worth waking them.
func (e *Engine[F]) multiply(t gemmTask[F]) {
	if t.m == 0 || t.n == 0 {
		return
	}
	e.gemm = t
	cols := t.cols()
	e.gemm.colBlocks = (t.n + cols - 1) / cols
	parts := (t.m + blockRows - 1) / blockRows * e.gemm.colBlocks
	e.run(parts, 2*t.m*t.n*t.k, &e.gemm)
	e.gemm = gemmTask[F]{}
}
