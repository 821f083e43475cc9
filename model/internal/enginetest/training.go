package enginetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dptune/dpt/model/engine"
)

// training checks the gradients of weights, and that weights with replaced values compute the same
// bits as weights made with those values.
func (s *suite) training(t *testing.T) {
	ref := reference(t).(engine.Trainer)
	one, many := s.engine(t, 1).(engine.Trainer), s.engine(t, 3).(engine.Trainer)
	for seed := range uint64(6) {
		n := []int{1, 65, 17, 300, 600, 2}[seed]
		for _, c := range weightGradients(rand.New(rand.NewPCG(seed, 20)), n) {
			t.Run(fmt.Sprintf("%s/%d", c.name, n), func(t *testing.T) {
				want, got, got3 := c.run(t, ref, place{}), c.run(t, one, place{}), c.run(t, many, place{})
				loose := *s
				loose.tol *= 4 // an element sums hundreds of rounded terms, whose errors in one row have one sign
				loose.compare(t, c.name, got, want)
				sameBits(t, c.name+" with 3 threads", got3, got)
				for _, at := range places {
					sameBits(t, fmt.Sprintf("%s with operands at %+v", c.name, at), c.run(t, many, at), got)
				}
			})
		}
	}
	t.Run("set", func(t *testing.T) {
		first, second, want := newWeights(t, one, 1), newWeights(t, one, 2), newWeights(t, ref, 2)
		if got := first.results(t, one); slices.Equal(got, second.results(t, one)) {
			t.Fatal("different weights give equal results")
		}
		first.set(t, one, 2)
		sameBits(t, "results of replaced weights", first.results(t, one), second.results(t, one))
		s.compare(t, "results of replaced weights", first.results(t, one), want.results(t, ref))
		if err := one.SetLinear(first.linear, make([]float32, 7)); err == nil {
			t.Error("SetLinear took too few values")
		}
		if one.SetTable(first.table, make([]float32, 7)) == nil || one.SetGain(first.gain, nil) == nil ||
			one.SetBias(first.bias, make([]float32, 1)) == nil {
			t.Error("a table, gain or bias took too few values")
		}
	})
}

// weightGradient is an op that adds to the gradient of a weight; run calls it twice.
type weightGradient struct {
	name string
	run  func(t *testing.T, e engine.Trainer, at place) []float64
}

func weightGradients(r *rand.Rand, n int) []weightGradient {
	out, in := 1+r.IntN(200), 1+r.IntN(150)
	dy, x, rs, sum := random(r, n*out), random(r, n*in), random(r, n), random(r, out*in)
	dyn := random(r, n*in)
	download32 := func(t *testing.T, e engine.Trainer, x engine.Tensor) []float64 {
		single, all := make([]float32, x.Rows()*x.Cols()), download(t, e, x)
		if err := e.DownloadFloat32(single, x); err != nil {
			t.Fatal(err)
		}
		for i, v := range all {
			if single[i] != float32(v) {
				t.Fatalf("DownloadFloat32: element %d is %v, Download gives %v", i, single[i], v)
			}
		}
		return all
	}
	cases := []weightGradient{
		{"LinearWeightGradient", func(t *testing.T, e engine.Trainer, at place) []float64 {
			ws := e.NewWorkspace()
			dirty(e, ws)
			dw := at.upload(e, ws, engine.Wide, sum, out, in)
			xt, dyt := at.upload(e, ws, engine.Narrow, x, n, in), at.upload(e, ws, engine.Narrow, dy, n, out)
			e.LinearWeightGradient(dw, dyt, xt)
			e.LinearWeightGradient(dw, at.upload(e, ws, engine.Wide, dy, n, out), xt)
			return download32(t, e, dw)
		}},
		{"NormGainGradient", func(t *testing.T, e engine.Trainer, at place) []float64 {
			ws := e.NewWorkspace()
			dirty(e, ws)
			dg := at.upload(e, ws, engine.Wide, sum[:in], 1, in)
			xt := at.upload(e, ws, engine.Wide, x, n, in)
			rt := at.upload(e, ws, engine.Wide, rs, n, 1)
			dyt := at.upload(e, ws, engine.Wide, dyn, n, in)
			e.NormGainGradient(dg, dyt, xt, rt)
			e.NormGainGradient(dg, dyt, xt, rt)
			return download32(t, e, dg)
		}},
	}
	longest := min(n, 300)
	for _, causal := range []bool{false, true} {
		c := randomAttention(r, true, causal, true, []int{1 + longest/3, 1, 1 + longest/2})
		run := func(t *testing.T, e engine.Trainer, at place) []float64 {
			ws := e.NewWorkspace()
			dirty(e, ws)
			inner, span := c.heads*c.d, c.hi-c.lo+1
			bias := must(e.NewBias(c.heads, c.lo, c.hi, c.bias))
			q := at.upload(e, ws, engine.Narrow, c.q, c.nq, inner)
			kv := at.upload(e, ws, engine.Narrow, c.kv, c.nk, 2*inner)
			dout := at.upload(e, ws, engine.Narrow, c.dout, c.nq, inner)
			out, lse := ws.Tensor(engine.Narrow, c.nq, inner), ws.Tensor(engine.Wide, c.nq, c.heads)
			k, v := ws.View(kv, 0, c.nk, 0, inner), ws.View(kv, 0, c.nk, inner, inner)
			seg := ws.Segments(c.spec)
			e.AttentionForward(out, lse, q, k, v, seg, bias, c.heads)
			dbias := at.upload(e, ws, engine.Wide, c.bias, c.heads, span)
			for range 2 {
				e.AttentionBiasGradient(dbias, dout, out, lse, q, k, v, seg, bias, c.heads)
			}
			return download32(t, e, dbias)
		}
		cases = append(cases, weightGradient{fmt.Sprintf("AttentionBiasGradient/causal=%v", causal), run})
	}
	return cases
}

