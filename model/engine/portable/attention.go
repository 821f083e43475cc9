package portable

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"

	"github.com/dptune/dpt/model/engine"
)

// attentionTask runs attention for one segment and head per part. Scores exist only for blockRows
// queries at a time; backward computes them again from q, k and lse.
type attentionTask[F Float] struct {
	e          *Engine[F]
	backward   bool
	accumulate bool // add to dk and dv
	seg        *segments
	bias       *bias[F]
	heads, d   int
	q, k, v    matrix[F]
	out, lse   matrix[F]
	dout       matrix[F]
	dq, dk, dv matrix[F]
}

// AttentionForward implements engine.Engine.
func (e *Engine[F]) AttentionForward(out, lse, q, k, v engine.Tensor, seg engine.Segments, b engine.Bias, heads int) {
	t := attentionTask[F]{q: *mat[F](q), k: *mat[F](k), v: *mat[F](v), out: *mat[F](out), lse: *mat[F](lse)}
	e.attention("AttentionForward", t, seg, b, heads)
}

// AttentionBackward implements engine.Engine.
func (e *Engine[F]) AttentionBackward(
	dq, dk, dv, dout, out, lse, q, k, v engine.Tensor,
	seg engine.Segments,
	b engine.Bias,
	heads int,
) {
	t := attentionTask[F]{
		backward: true,
		q:        *mat[F](q), k: *mat[F](k), v: *mat[F](v), out: *mat[F](out), lse: *mat[F](lse),
		dout: *mat[F](dout), dq: *mat[F](dq), dk: *mat[F](dk), dv: *mat[F](dv),
	}
	check("AttentionBackward", "dout", &t.dout, t.q.rows, t.q.cols)
	check("AttentionBackward", "dq", &t.dq, t.q.rows, t.q.cols)
	check("AttentionBackward", "dk", &t.dk, t.k.rows, t.k.cols)
	check("AttentionBackward", "dv", &t.dv, t.v.rows, t.v.cols)
	e.attention("AttentionBackward", t, seg, b, heads)
}

// SharedAttentionForward implements engine.Engine.
func (e *Engine[F]) SharedAttentionForward(out, lse, q, kv engine.Tensor, seg engine.Segments) {
	e.AttentionForward(out, lse, q, kv, kv, notCausal(seg), nil, 1)
}

// SharedAttentionBackward implements engine.Engine. Both parts of the gradient are added to the
// same rows.
func (e *Engine[F]) SharedAttentionBackward(dq, dkv, dout, out, lse, q, kv engine.Tensor, seg engine.Segments) {
	t := attentionTask[F]{
		backward: true, accumulate: true,
		q: *mat[F](q), k: *mat[F](kv), v: *mat[F](kv), out: *mat[F](out), lse: *mat[F](lse),
		dout: *mat[F](dout), dq: *mat[F](dq), dk: *mat[F](dkv), dv: *mat[F](dkv),
	}
	check("SharedAttentionBackward", "dout", &t.dout, t.q.rows, t.q.cols)
	check("SharedAttentionBackward", "dq", &t.dq, t.q.rows, t.q.cols)
	check("SharedAttentionBackward", "dkv", &t.dk, t.k.rows, t.k.cols)
	e.attention("SharedAttentionBackward", t, notCausal(seg), nil, 1)
}

func notCausal(seg engine.Segments) engine.Segments {
	if seg.(*segments).spec.Causal {
		panic("portable: shared attention: segments are causal, want all keys seen by all queries")
	}
	return seg
}

func (e *Engine[F]) attention(op string, t attentionTask[F], seg engine.Segments, b engine.Bias, heads int) {
	t.e, t.seg, t.heads, t.d = e, seg.(*segments), heads, t.q.cols/heads
	if b != nil {
		t.bias = b.(*bias[F])
		if t.bias.heads != heads {
			panic(fmt.Sprintf("portable: %s: bias for %d heads, want %d", op, t.bias.heads, heads))
		}
	}
	check(op, "q", &t.q, t.q.rows, t.d*heads)
	check(op, "k", &t.k, t.k.rows, t.q.cols)
	check(op, "v", &t.v, t.k.rows, t.q.cols)
	check(op, "out", &t.out, t.q.rows, t.q.cols)
	check(op, "lse", &t.lse, t.q.rows, heads)
	if t.seg.qEnd > t.q.rows || t.seg.kEnd > t.k.rows {
		panic(fmt.Sprintf("portable: %s: segments need %d query and %d key rows, tensors have %d and %d",
			op, t.seg.qEnd, t.seg.kEnd, t.q.rows, t.k.rows))
	}
	e.attn = t
	e.run(t.seg.Len()*heads, 8*t.seg.work*t.q.cols, &e.attn)
	e.attn = attentionTask[F]{}
}

func (t *attentionTask[F]) Do(part, worker int) {
	s, h := part/t.heads, part%t.heads
	q, kv, pos := t.seg.spec.Q[s], t.seg.spec.KV[s], t.seg.spec.Offset[s]
	if t.backward && !t.accumulate {
		for j := range kv.Len {
			clear(t.head(&t.dk, kv.Start+j, h))
			clear(t.head(&t.dv, kv.Start+j, h))
		}
	}
	for i := 0; i < q.Len; i += blockRows {
		b := queryBlock{first: q.Start + i, rows: min(blockRows, q.Len-i), pos: pos + i, kv: kv, head: h}
		if t.seg.spec.Causal {
			b.kv.Len = min(kv.Len, b.pos+b.rows) // later keys are seen by no query of this block
		}
		if t.backward {
			t.blockBackward(b, worker)
		} else {
			t.blockForward(b, worker)
		}
	}
}

