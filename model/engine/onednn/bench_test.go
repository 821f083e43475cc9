//go:build onednn && cgo

package onednn

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dptune/dpt/model/engine"
)

func normal(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// benchRows is a T5-Base batch: 8 examples of 256 source tokens behind a prompt of 100.
const (
	benchExamples = 8
	benchLength   = 356
	benchRows     = benchExamples * benchLength
)

// bench alternates op with plain, a call that does the same number of products and nothing else,
// and reports op's speed and its share of plain's.
func bench(b *testing.B, name string, flops float64, op, plain func()) {
	b.Run(name, func(b *testing.B) {
		op()
		plain()
		var ops, plains time.Duration
		for b.Loop() {
			t := time.Now()
			op()
			ops += time.Since(t)
			t = time.Now()
			plain()
			plains += time.Since(t)
		}
		b.ReportMetric(flops*float64(b.N)/ops.Seconds()/1e9, "GFLOP/s")
		b.ReportMetric(flops*float64(b.N)/plains.Seconds()/1e9, "limit-GFLOP/s")
		b.ReportMetric(100*plains.Seconds()/ops.Seconds(), "%limit")
	})
}

// plainTask multiplies the same 64 rows again and again: the fastest that products can be.
type plainTask struct {
	e    *Engine
	p    *product // the library's
	w    *packed
	x, y []*tensor
}

func (t *plainTask) Do(_, worker int) {
	if t.w.layout != nil {
		own := panelTask{e: t.e, w: []*packed{t.w}, y: *t.y[worker]}
		own.multiply(*t.x[worker], 0, 0, 0, t.w.panels(), t.w.memories[0])
		return
	}
	if err := t.e.multiply(t.p.gemms[base], worker, t.x[worker].p, t.w.parts[0], t.y[worker].p); err != nil {
		panic(err)
	}
}

// plain returns a call that does about as many operations as flops by products [64,in]·[in,out].
func plain(e *Engine, ws engine.Workspace, in, out int, flops float64) func() {
	l := must(e.NewLinear(engine.LinearSpec{
		In:      in,
		Weights: [][]float32{normal(rand.New(rand.NewPCG(1, 2)), in*out)},
	})).(*linear)
	t := &plainTask{e: e, w: l.forward[0]}
	if !e.own {
		t.p = must(e.product(productKey{in, out, e.source(), f32}))
	}
	for range e.pool.Workers() {
		x := ws.Tensor(engine.Narrow, blockRows[base], in).(*tensor)
		e.Upload(x, normal(rand.New(rand.NewPCG(1, 2)), blockRows[base]*in))
		t.x, t.y = append(t.x, x), append(t.y, ws.Tensor(engine.Wide, blockRows[base], out).(*tensor))
	}
	parts := int(flops/(2*float64(blockRows[base]*in*out)) + 0.5)
	return func() {
		if t.p != nil {
			e.reserve(t.p.scratch)
		}
		e.pool.Run(parts, t)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// BenchmarkLinear is a frozen layer at T5-Base's shapes.
func BenchmarkLinear(b *testing.B) {
	for _, half := range []bool{false, true} {
		e := mustOpen(b, Options{BF16: half})
		for _, s := range []struct{ in, out int }{{768, 2304}, {768, 768}, {768, 3072}, {3072, 768}} {
			ws := e.NewWorkspace()
			r := rand.New(rand.NewPCG(1, 2))
			w := must(e.NewLinear(engine.LinearSpec{In: s.in, Weights: [][]float32{normal(r, s.in*s.out)}}))
			x, y := ws.Tensor(engine.Narrow, benchRows, s.in), ws.Tensor(engine.Narrow, benchRows, s.out)
			dx := ws.Tensor(engine.Wide, benchRows, s.in)
			e.Upload(x, normal(r, benchRows*s.in))
			e.Upload(y, normal(r, benchRows*s.out))
			flops := 2 * benchRows * float64(s.in) * float64(s.out)
			name := fmt.Sprintf("%dx%d/%s", s.in, s.out, e.dtype())
			bench(b, "forward/"+name, flops, func() { e.LinearForward(y, x, w) }, plain(e, ws, s.in, s.out, flops))
			bench(b, "backward/"+name, flops, func() {
				e.LinearBackward(dx, y, w, false)
			}, plain(e, ws, s.out, s.in, flops))
			bench(b, "accumulate/"+name, flops, func() {
				e.LinearBackward(dx, y, w, true)
			}, plain(e, ws, s.out, s.in, flops))
		}
		e.Close()
	}
}

// BenchmarkAttention is self-attention at T5-Base's shape.
func BenchmarkAttention(b *testing.B) {
	const heads, d = 12, 64
	for _, half := range []bool{false, true} {
		e := mustOpen(b, Options{BF16: half})
		ws := e.NewWorkspace()
		r := rand.New(rand.NewPCG(1, 2))
		qkv, dqkv := ws.Tensor(engine.Narrow, benchRows, 3*heads*d), ws.Tensor(engine.Narrow, benchRows, 3*heads*d)
		out, dout := ws.Tensor(engine.Narrow, benchRows, heads*d), ws.Tensor(engine.Narrow, benchRows, heads*d)
		for _, t := range []engine.Tensor{qkv, dout} {
			e.Upload(t, normal(r, t.Rows()*t.Cols()))
			e.Scale(t, 0.3)
		}
		var t, dt [3]engine.Tensor
		for i := range t {
			t[i] = ws.View(qkv, 0, benchRows, i*heads*d, heads*d)
			dt[i] = ws.View(dqkv, 0, benchRows, i*heads*d, heads*d)
		}
		lse := ws.Tensor(engine.Wide, benchRows, heads)
		bias := must(e.NewBias(heads, -128, 128, normal(r, heads*257)))
		var spans []engine.Span
		for i := range benchExamples {
			spans = append(spans, engine.Span{Start: i * benchLength, Len: benchLength})
		}
		seg := ws.Segments(engine.SegmentSpec{Q: spans, KV: spans})
		flops := 2 * benchExamples * float64(benchLength*benchLength*heads*d)
		bench(b, "forward/"+e.dtype(), 2*flops, func() {
			e.AttentionForward(out, lse, t[0], t[1], t[2], seg, bias, heads)
		}, plain(e, ws, 768, 768, 2*flops))
		bench(b, "backward/"+e.dtype(), 5*flops, func() {
			e.AttentionBackward(dt[0], dt[1], dt[2], dout, out, lse, t[0], t[1], t[2], seg, bias, heads)
		}, plain(e, ws, 768, 768, 5*flops))
		e.Close()
	}
}

// BenchmarkAbsorbed is the decoder's cross-attention at T5-Base's shape, by absorption: targets of
// 4 tokens, so 48 query rows an example.
func BenchmarkAbsorbed(b *testing.B) {
	const heads, d, in, targets = 12, 64, 768, 4
	for _, half := range []bool{false, true} {
		e := mustOpen(b, Options{BF16: half})
		ws := e.NewWorkspace()
		r := rand.New(rand.NewPCG(1, 2))
		const n = benchExamples * targets
		side, rows := ws.Tensor(engine.Narrow, n, heads*d), ws.Tensor(engine.Narrow, n*heads, in)
		dout := ws.Tensor(engine.Narrow, n*heads, in)
		out := ws.Tensor(engine.Narrow, n*heads, in)
		dq := ws.Tensor(engine.Narrow, n*heads, in)
		kv, dkv := ws.Tensor(engine.Narrow, benchRows, in), ws.Tensor(engine.Wide, benchRows, in)
		lse := ws.Tensor(engine.Wide, n*heads, 1)
		for _, t := range []engine.Tensor{side, rows, dout, kv} {
			e.Upload(t, normal(r, t.Rows()*t.Cols()))
			e.Scale(t, 0.05)
		}
		e.Zero(dkv)
		w := must(e.NewHeads(heads, in, normal(r, heads*d*in)))
		var q, k []engine.Span
		for i := range benchExamples {
			q = append(q, engine.Span{Start: i * targets * heads, Len: targets * heads})
			k = append(k, engine.Span{Start: i * benchLength, Len: benchLength})
		}
		seg := ws.Segments(engine.SegmentSpec{Q: q, KV: k})
		flops := 2 * float64(n*heads*benchLength*in)
		limit := func(flops float64) func() { return plain(e, ws, 768, 768, flops) }
		bench(b, "shared-forward/"+e.dtype(), 2*flops, func() {
			e.SharedAttentionForward(out, lse, rows, kv, seg)
		}, limit(2*flops))
		bench(b, "shared-backward/"+e.dtype(), 5*flops, func() {
			e.SharedAttentionBackward(dq, dkv, dout, out, lse, rows, kv, seg)
		}, limit(5*flops))
		project := 2 * float64(n*heads*d*in)
		bench(b, "expand/"+e.dtype(), project, func() { e.ExpandHeads(out, side, w) }, limit(project))
		bench(b, "contract/"+e.dtype(), project, func() { e.ContractHeads(side, rows, w) }, limit(project))
		e.Close()
	}
}
