package portable

import (
	"fmt"

	"gonum.org/v1/gonum/blas"

	"github.com/dptune/dpt/model/engine"
)

// linear is a weight in one of two orientations. Each serves forward and backward, one of them by
// dot products (an operand is transposed), the other by scaled row sums. Row sums skip zeros of the
// left operand. So a weight behind a ReLU is stored transposed, and its row sums run in forward,
// over the sparse activations; the row sums of other weights run in backward, where the gradient in
// front of a ReLU is sparse.
type linear[F Float] struct {
	out, in    int
	transposed bool
	w          matrix[F] // [out, in], or [in, out] if transposed
}

func (l *linear[F]) Out() int { return l.out }
func (l *linear[F]) In() int  { return l.in }

// NewLinear copies the stacked weights.
func (e *Engine[F]) NewLinear(spec engine.LinearSpec) (engine.Linear, error) {
	out := 0
	for i, w := range spec.Weights {
		if spec.In <= 0 || len(w)%spec.In != 0 {
			return nil, fmt.Errorf("linear: weight %d has %d elements, want a multiple of the input size %d",
				i, len(w), spec.In)
		}
		out += len(w) / spec.In
	}
	l := &linear[F]{out: out, in: spec.In, transposed: spec.SparseInput}
	if l.transposed {
		l.w = newMatrix[F](spec.In, out)
	} else {
		l.w = newMatrix[F](out, spec.In)
	}
	l.fill(spec.Weights)
	return l, nil
}

// fill copies stacked weights.
func (l *linear[F]) fill(weights [][]float32) {
	o := 0
	for _, w := range weights {
		for ; len(w) > 0; w = w[l.in:] {
			for i, v := range w[:l.in] {
				if l.transposed {
					l.w.data[i*l.w.ld+o] = F(v)
				} else {
					l.w.data[o*l.w.ld+i] = F(v)
				}
			}
			o++
		}
	}
}

func newMatrix[F Float](rows, cols int) matrix[F] {
	ld := padded(cols)
	return matrix[F]{rows: rows, cols: cols, ld: ld, data: aligned[F](rows * ld)}
}

// LinearForward implements engine.Engine.
func (e *Engine[F]) LinearForward(y, x engine.Tensor, w engine.Linear) {
	l, ym, xm := w.(*linear[F]), mat[F](y), mat[F](x)
	check("LinearForward", "x", xm, xm.rows, l.in)
	check("LinearForward", "y", ym, xm.rows, l.out)
	tb := blas.Trans
	if l.transposed {
		tb = blas.NoTrans
	}
	e.multiply(gemmTask[F]{tb: tb, m: xm.rows, n: l.out, k: l.in, a: *xm, b: l.w, c: *ym})
}

// LinearBackward implements engine.Engine.
func (e *Engine[F]) LinearBackward(dx, dy engine.Tensor, w engine.Linear, accumulate bool) {
	l, dxm, dym := w.(*linear[F]), mat[F](dx), mat[F](dy)
	check("LinearBackward", "dy", dym, dym.rows, l.out)
	check("LinearBackward", "dx", dxm, dym.rows, l.in)
	tb := blas.NoTrans
	if l.transposed {
		tb = blas.Trans
	}
	e.multiply(gemmTask[F]{tb: tb, m: dym.rows, n: l.in, k: l.out, a: *dym, b: l.w, c: *dxm, accumulate: accumulate})
}

// table is an embedding table.
type table[F Float] struct{ w matrix[F] }

func (t *table[F]) Rows() int { return t.w.rows }
func (t *table[F]) Cols() int { return t.w.cols }

// NewTable copies an embedding table.
func (e *Engine[F]) NewTable(rows, cols int, w []float32) (engine.Table, error) {
	if len(w) != rows*cols {
		return nil, fmt.Errorf("table: %d elements, want %d×%d", len(w), rows, cols)
	}
	t := &table[F]{w: newMatrix[F](rows, cols)}
	fill(&t.w, w)
	return t, nil
}

// fill copies src, row-major, into m.
func fill[F Float](m *matrix[F], src []float32) {
	for i := range m.rows {
		row := m.row(i)
		for j, v := range src[i*m.cols : (i+1)*m.cols] {
			row[j] = F(v)
		}
	}
}

// TableLinear shares the table's memory.
func (e *Engine[F]) TableLinear(t engine.Table) (engine.Linear, error) {
	tb := t.(*table[F])
	return &linear[F]{out: tb.w.rows, in: tb.w.cols, w: tb.w}, nil
}

// gain is the scale of a norm.
type gain[F Float] struct{ w []F }

func (g *gain[F]) Len() int { return len(g.w) }

// NewGain copies the scale of a norm.
func (e *Engine[F]) NewGain(w []float32) (engine.Gain, error) {
	g := &gain[F]{w: make([]F, len(w))}
	for i, v := range w {
		g.w[i] = F(v)
	}
	return g, nil
}

// bias holds, per head, one value for each distance lo..hi.
type bias[F Float] struct {
	heads, lo, hi int
	values        []F
}

func (b *bias[F]) Heads() int { return b.heads }

// NewBias copies a bias table.
func (e *Engine[F]) NewBias(heads, lo, hi int, values []float32) (engine.Bias, error) {
	if lo > 0 || hi < 0 || len(values) != heads*(hi-lo+1) {
		return nil, fmt.Errorf("bias: %d values for %d heads and distances %d..%d, want %d",
			len(values), heads, lo, hi, heads*(hi-lo+1))
	}
	b := &bias[F]{heads: heads, lo: lo, hi: hi, values: make([]F, len(values))}
	for i, v := range values {
		b.values[i] = F(v)
	}
	return b, nil
}

// add adds head h's bias to scores[j], whose distance is j - pos. A nil bias adds nothing.
func (b *bias[F]) add(h int, scores []F, pos int) {
	if b == nil {
		return
	}
	span := b.hi - b.lo + 1
	v := b.values[h*span : (h+1)*span]
	from, to := min(max(pos+b.lo, 0), len(scores)), min(max(pos+b.hi+1, 0), len(scores))
	for j := range scores[:from] {
		scores[j] += v[0]
	}
	if from < to {
		mid := scores[from:to]
		for j, x := range v[from-pos-b.lo:][:len(mid)] {
			mid[j] += x
		}
	}
	for j := range scores[to:] {
		scores[to+j] += v[span-1]
	}
}