// queryBlock is a run of query rows, at positions from pos on, against the keys kv, for one head.
type queryBlock struct {
	first, rows, pos int
	kv               engine.Span
	head             int
}

// head is head h's part of row i.
func (t *attentionTask[F]) head(m *matrix[F], i, h int) []F {
	return m.data[i*m.ld+h*t.d : i*m.ld+(h+1)*t.d]
}

// from is m's data from head h of row i on.
func (t *attentionTask[F]) from(m *matrix[F], i, h int) []F { return m.data[i*m.ld+h*t.d:] }

// visible is how many keys query r of block b sees.
func (t *attentionTask[F]) visible(b queryBlock, r int) int {
	if t.seg.spec.Causal {
		return min(b.kv.Len, b.pos+r+1)
	}
	return b.kv.Len
}

// products sets s [b.rows, b.kv.Len] with row length ld to x·yᵀ, x the block's query rows, y its
// key rows. pack is room for the key rows.
func (t *attentionTask[F]) products(b queryBlock, s []F, ld int, x, y *matrix[F], pack []F) {
	clear(s)
	keys, keysLD := t.from(y, b.kv.Start, b.head), y.ld
	if !isAligned(keys) {
		keysLD = padded(t.d)
		for j := range b.kv.Len {
			copy(pack[j*keysLD:], t.head(y, b.kv.Start+j, b.head))
		}
		keys = pack
	}
	gemm(blas.NoTrans, blas.Trans, b.rows, b.kv.Len, t.d, t.from(x, b.first, b.head), x.ld, keys, keysLD, s, ld)
}

func (t *attentionTask[F]) blockForward(b queryBlock, worker int) {
	ld := padded(b.kv.Len)
	size := b.rows * ld
	s := t.e.scratchFor(worker, size+b.kv.Len*padded(t.d))
	s, pack := s[:size], s[size:]
	t.products(b, s, ld, &t.q, &t.k, pack)
	for r := range b.rows {
		n := t.visible(b, r)
		row := s[r*ld : r*ld+b.kv.Len]
		t.bias.add(b.head, row[:n], b.pos+r)
		m := maximum(row[:n])
		sum := expSub(row[:n], m)
		inv := F(1 / sum)
		for j := range row[:n] {
			row[j] *= inv
		}
		clear(row[n:])
		t.lse.data[(b.first+r)*t.lse.ld+b.head] = F(float64(m) + math.Log(sum))
		clear(t.head(&t.out, b.first+r, b.head))
	}
	gemm(blas.NoTrans, blas.NoTrans, b.rows, t.d, b.kv.Len, s, ld, t.from(&t.v, b.kv.Start, b.head), t.v.ld,
		t.from(&t.out, b.first, b.head), t.out.ld)
}

// blockBackward: with P the probabilities, dP = dout·vᵀ and D the row sums of dout∘out,
// dS = P∘(dP − D), dq = dS·k, dk += dSᵀ·q, dv += Pᵀ·dout.
func (t *attentionTask[F]) blockBackward(b queryBlock, worker int) {
	ld := padded(b.kv.Len)
	size := b.rows * ld
	s := t.e.scratchFor(worker, 2*size+b.kv.Len*padded(t.d))
	p, ds, pack := s[:size], s[size:2*size], s[2*size:]
	t.products(b, p, ld, &t.q, &t.k, pack)
	t.products(b, ds, ld, &t.dout, &t.v, pack)
	for r := range b.rows {
		n := t.visible(b, r)
		prow, dsrow := p[r*ld:r*ld+b.kv.Len], ds[r*ld:r*ld+b.kv.Len]
		t.bias.add(b.head, prow[:n], b.pos+r)
		expSub(prow[:n], t.lse.data[(b.first+r)*t.lse.ld+b.head])
		var sum float64
		dout := t.head(&t.dout, b.first+r, b.head)
		for j, o := range t.head(&t.out, b.first+r, b.head) {
			sum += float64(o) * float64(dout[j])
		}
		d := F(sum)
		for j, pv := range prow[:n] {
			dsrow[j] = pv * (dsrow[j] - d)
		}
		clear(prow[n:])
		clear(dsrow[n:])
		clear(t.head(&t.dq, b.first+r, b.head))
	}
	gemm(blas.NoTrans, blas.NoTrans, b.rows, t.d, b.kv.Len, ds, ld, t.from(&t.k, b.kv.Start, b.head), t.k.ld,
		t.from(&t.dq, b.first, b.head), t.dq.ld)
	gemm(blas.Trans, blas.NoTrans, b.kv.Len, t.d, b.rows, ds, ld, t.from(&t.q, b.first, b.head), t.q.ld,
		t.from(&t.dk, b.kv.Start, b.head), t.dk.ld)
	gemm(blas.Trans, blas.NoTrans, b.kv.Len, t.d, b.rows, p, ld, t.from(&t.dout, b.first, b.head), t.dout.ld,
		t.from(&t.dv, b.kv.Start, b.head), t.dv.ld)
}
