package portable

import (
	"fmt"
	"math"

	"github.com/dptune/dpt/model/engine"
)

// rowOp names an op that works row by row.
type rowOp int

const (
	opNorm rowOp = iota
	opAddNorm
	opNormBackward
	opReLU
	opReLUBackward
	opGatedGELU
	opGatedGELUBackward
	opGatedSiLU
	opGatedSiLUBackward
	opCrossEntropy
	opCrossEntropyBackward
	opEmbed
	opGather
	opScatter
	opScale
	opZero
)

// rowsTask runs a row-wise op on blockRows rows per part. Each op has a method of its own, which
// uses some of the operands.
type rowsTask[F Float] struct {
	op       rowOp
	rows     int
	y, y2, r matrix[F] // destinations
	x, x2    matrix[F] // sources
	gain     []F
	ids      []int32
	mask     *mask // nil if the caller wants none
	eps      float64
	s        F
}

// each runs t over rows rows, at about cost scalar operations each.
func (e *Engine[F]) each(rows, cost int, t rowsTask[F]) {
	t.rows = rows
	e.rows = t
	e.run((rows+blockRows-1)/blockRows, rows*cost, &e.rows)
	e.rows = rowsTask[F]{}
}

func (t *rowsTask[F]) Do(part, _ int) {
	for i := part * blockRows; i < min(t.rows, (part+1)*blockRows); i++ {
		switch t.op {
		case opNorm:
			t.norm(i, t.x.row(i))
		case opAddNorm:
			t.addNorm(i)
		case opNormBackward:
			t.normBackward(i)
		case opReLU:
			t.relu(i)
		case opReLUBackward:
			t.reluBackward(i)
		case opGatedGELU:
			t.gatedGELU(i)
		case opGatedGELUBackward:
			t.gatedGELUBackward(i)
		case opGatedSiLU:
			t.gatedSiLU(i)
		case opGatedSiLUBackward:
			t.gatedSiLUBackward(i)
		case opCrossEntropy:
			t.crossEntropy(i)
		case opCrossEntropyBackward:
			t.crossEntropyBackward(i)
		case opEmbed:
			t.embed(i)
		case opGather:
			copy(t.y.row(i), t.x.row(int(t.ids[i])))
		case opScatter:
			copy(t.y.row(int(t.ids[i])), t.x.row(i))
		case opScale:
			for j, v := range t.y.row(i) {
				t.y.row(i)[j] = v * t.s
			}
		case opZero:
			clear(t.y.row(i))
		}
	}
}

// NormForward implements engine.Engine.
func (e *Engine[F]) NormForward(y, r, x engine.Tensor, g engine.Gain, eps float64) {
	t := rowsTask[F]{op: opNorm, y: *mat[F](y), r: *mat[F](r), x: *mat[F](x), gain: g.(*gain[F]).w, eps: eps}
	t.checkNorm("NormForward")
	e.each(t.x.rows, 2*t.x.cols, t)
}

// AddNormForward implements engine.Engine.
func (e *Engine[F]) AddNormForward(sum, y, r, x, delta engine.Tensor, g engine.Gain, eps float64) {
	t := rowsTask[F]{
		op:   opAddNorm,
		y2:   *mat[F](sum),
		y:    *mat[F](y),
		r:    *mat[F](r),
		x:    *mat[F](x),
		x2:   *mat[F](delta),
		gain: g.(*gain[F]).w,
		eps:  eps,
	}
	t.checkNorm("AddNormForward")
	check("AddNormForward", "sum", &t.y2, t.x.rows, t.x.cols)
	check("AddNormForward", "delta", &t.x2, t.x.rows, t.x.cols)
	e.each(t.x.rows, 3*t.x.cols, t)
}

func (t *rowsTask[F]) checkNorm(op string) {
	check(op, "x", &t.x, t.x.rows, len(t.gain))
	check(op, "y", &t.y, t.x.rows, t.x.cols)
	check(op, "r", &t.r, t.x.rows, 1)
}

func (t *rowsTask[F]) addNorm(i int) {
	sum, x := t.y2.row(i), t.x.row(i)
	for j, d := range t.x2.row(i) {
		sum[j] = x[j] + d
	}
	t.norm(i, sum)
}

func (t *rowsTask[F]) norm(i int, x []F) {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	r := F(1 / math.Sqrt(sum/float64(len(x))+t.eps))
	t.r.data[i*t.r.ld] = r
	y := t.y.row(i)
	for j, v := range x {
		y[j] = v * r * t.gain[j]
	}
}

