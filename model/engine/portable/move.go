package portable

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// Upload implements engine.Engine.
func (e *Engine[F]) Upload(dst engine.Tensor, src []float32) {
	m := mat[F](dst)
	if len(src) != m.rows*m.cols {
		panic(fmt.Sprintf("portable: Upload: %d elements into %d×%d", len(src), m.rows, m.cols))
	}
	fill(m, src)
}

// Download implements engine.Engine.
func (e *Engine[F]) Download(dst []float64, src engine.Tensor) error {
	download(mat[F](src), "Download", dst)
	return nil
}

// download copies m into dst in either of Go's precisions.
func download[F Float, T float32 | float64](m *matrix[F], op string, dst []T) {
	if len(dst) != m.rows*m.cols {
		panic(fmt.Sprintf("portable: %s: %d elements from %d×%d", op, len(dst), m.rows, m.cols))
	}
	for i := range m.rows {
		for j, v := range m.row(i) {
			dst[i*m.cols+j] = T(v)
		}
	}
}

// Zero implements engine.Engine.
func (e *Engine[F]) Zero(t engine.Tensor) {
	m := mat[F](t)
	e.each(m.rows, m.cols/4, rowsTask[F]{op: opZero, y: *m})
}

// Scale implements engine.Engine.
func (e *Engine[F]) Scale(t engine.Tensor, s float64) {
	m := mat[F](t)
	e.each(m.rows, m.cols, rowsTask[F]{op: opScale, y: *m, s: F(s)})
}

// GatherRows implements engine.Engine.
func (e *Engine[F]) GatherRows(dst, src engine.Tensor, rows engine.Index) {
	t := rowsTask[F]{op: opGather, y: *mat[F](dst), x: *mat[F](src), ids: rows.(*index).ids}
	check("GatherRows", "dst", &t.y, len(t.ids), t.x.cols)
	checkIndex("GatherRows", t.ids, t.y.rows, t.x.rows)
	e.each(t.y.rows, t.y.cols, t)
}

// ScatterRows implements engine.Engine.
func (e *Engine[F]) ScatterRows(dst, src engine.Tensor, rows engine.Index) {
	t := rowsTask[F]{op: opScatter, y: *mat[F](dst), x: *mat[F](src), ids: rows.(*index).ids}
	check("ScatterRows", "src", &t.x, len(t.ids), t.y.cols)
	checkIndex("ScatterRows", t.ids, t.x.rows, t.y.rows)
	e.each(t.x.rows, t.x.cols, t)
}

// EmbedForward implements engine.Engine.
func (e *Engine[F]) EmbedForward(dst engine.Tensor, tbl engine.Table, prompt engine.Tensor, ids engine.Index) {
	t := rowsTask[F]{op: opEmbed, y: *mat[F](dst), x: tbl.(*table[F]).w, ids: ids.(*index).ids}
	if prompt != nil {
		t.x2 = *mat[F](prompt)
		check("EmbedForward", "prompt", &t.x2, t.x2.rows, t.x.cols)
	}
	check("EmbedForward", "dst", &t.y, len(t.ids), t.x.cols)
	checkEmbed("EmbedForward", t.ids, t.x.rows, t.x2.rows)
	e.each(t.y.rows, t.y.cols, t)
}

// checkEmbed panics unless ids name rows of a table of v rows or of a prompt of c.
func checkEmbed(op string, ids []int32, v, c int) {
	for i, id := range ids {
		if int(id) >= v || int(^id) >= c {
			panic(fmt.Sprintf("portable: %s: index %d is %d, want one in [%d, %d)", op, i, id, -c, v))
		}
	}
}

func (t *rowsTask[F]) embed(i int) {
	if id := t.ids[i]; id >= 0 {
		copy(t.y.row(i), t.x.row(int(id)))
	} else {
		copy(t.y.row(i), t.x2.row(int(^id)))
	}
}

// embedBackwardTask sums rows by prompt row, for a block of columns per part: one worker sums each
// element, in order of rows.
type embedBackwardTask[F Float] struct {
	dprompt, dx matrix[F]
	ids         []int32
}

const embedCols = 64

// EmbedBackward implements engine.Engine.
func (e *Engine[F]) EmbedBackward(dprompt, dx engine.Tensor, ids engine.Index) {
	t := embedBackwardTask[F]{dprompt: *mat[F](dprompt), dx: *mat[F](dx), ids: ids.(*index).ids}
	check("EmbedBackward", "dx", &t.dx, len(t.ids), t.dprompt.cols)
	for i, id := range t.ids {
		if int(^id) >= t.dprompt.rows {
			panic(fmt.Sprintf("portable: EmbedBackward: index %d is %d, want at least %d", i, id, -t.dprompt.rows))
		}
	}
	e.embed = t
	e.run((t.dx.cols+embedCols-1)/embedCols, t.dx.rows*t.dx.cols, &e.embed)
	e.embed = embedBackwardTask[F]{}
}

func (t *embedBackwardTask[F]) Do(part, _ int) {
	from, to := part*embedCols, min((part+1)*embedCols, t.dx.cols)
	for i, id := range t.ids {
		if id >= 0 {
			continue
		}
		sum := t.dprompt.row(int(^id))[from:to]
		for j, v := range t.dx.row(i)[from:to] {
			sum[j] += v
		}
	}
}

// Argmax implements engine.Engine.
func (e *Engine[F]) Argmax(dst []int32, logits engine.Tensor) error {
	m := mat[F](logits)
	if len(dst) != m.rows || m.cols == 0 {
		panic(fmt.Sprintf("portable: Argmax: %d results from %d×%d", len(dst), m.rows, m.cols))
	}
	for i := range dst {
		dst[i] = argmax(m.row(i))
	}
	return nil
}

func argmax[F Float](x []F) int32 {
	best := 0
	for j, v := range x {
		if v != v {
			return -1
		}
		if v > x[best] {
			best = j
		}
	}
	return int32(best)
}
