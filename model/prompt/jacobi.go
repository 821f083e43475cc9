package prompt

import (
	"cmp"
	"math"
	"slices"
)

// maxSweeps bounds the passes over all pairs of rows; ten suffice for any matrix
// of a prompt's size.
const maxSweeps = 60

// svdOf is the singular value decomposition of an m×n matrix, row-major:
// matrix = Σ_k values[k]·left[k]·right[k]^T with left[k] of m and right[k] of n
// numbers, for k < m, the values descending. The right vector of a value of 0 is
// 0.
//
// It is the one-sided Jacobi method (Hestenes): rotations make the rows
// orthogonal. Sums have one order and no product is fused with a sum, so that
// the same matrix gives the same bits everywhere, which a library that chooses
// its kernels by the machine does not promise.
func svdOf(matrix []float32, m, n int) (left [][]float64, values []float64, right [][]float64) {
	rows, turn := make([][]float64, m), make([][]float64, m)
	for i := range rows {
		rows[i], turn[i] = make([]float64, n), make([]float64, m)
		for j, v := range matrix[i*n : (i+1)*n] {
			rows[i][j] = float64(v)
		}
		turn[i][i] = 1
	}
	for range maxSweeps {
		if !sweep(rows, turn) {
			break
		}
	}
	norms, order := make([]float64, m), make([]int, m)
	for i, r := range rows {
		norms[i], order[i] = sqrt(dot(r, r)), i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(norms[b], norms[a]) })
	for _, i := range order {
		if norms[i] > 0 {
			for j := range rows[i] {
				rows[i][j] /= norms[i]
			}
		}
		left, values, right = append(left, turn[i]), append(values, norms[i]), append(right, rows[i])
	}
	return left, values, right
}

// sweep rotates every pair of rows that is not orthogonal, and reports whether
// there was one.
func sweep(rows, turn [][]float64) bool {
	const tolerance = 1e-15
	turned := false
	for p := range rows {
		for q := p + 1; q < len(rows); q++ {
			alpha, beta, gamma := dot(rows[p], rows[p]), dot(rows[q], rows[q]), dot(rows[p], rows[q])
			if math.Abs(gamma) <= float64(tolerance*sqrt(float64(alpha*beta))) {
				continue
			}
			turned = true
			zeta := (beta - alpha) / float64(2*gamma)
			t := 1 / (math.Abs(zeta) + sqrt(1+float64(zeta*zeta)))
			if zeta < 0 {
				t = -t
			}
			c := 1 / sqrt(1+float64(t*t))
			s := float64(c * t)
			rotate(rows[p], rows[q], c, s)
			rotate(turn[p], turn[q], c, s)
		}
	}
	return turned
}

func rotate(x, y []float64, c, s float64) {
	for i, a := range x {
		b := y[i]
		x[i] = float64(c*a) - float64(s*b)
		y[i] = float64(s*a) + float64(c*b)
	}
}

func dot(x, y []float64) float64 {
	var sum float64
	for i, v := range x {
		sum += float64(v * y[i])
	}
	return sum
}

func sqrt(x float64) float64 { return math.Sqrt(x) }

// rankOf counts the singular values of an m×n matrix of float32s that are not
// rounding noise, as numpy.linalg.matrix_rank does.
func rankOf(values []float64, m, n int) int {
	const epsilon = 1.0 / (1 << 23)
	rank := 0
	for _, v := range values {
		if v > float64(values[0]*float64(max(m, n)))*epsilon {
			rank++
		}
	}
	return rank
}