// NormBackward implements engine.Engine.
func (e *Engine[F]) NormBackward(dx, dy, x, r engine.Tensor, g engine.Gain) {
	t := rowsTask[F]{
		op:   opNormBackward,
		y:    *mat[F](dx),
		x2:   *mat[F](dy),
		x:    *mat[F](x),
		r:    *mat[F](r),
		gain: g.(*gain[F]).w,
	}
	t.checkNorm("NormBackward")
	check("NormBackward", "dy", &t.x2, t.x.rows, t.x.cols)
	e.each(t.x.rows, 4*t.x.cols, t)
}

// normBackward: y = r·x∘g, so dx = r·(g∘dy) − x·r³·mean(x∘g∘dy).
func (t *rowsTask[F]) normBackward(i int) {
	x, dy, dx := t.x.row(i), t.x2.row(i), t.y.row(i)
	r := t.r.data[i*t.r.ld]
	var dot float64
	for j, v := range x {
		dot += float64(v) * float64(t.gain[j]*dy[j])
	}
	c := F(dot / float64(len(x)) * float64(r) * float64(r) * float64(r))
	for j, v := range x {
		dx[j] += r*t.gain[j]*dy[j] - c*v
	}
}

// ReLUForward implements engine.Engine.
func (e *Engine[F]) ReLUForward(y, x engine.Tensor, positive engine.Mask) {
	t := rowsTask[F]{op: opReLU, y: *mat[F](y), x: *mat[F](x)}
	check("ReLUForward", "y", &t.y, t.x.rows, t.x.cols)
	if positive != nil {
		t.mask = positive.(*mask)
		t.mask.check("ReLUForward", t.x.rows, t.x.cols)
	}
	e.each(t.x.rows, t.x.cols, t)
}

func (t *rowsTask[F]) relu(i int) {
	x, y := t.x.row(i), t.y.row(i)
	if t.mask != nil {
		bits := t.mask.row(i)
		clear(bits)
		for j, v := range x {
			if v > 0 {
				bits[j/64] |= 1 << (j % 64)
			}
		}
	}
	for j, v := range x {
		if v <= 0 { // not v > 0: a NaN must stay
			v = 0
		}
		y[j] = v
	}
}

// ReLUBackward implements engine.Engine.
func (e *Engine[F]) ReLUBackward(dx, dy engine.Tensor, positive engine.Mask) {
	t := rowsTask[F]{op: opReLUBackward, y: *mat[F](dx), x: *mat[F](dy), mask: positive.(*mask)}
	check("ReLUBackward", "dx", &t.y, t.x.rows, t.x.cols)
	t.mask.check("ReLUBackward", t.x.rows, t.x.cols)
	e.each(t.x.rows, t.x.cols, t)
}

func (t *rowsTask[F]) reluBackward(i int) {
	dx, bits := t.y.row(i), t.mask.row(i)
	for j, v := range t.x.row(i) {
		if bits[j/64]>>(j%64)&1 == 0 {
			v = 0
		}
		dx[j] = v
	}
}

// GatedGELUForward implements engine.Engine.
func (e *Engine[F]) GatedGELUForward(y, x engine.Tensor) {
	t := rowsTask[F]{op: opGatedGELU, y: *mat[F](y), x: *mat[F](x)}
	check("GatedGELUForward", "x", &t.x, t.y.rows, 2*t.y.cols)
	e.each(t.x.rows, 8*t.x.cols, t)
}

func (t *rowsTask[F]) gatedGELU(i int) {
	x, y := t.x.row(i), t.y.row(i)
	up := x[len(y):]
	for j, v := range x[:len(y)] {
		y[j] = gelu(v) * up[j]
	}
}

// GatedGELUBackward implements engine.Engine.
func (e *Engine[F]) GatedGELUBackward(dx, dy, x engine.Tensor) {
	t := rowsTask[F]{op: opGatedGELUBackward, y: *mat[F](dx), x: *mat[F](dy), x2: *mat[F](x)}
	check("GatedGELUBackward", "x", &t.x2, t.x.rows, 2*t.x.cols)
	check("GatedGELUBackward", "dx", &t.y, t.x.rows, 2*t.x.cols)
	e.each(t.x.rows, 20*t.x.cols, t)
}

