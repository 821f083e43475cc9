package portable

import (
	"fmt"

	"gonum.org/v1/gonum/blas"

	"github.com/dptune/dpt/model/engine"
)

var _ engine.Trainer = (*Engine[float32])(nil)

// weightGradientTask adds dyᵀ·x to dw, a block of dw per part. Rows are summed in order.
type weightGradientTask[F Float] struct {
	dw, dy, x matrix[F]
	colBlocks int
}

// LinearWeightGradient implements engine.Trainer.
func (e *Engine[F]) LinearWeightGradient(dw, dy, x engine.Tensor) {
	t := weightGradientTask[F]{dw: *mat[F](dw), dy: *mat[F](dy), x: *mat[F](x)}
	check("LinearWeightGradient", "dw", &t.dw, t.dy.cols, t.x.cols)
	check("LinearWeightGradient", "x", &t.x, t.dy.rows, t.x.cols)
	if t.x.rows == 0 {
		return
	}
	t.colBlocks = (t.dw.cols + axpyCols - 1) / axpyCols
	e.weight = t
	e.run((t.dw.rows+blockRows-1)/blockRows*t.colBlocks, 2*t.x.rows*t.dw.rows*t.dw.cols, &e.weight)
	e.weight = weightGradientTask[F]{}
}

func (t *weightGradientTask[F]) Do(part, _ int) {
	i, j := part/t.colBlocks*blockRows, part%t.colBlocks*axpyCols
	m, n := min(blockRows, t.dw.rows-i), min(axpyCols, t.dw.cols-j)
	for l := 0; l < t.x.rows; l += axpyDepth {
		gemmBlock(blas.Trans, blas.NoTrans, m, n, min(axpyDepth, t.x.rows-l), t.dy.data[l*t.dy.ld+i:], t.dy.ld,
			t.x.data[l*t.x.ld+j:], t.x.ld, t.dw.data[i*t.dw.ld+j:], t.dw.ld)
	}
}

// gainGradientTask sums a block of columns per part.
type gainGradientTask[F Float] struct{ dg, dy, x, r matrix[F] }

// NormGainGradient implements engine.Trainer.
func (e *Engine[F]) NormGainGradient(dg, dy, x, r engine.Tensor) {
	t := gainGradientTask[F]{dg: *mat[F](dg), dy: *mat[F](dy), x: *mat[F](x), r: *mat[F](r)}
	check("NormGainGradient", "dg", &t.dg, 1, t.x.cols)
	check("NormGainGradient", "dy", &t.dy, t.x.rows, t.x.cols)
	check("NormGainGradient", "r", &t.r, t.x.rows, 1)
	e.gainGrad = t
	e.run((t.x.cols+embedCols-1)/embedCols, 3*t.x.rows*t.x.cols, &e.gainGrad)
	e.gainGrad = gainGradientTask[F]{}
}

func (t *gainGradientTask[F]) Do(part, _ int) {
	from, to := part*embedCols, min((part+1)*embedCols, t.x.cols)
	sum := t.dg.row(0)[from:to]
	for i := range t.x.rows {
		r, dy := t.r.data[i*t.r.ld], t.dy.row(i)[from:to]
		for j, v := range t.x.row(i)[from:to] {
			sum[j] += dy[j] * v * r
		}
	}
}

// biasGradientTask sums one head's gradient per part, segment after segment.
type biasGradientTask[F Float] struct {
	attentionTask[F]
	dbias matrix[F]
}