// weights is one weight of each kind, with the operands of ops on them.
type weights struct {
	linear, sparse, head engine.Linear
	table                engine.Table
	gain                 engine.Gain
	bias                 engine.Bias
}

const (
	weightsIn, weightsOut, weightsRows = 37, 70, 50
	weightsLo, weightsHi               = -4, 3
)

// weightValues returns the values of each weight for a seed.
func weightValues(seed uint64) (a, b, c, table, gain, bias []float32) {
	r := rand.New(rand.NewPCG(seed, 30))
	a, b, c = random(r, weightsIn*30), random(r, weightsIn*40), random(r, weightsIn*weightsOut)
	return a, b, c, random(r, weightsRows*weightsIn), random(r, weightsIn), random(r, 2*(weightsHi-weightsLo+1))
}

func newWeights(t *testing.T, e engine.Trainer, seed uint64) weights {
	t.Helper()
	a, b, c, table, gain, bias := weightValues(seed)
	w := weights{
		linear: must(e.NewLinear(engine.LinearSpec{In: weightsIn, Weights: [][]float32{a, b}})),
		sparse: must(e.NewLinear(engine.LinearSpec{In: weightsIn, Weights: [][]float32{c}, SparseInput: true})),
		table:  must(e.NewTable(weightsRows, weightsIn, table)),
		gain:   must(e.NewGain(gain)),
		bias:   must(e.NewBias(2, weightsLo, weightsHi, bias)),
	}
	w.head = must(e.TableLinear(w.table))
	return w
}

func (w weights) set(t *testing.T, e engine.Trainer, seed uint64) {
	t.Helper()
	a, b, c, table, gain, bias := weightValues(seed)
	for _, err := range []error{
		e.SetLinear(w.linear, a, b),
		e.SetLinear(w.sparse, c),
		e.SetTable(w.table, table),
		e.SetLinear(w.head, table),
		e.SetGain(w.gain, gain),
		e.SetBias(w.bias, bias),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// results returns the results of ops that use every weight, forward and backward.
func (w weights) results(t *testing.T, e engine.Trainer) []float64 {
	t.Helper()
	const n = 21
	r := rand.New(rand.NewPCG(7, 31))
	ws := e.NewWorkspace()
	x := ws.Tensor(engine.Wide, n, weightsIn)
	e.EmbedForward(x, w.table, nil, ws.Index(randomIDs(r, n, weightsRows)))
	y, rs := ws.Tensor(engine.Narrow, n, weightsIn), ws.Tensor(engine.Wide, n, 1)
	e.NormForward(y, rs, x, w.gain, 1e-6)
	all := download(t, e, y)
	for _, l := range []engine.Linear{w.linear, w.sparse, w.head} {
		z, back := ws.Tensor(engine.Wide, n, l.Out()), ws.Tensor(engine.Wide, n, weightsIn)
		e.LinearForward(z, y, l)
		e.LinearBackward(back, z, l, false)
		all = append(append(all, download(t, e, z)...), download(t, e, back)...)
	}
	q := upload(e, ws, engine.Narrow, random(r, n*6), n, 6)
	out, lse := ws.Tensor(engine.Narrow, n, 6), ws.Tensor(engine.Wide, n, 2)
	span := []engine.Span{{Len: n}}
	e.AttentionForward(out, lse, q, q, q, ws.Segments(engine.SegmentSpec{Q: span, KV: span}), w.bias, 2)
	return append(all, download(t, e, out)...)
}
