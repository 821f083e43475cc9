package portable

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/dptune/dpt/model/engine"
)

// BenchmarkLinear is a frozen layer at T5-Small's shapes on 512 rows.
func BenchmarkLinear(b *testing.B) {
	const rows = 512
	for _, s := range []struct {
		in, out int
		sparse  bool
	}{{512, 1536, false}, {512, 2048, false}, {2048, 512, true}} {
		for threads := 1; threads <= runtime.GOMAXPROCS(0); threads *= 2 {
			e := New[float32](threads)
			ws := e.NewWorkspace()
			r := rand.New(rand.NewPCG(1, 2))
			w := must(e.NewLinear(engine.LinearSpec{
				In:          s.in,
				Weights:     [][]float32{normal32(r, s.in*s.out)},
				SparseInput: s.sparse,
			}))
			x, y := ws.Tensor(engine.Narrow, rows, s.in), ws.Tensor(engine.Narrow, rows, s.out)
			e.Upload(x, normal32(r, rows*s.in))
			e.Upload(y, normal32(r, rows*s.out))
			run := func(name string, op func()) {
				b.Run(fmt.Sprintf("%s/%dx%d/threads=%d", name, s.in, s.out, threads), func(b *testing.B) {
					for b.Loop() {
						op()
					}
					b.ReportMetric(2*rows*float64(s.in)*float64(s.out)*float64(b.N)/b.Elapsed().Seconds()/1e9,
						"GFLOP/s")
				})
			}
			run("forward", func() { e.LinearForward(y, x, w) })
			run("backward", func() { e.LinearBackward(x, y, w, false) })
			e.Close()
		}
	}
}

// BenchmarkAttention is self-attention of 4 examples of 256 rows at T5-Small's shape.
func BenchmarkAttention(b *testing.B) {
	const heads, d, n, examples = 8, 64, 256, 4
	for threads := 1; threads <= runtime.GOMAXPROCS(0); threads *= 2 {
		e := New[float32](threads)
		ws := e.NewWorkspace()
		r := rand.New(rand.NewPCG(1, 2))
		rows, inner := n*examples, heads*d
		var t [7]engine.Tensor
		for i := range t {
			t[i] = ws.Tensor(engine.Narrow, rows, inner)
			e.Upload(t[i], normal32(r, rows*inner))
		}
		lse := ws.Tensor(engine.Wide, rows, heads)
		bias := must(e.NewBias(heads, -128, 128, normal32(r, heads*257)))
		var spans []engine.Span
		for i := range examples {
			spans = append(spans, engine.Span{Start: i * n, Len: n})
		}
		seg := ws.Segments(engine.SegmentSpec{Q: spans, KV: spans})
		run := func(name string, products float64, op func()) {
			b.Run(fmt.Sprintf("%s/threads=%d", name, threads), func(b *testing.B) {
				for b.Loop() {
					op()
				}
				b.ReportMetric(products*2*examples*n*n*float64(inner)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
		out := ws.Tensor(engine.Narrow, rows, inner)
		run("forward", 2, func() { e.AttentionForward(out, lse, t[0], t[1], t[2], seg, bias, heads) })
		run("backward", 5, func() {
			e.AttentionBackward(t[3], t[4], t[5], t[6], out, lse, t[0], t[1], t[2], seg, bias, heads)
		})
		e.Close()
	}
}