// AttentionBiasGradient implements engine.Trainer.
func (e *Engine[F]) AttentionBiasGradient(
	dbias, dout, out, lse, q, k, v engine.Tensor,
	seg engine.Segments,
	b engine.Bias,
	heads int,
) {
	t := biasGradientTask[F]{dbias: *mat[F](dbias), attentionTask: attentionTask[F]{
		e: e, seg: seg.(*segments), bias: b.(*bias[F]), heads: heads,
		q: *mat[F](q), k: *mat[F](k), v: *mat[F](v), out: *mat[F](out), lse: *mat[F](lse), dout: *mat[F](dout),
	}}
	t.d = t.q.cols / heads
	check("AttentionBiasGradient", "dbias", &t.dbias, heads, t.bias.hi-t.bias.lo+1)
	check("AttentionBiasGradient", "q", &t.q, t.q.rows, t.d*heads)
	check("AttentionBiasGradient", "dout", &t.dout, t.q.rows, t.q.cols)
	check("AttentionBiasGradient", "out", &t.out, t.q.rows, t.q.cols)
	check("AttentionBiasGradient", "lse", &t.lse, t.q.rows, heads)
	check("AttentionBiasGradient", "k", &t.k, t.k.rows, t.q.cols)
	check("AttentionBiasGradient", "v", &t.v, t.k.rows, t.q.cols)
	if t.bias.heads != heads || t.seg.qEnd > t.q.rows || t.seg.kEnd > t.k.rows {
		panic(fmt.Sprintf("portable: AttentionBiasGradient: "+
			"bias for %d heads and segments of %d query and %d key rows, want %d, and at most %d and %d",
			t.bias.heads, t.seg.qEnd, t.seg.kEnd, heads, t.q.rows, t.k.rows))
	}
	e.biasGrad = t
	e.run(heads, 6*t.seg.work*t.q.cols, &e.biasGrad)
	e.biasGrad = biasGradientTask[F]{}
}

func (t *biasGradientTask[F]) Do(h, worker int) {
	for s, q := range t.seg.spec.Q {
		for i := 0; i < q.Len; i += blockRows {
			b := queryBlock{
				first: q.Start + i,
				rows:  min(blockRows, q.Len-i),
				pos:   t.seg.spec.Offset[s] + i,
				kv:    t.seg.spec.KV[s],
				head:  h,
			}
			t.block(b, worker)
		}
	}
}

// block adds one block's dS = P∘(dP − D), see blockBackward, by distance.
func (t *biasGradientTask[F]) block(b queryBlock, worker int) {
	ld := padded(b.kv.Len)
	size := b.rows * ld
	s := t.e.scratchFor(worker, 2*size+b.kv.Len*padded(t.d))
	p, ds, pack := s[:size], s[size:2*size], s[2*size:]
	t.products(b, p, ld, &t.q, &t.k, pack)
	t.products(b, ds, ld, &t.dout, &t.v, pack)
	sum := t.dbias.row(b.head)
	for r := range b.rows {
		n, pos := t.visible(b, r), b.pos+r
		row := p[r*ld : r*ld+n]
		t.bias.add(b.head, row, pos)
		expSub(row, t.lse.data[(b.first+r)*t.lse.ld+b.head])
		var dot float64
		dout := t.head(&t.dout, b.first+r, b.head)
		for j, o := range t.head(&t.out, b.first+r, b.head) {
			dot += float64(o) * float64(dout[j])
		}
		// Many distances lie beyond the ends. Each row sums its own first, so that float32 sums
		// stay short.
		var low, high F
		for j, v := range row {
			switch d, g := j-pos, v*(ds[r*ld+j]-F(dot)); {
			case d <= t.bias.lo:
				low += g
			case d >= t.bias.hi:
				high += g
			default:
				sum[d-t.bias.lo] += g
			}
		}
		sum[0] += low
		sum[len(sum)-1] += high
	}
}

// SetLinear implements engine.Trainer.
func (e *Engine[F]) SetLinear(w engine.Linear, weights ...[]float32) error {
	l := w.(*linear[F])
	if err := engine.CheckLinear(l, weights); err != nil {
		return err
	}
	l.fill(weights)
	return nil
}

// SetTable implements engine.Trainer.
func (e *Engine[F]) SetTable(t engine.Table, w []float32) error {
	m := &t.(*table[F]).w
	if len(w) != m.rows*m.cols {
		return fmt.Errorf("table: %d new values, want %d×%d", len(w), m.rows, m.cols)
	}
	fill(m, w)
	return nil
}

// SetGain implements engine.Trainer.
func (e *Engine[F]) SetGain(g engine.Gain, w []float32) error { return set("gain", g.(*gain[F]).w, w) }

// SetBias implements engine.Trainer.
func (e *Engine[F]) SetBias(b engine.Bias, values []float32) error {
	return set("bias", b.(*bias[F]).values, values)
}

func set[F Float](what string, dst []F, src []float32) error {
	if len(src) != len(dst) {
		return fmt.Errorf("%s: %d new values, want %d", what, len(src), len(dst))
	}
	for i, v := range src {
		dst[i] = F(v)
	}
	return nil
}

// DownloadFloat32 implements engine.Trainer.
func (e *Engine[F]) DownloadFloat32(dst []float32, src engine.Tensor) error {
	download(mat[F](src), "DownloadFloat32", dst)
	return nil
}
