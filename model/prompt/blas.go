package prompt

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
	"gorgonia.org/gorgonia"
)

func init() { gorgonia.Use(exactBLAS{}) }

// exactBLAS multiplies matrices for gorgonia: it is gonum's BLAS with another
// Sgemm. Gonum sums the float32 products of a row in an order that depends on
// the address of the row, so the same input can give other bits in another run.
type exactBLAS struct{ gonum.Implementation }

// Sgemm computes C = alpha·op(A)·op(B) + beta·C for row-major matrices, as BLAS
// defines it. Sums run in float64 over rising k; a product of two float32s is
// exact there, so it does not matter whether the compiler fuses it with the sum.
func (exactBLAS) Sgemm(
	tA, tB blas.Transpose,
	m, n, k int,
	alpha float32,
	a []float32,
	lda int,
	b []float32,
	ldb int,
	beta float32,
	c []float32,
	ldc int,
) {
	// Rows of op(B) must be contiguous, elements of op(A) may have any stride.
	if tB != blas.NoTrans {
		b, ldb = transposed(b, n, k, ldb), n
	}
	rowStride, colStride := lda, 1
	if tA != blas.NoTrans {
		rowStride, colStride = 1, lda
	}

	// Each row of C is a sum of multiples of rows of op(B).
	sums := make([]float64, n)
	for i := range m {
		clear(sums)
		l := 0
		for ; l+4 <= k; l += 4 { // four terms at a time, to load the sums less often
			at := i*rowStride + l*colStride
			x0, x1 := float64(a[at]), float64(a[at+colStride])
			x2, x3 := float64(a[at+2*colStride]), float64(a[at+3*colStride])
			y0, y1 := b[l*ldb:][:n], b[(l+1)*ldb:][:n]
			y2, y3 := b[(l+2)*ldb:][:n], b[(l+3)*ldb:][:n]
			for j, s := range sums {
				s += float64(x0 * float64(y0[j]))
				s += float64(x1 * float64(y1[j]))
				s += float64(x2 * float64(y2[j]))
				s += float64(x3 * float64(y3[j]))
				sums[j] = s
			}
		}
		for ; l < k; l++ {
			x := float64(a[i*rowStride+l*colStride])
			for j, y := range b[l*ldb:][:n] {
				sums[j] += float64(x * float64(y))
			}
		}
		out := c[i*ldc : i*ldc+n]
		for j, s := range sums {
			v := float64(alpha) * s
			if beta != 0 { // BLAS: C may hold anything if beta is 0
				v = float64(v) + float64(float64(beta)*float64(out[j]))
			}
			out[j] = float32(v)
		}
	}
}

// transposed returns the cols×rows transpose of a rows×cols matrix.
func transposed(m []float32, rows, cols, stride int) []float32 {
	out := make([]float32, rows*cols)
	for i := range rows {
		for j, v := range m[i*stride : i*stride+cols] {
			out[j*rows+i] = v
		}
	}
	return out
}
