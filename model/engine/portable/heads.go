package portable

import (
	"fmt"

	"gonum.org/v1/gonum/blas"

	"github.com/dptune/dpt/model/engine"
)

// heads is a weight [heads·d, in], a block of d rows per head.
type heads[F Float] struct {
	heads, d int
	w        matrix[F]
}

func (w *heads[F]) Heads() int { return w.heads }
func (w *heads[F]) Dim() int   { return w.d }
func (w *heads[F]) In() int    { return w.w.cols }

// NewHeads copies w.
func (e *Engine[F]) NewHeads(n, in int, w []float32) (engine.Heads, error) {
	if n <= 0 || in <= 0 || len(w)%(n*in) != 0 {
		return nil, fmt.Errorf("heads: weight has %d elements, want a multiple of %d heads of %d columns",
			len(w), n, in)
	}
	h := &heads[F]{heads: n, d: len(w) / (n * in), w: newMatrix[F](len(w)/in, in)}
	fill(&h.w, w)
	return h, nil
}

// headsTask multiplies blockRows rows with one head's block per part.
type headsTask[F Float] struct {
	expand       bool
	w            *heads[F]
	wide, narrow matrix[F] // [n·heads, in], [n, heads·d]
	blocks       int
}

// ExpandHeads implements engine.Engine.
func (e *Engine[F]) ExpandHeads(y, x engine.Tensor, w engine.Heads) {
	e.perHead("ExpandHeads", headsTask[F]{expand: true, w: w.(*heads[F]), wide: *mat[F](y), narrow: *mat[F](x)})
}

// ContractHeads implements engine.Engine.
func (e *Engine[F]) ContractHeads(y, x engine.Tensor, w engine.Heads) {
	e.perHead("ContractHeads", headsTask[F]{w: w.(*heads[F]), wide: *mat[F](x), narrow: *mat[F](y)})
}

func (e *Engine[F]) perHead(op string, t headsTask[F]) {
	n := t.narrow.rows
	check(op, "the tensor of heads side by side", &t.narrow, n, t.w.heads*t.w.d)
	check(op, "the tensor of a row per head", &t.wide, n*t.w.heads, t.w.w.cols)
	t.blocks = (n + blockRows - 1) / blockRows
	e.heads = t
	e.run(t.blocks*t.w.heads, 2*n*len(t.w.w.data), &e.heads)
	e.heads = headsTask[F]{}
}

func (t *headsTask[F]) Do(part, _ int) {
	h, first := part/t.blocks, part%t.blocks*blockRows
	rows := min(blockRows, t.narrow.rows-first)
	w := t.w.w.data[h*t.w.d*t.w.w.ld:]
	wide, ldWide := t.wide.data[(first*t.w.heads+h)*t.wide.ld:], t.w.heads*t.wide.ld
	narrow := t.narrow.data[first*t.narrow.ld+h*t.w.d:]
	if t.expand {
		for i := range rows {
			clear(wide[i*ldWide : i*ldWide+t.wide.cols])
		}
		gemm(blas.NoTrans, blas.NoTrans, rows, t.wide.cols, t.w.d, narrow, t.narrow.ld, w, t.w.w.ld, wide, ldWide)
		return
	}
	for i := range rows {
		clear(narrow[i*t.narrow.ld : i*t.narrow.ld+t.w.d])
	}
	gemm(blas.NoTrans, blas.Trans, rows, t.w.d, t.wide.cols, wide, ldWide, w, t.w.w.ld, narrow, t.narrow.ld)
}