func (t *rowsTask[F]) gatedGELUBackward(i int) {
	dx, dy, x := t.y.row(i), t.x.row(i), t.x2.row(i)
	f := len(dy)
	for j, d := range dy {
		y, dgelu := geluGrad(x[j])
		dx[j] = d * x[f+j] * dgelu
		dx[f+j] = d * y
	}
}

// GatedSiLUForward implements engine.Engine.
func (e *Engine[F]) GatedSiLUForward(y, x engine.Tensor) {
	t := rowsTask[F]{op: opGatedSiLU, y: *mat[F](y), x: *mat[F](x)}
	check("GatedSiLUForward", "x", &t.x, t.y.rows, 2*t.y.cols)
	e.each(t.x.rows, 8*t.x.cols, t)
}

func (t *rowsTask[F]) gatedSiLU(i int) {
	x, y := t.x.row(i), t.y.row(i)
	up := x[len(y):]
	for j, v := range x[:len(y)] {
		y[j] = v * sigmoid(v) * up[j]
	}
}

// GatedSiLUBackward implements engine.Engine.
func (e *Engine[F]) GatedSiLUBackward(dx, dy, x engine.Tensor) {
	t := rowsTask[F]{op: opGatedSiLUBackward, y: *mat[F](dx), x: *mat[F](dy), x2: *mat[F](x)}
	check("GatedSiLUBackward", "x", &t.x2, t.x.rows, 2*t.x.cols)
	check("GatedSiLUBackward", "dx", &t.y, t.x.rows, 2*t.x.cols)
	e.each(t.x.rows, 20*t.x.cols, t)
}

func (t *rowsTask[F]) gatedSiLUBackward(i int) {
	dx, dy, x := t.y.row(i), t.x.row(i), t.x2.row(i)
	f := len(dy)
	for j, d := range dy {
		v := x[j]
		s := sigmoid(v)
		dx[j] = d * x[f+j] * (s * (1 + v*(1-s)))
		dx[f+j] = d * (v * s)
	}
}

// CrossEntropyForward implements engine.Engine.
func (e *Engine[F]) CrossEntropyForward(loss, lse, logits engine.Tensor, targets engine.Index) {
	t := rowsTask[F]{
		op:  opCrossEntropy,
		y:   *mat[F](loss),
		r:   *mat[F](lse),
		x:   *mat[F](logits),
		ids: targets.(*index).ids,
	}
	check("CrossEntropyForward", "loss", &t.y, t.x.rows, 1)
	check("CrossEntropyForward", "lse", &t.r, t.x.rows, 1)
	checkIndex("CrossEntropyForward", t.ids, t.x.rows, t.x.cols)
	e.each(t.x.rows, 8*t.x.cols, t)
}

func (t *rowsTask[F]) crossEntropy(i int) {
	x := t.x.row(i)
	m := maximum(x)
	lse := float64(m) + math.Log(sumExpSub(x, m))
	t.r.data[i*t.r.ld] = F(lse)
	t.y.data[i*t.y.ld] = F(lse - float64(x[t.ids[i]]))
}

// CrossEntropyBackward implements engine.Engine.
func (e *Engine[F]) CrossEntropyBackward(dlogits, logits, lse engine.Tensor, targets engine.Index) {
	t := rowsTask[F]{
		op:  opCrossEntropyBackward,
		y:   *mat[F](dlogits),
		x:   *mat[F](logits),
		x2:  *mat[F](lse),
		ids: targets.(*index).ids,
	}
	check("CrossEntropyBackward", "dlogits", &t.y, t.x.rows, t.x.cols)
	check("CrossEntropyBackward", "lse", &t.x2, t.x.rows, 1)
	checkIndex("CrossEntropyBackward", t.ids, t.x.rows, t.x.cols)
	e.each(t.x.rows, 8*t.x.cols, t)
}

func (t *rowsTask[F]) crossEntropyBackward(i int) {
	y := t.y.row(i)
	copy(y, t.x.row(i))
	expSub(y, t.x2.data[i*t.x2.ld])
	y[t.ids[i]] -= 1
}

// checkIndex panics unless ids has n elements in [0, limit).
func checkIndex(op string, ids []int32, n, limit int) {
	if len(ids) != n {
		panic(fmt.Sprintf("portable: %s: index of %d, want %d", op, len(ids), n))
	}
	for i, id := range ids {
		if id < 0 || int(id) >= limit {
			panic(fmt.Sprintf("portable: %s: index %d is %d, want one in [0, %d)", op, i, id, limit))
		}
	}
}
