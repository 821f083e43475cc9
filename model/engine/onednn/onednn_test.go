//go:build onednn && cgo

package onednn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
	"github.com/dptune/dpt/model/internal/enginetest"
)

func mustOpen(t testing.TB, opt Options) *Engine {
	t.Helper()
	e, err := open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// With rounding to 8 bits, by u = 2⁻⁹ at most, a score of attention in the suite (d ≤ 20
// products of two normal numbers) is wrong by sqrt(d)·sqrt(2/3)·u = 7e-3 in the mean, and the
// probabilities, relatively, by as much. What is summed from them with random signs is wrong by the
// same share of its own mean size. Among some thousand elements the worst error is 4 to 5 times the
// mean one, 3.5e-2, and the largest result, against which the suite measures, at least twice the
// mean one: 2e-2. Other ops round their operands and results only, and stay below.
const (
	tolF32  enginetest.Tolerance = 1e-5
	tolBF16 enginetest.Tolerance = 2e-2
)

// eachMode runs f on every instruction set that this CPU has, in both precisions, with the
// library's products and, where there are some, with the kernels'.
func eachMode(t *testing.T, f func(t *testing.T, opt Options, tol enginetest.Tolerance)) {
	for i := range kernelSets() {
		for _, b := range []bool{false, true} {
			opt, tol := Options{BF16: b, kernels: i}, tolF32
			if b {
				tol = tolBF16
			}
			e := mustOpen(t, opt)
			name, own := e.kernelsName()+"/"+e.dtype(), e.own
			e.Close()
			if own {
				t.Run(name+"/own", func(t *testing.T) { f(t, opt, tol) })
			}
			opt.library = true
			t.Run(name+"/library", func(t *testing.T) { f(t, opt, tol) })
		}
	}
}

func TestConformance(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options, tol enginetest.Tolerance) {
		enginetest.Run(t, func(threads int) engine.Engine {
			opt.Threads = threads
			return mustOpen(t, opt)
		}, tol)
	})
}

// TestLongAttention: segments up to 2048 rows, at T5's head size.
func TestLongAttention(t *testing.T) {
	lengths := []int{1, 700, 2048, 97}
	const d, rows = 64, 1 + 700 + 2048 + 97
	r := rand.New(rand.NewPCG(1, 2))
	var data [4][]float32
	for i := range data {
		data[i] = normal(r, rows*d)
	}
	for i := range data[0] {
		data[0][i] /= 8 // scores of size 1, as in a trained T5
	}
	bias := normal(r, 257)
	run := func(e engine.Engine) (out [5][]float64) {
		ws := e.NewWorkspace()
		var in, res [4]engine.Tensor
		for i := range in {
			in[i], res[i] = ws.Tensor(engine.Narrow, rows, d), ws.Tensor(engine.Narrow, rows, d)
			e.Upload(in[i], data[i])
		}
		lse := ws.Tensor(engine.Wide, rows, 1)
		var spec engine.SegmentSpec
		for at, i := 0, 0; i < len(lengths); i++ {
			spec.Q = append(spec.Q, engine.Span{Start: at, Len: lengths[i]})
			at += lengths[i]
		}
		spec.KV = spec.Q
		seg, b := ws.Segments(spec), must(e.NewBias(1, -128, 128, bias))
		e.AttentionForward(res[3], lse, in[0], in[1], in[2], seg, b, 1)
		e.AttentionBackward(res[0], res[1], res[2], in[3], res[3], lse, in[0], in[1], in[2], seg, b, 1)
		for i, x := range []engine.Tensor{res[0], res[1], res[2], res[3], lse} {
			out[i] = make([]float64, x.Rows()*x.Cols())
			if err := e.Download(out[i], x); err != nil {
				t.Fatal(err)
			}
		}
		return out
	}
	ref := portable.New[float64](2)
	defer ref.Close()
	want := run(ref)
	for _, b := range []bool{false, true} {
		e := mustOpen(t, Options{BF16: b})
		tol := float64(tolF32)
		if b {
			tol = float64(tolBF16)
		}
		for i, got := range run(e) {
			scale := 1.0
			for _, w := range want[i] {
				scale = max(scale, math.Abs(w))
			}
			for j, w := range want[i] {
				if !(math.Abs(got[j]-w) <= tol*scale) {
					t.Errorf("%s: result %d: element %d is %g, want %g within %g",
						e.dtype(), i, j, got[j], w, tol*scale)
					break
				}
			}
		}
		e.Close()
	}
}

// TestFunctions: exp, log and tanh against float64's.
func TestFunctions(t *testing.T) {
	var x []float32
	for v := -87.0; v < 88; v += 0.0137 {
		x = append(x, float32(v))
	}
	for v := 1e-30; v < 1; v *= 1.01 {
		x = append(x, float32(v), float32(-v))
	}
	y := make([]float32, len(x))
	for i := range kernelSets() {
		e := mustOpen(t, Options{Threads: 1, kernels: i})
		worst := func(f func(float64) float64) (worst float64) {
			for i, v := range x {
				want := f(float64(v))
				worst = max(worst, math.Abs(float64(y[i])-want)/math.Abs(want))
			}
			return worst
		}
		e.exp(y, x)
		if w := worst(math.Exp); !(w <= 1.5e-7) {
			t.Errorf("%s: exp is off by %.2g, want 1.5e-7 at most", e.kernelsName(), w)
		}
		e.tanh(y, x)
		if w := worst(math.Tanh); !(w <= 4e-7) {
			t.Errorf("%s: tanh is off by %.2g, want 4e-7 at most", e.kernelsName(), w)
		}
		var positive []float32
		for v := 1e-37; v < 1e38; v *= 1.0137 {
			positive = append(positive, float32(v))
		}
		for v := -0.3; v < 0.3; v += 0.00137 {
			positive = append(positive, float32(1+v))
		}
		logs := make([]float32, len(positive))
		e.log(logs, positive)
		for i, v := range positive {
			if want := math.Log(float64(v)); !(math.Abs(float64(logs[i])-want) <= 2e-7*max(1, math.Abs(want))) {
				t.Errorf("%s: log of %v is %v, want %v", e.kernelsName(), v, logs[i], want)
			}
		}
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		odd, res := []float32{nan, -inf, -1000, 0}, make([]float32, 4)
		e.exp(res, odd)
		if res[0] == res[0] || res[1] > 2e-38 || res[2] > 2e-38 || res[3] != 1 {
			t.Errorf("%s: exp of %v is %v", e.kernelsName(), odd, res)
		}
		e.log(res[:3], []float32{nan, inf, 1})
		if res[0] == res[0] || res[1] != inf || res[2] != 0 {
			t.Errorf("%s: log of NaN, Inf, 1 is %v", e.kernelsName(), res[:3])
		}
		e.tanh(res, []float32{nan, -inf, inf, 0})
		if res[0] == res[0] || res[1] != -1 || res[2] != 1 || res[3] != 0 {
			t.Errorf("%s: tanh of NaN, -Inf, Inf, 0 is %v", e.kernelsName(), res)
		}
		e.Close()
	}
}

// TestAttentionScratch: scratch memory for segments of at most a number of queries and keys
// suffices for those of fewer.
func TestAttentionScratch(t *testing.T) {
	for i := range kernelSets() {
		e := mustOpen(t, Options{Threads: 1, kernels: i})
		defer e.Close()
		for _, d := range []int{4, 16, 24, 64, 256} {
			for _, backward := range []bool{false, true} {
				for _, most := range []struct{ queries, keys int }{{100, 3}, {100, 16}, {100, 40}, {1000, 500}} {
					want := e.attentionScratch(d, backward, most.queries, most.keys)
					for queries := 1; queries <= most.queries; queries++ {
						if got := e.attentionScratch(d, backward, queries, most.keys); got > want {
							t.Fatalf("%s: %d keys of %d columns, backward %v: %d queries take %d bytes, %d queries %d",
								e.kernelsName(), most.keys, d, backward, queries, got, most.queries, want)
						}
					}
				}
			}
		}
	}
}

// TestBlockSizes: rows have the same bits in small or large blocks as in those of the base size.
func TestBlockSizes(t *testing.T) {
	for _, b := range []bool{false, true} {
		e := mustOpen(t, Options{Threads: 2, BF16: b, library: true})
		r := rand.New(rand.NewPCG(1, 2))
		for _, s := range []struct{ rows, in, out int }{
			{75, 768, 768}, {1100, 96, 64}, {1, 64, 640}, {39, 3072, 96}, {5, 100, 33},
		} {
			w := must(e.NewLinear(engine.LinearSpec{In: s.in, Weights: [][]float32{normal(r, s.in*s.out)}}))
			ws := e.NewWorkspace()
			for _, p := range []engine.Precision{engine.Wide, engine.Narrow} {
				x, y := ws.Tensor(engine.Narrow, s.rows, s.in), ws.Tensor(p, s.rows, s.out)
				e.Upload(x, normal(r, s.rows*s.in))
				run := func() []float64 {
					e.LinearForward(y, x, w)
					out := make([]float64, s.rows*s.out)
					if err := e.Download(out, y); err != nil {
						t.Fatal(err)
					}
					return out
				}
				small := run()
				product := e.products[productKey{s.in, s.out, e.source(), y.(*tensor).dt}]
				keep := product.gemms
				product.gemms = [len(blockRows)]*cGEMM{base: keep[base]}
				if !slices.Equal(small, run()) {
					t.Errorf("%s: %d rows of %d×%d: other bits in blocks of the base size alone",
						e.dtype(), s.rows, s.out, s.in)
				}
				product.gemms = keep
			}
		}
		e.Close()
	}
}

// TestNoiseRounds checks that a sum of products of noise shows its order, so that probe can tell
// products apart that sum in different orders.
func TestNoiseRounds(t *testing.T) {
	for _, depth := range []int{64, 100, 768} {
		r := noise(1)
		terms := make([]float32, depth)
		for i := range terms {
			terms[i] = r.next() * r.next()
		}
		var there, back float32
		for i := range terms {
			there += terms[i]
			back += terms[depth-1-i]
		}
		if there == back {
			t.Errorf("%d terms summed in either order give %v, want different bits", depth, there)
		}
	}
}

// TestCutWeights: a weight cut into parts gives what a whole one does.
func TestCutWeights(t *testing.T) {
	e, ref := mustOpen(t, Options{Threads: 2}), portable.New[float64](2)
	defer e.Close()
	defer ref.Close()
	const rows, in, out = 19, 96, wholeElems/96 + 300
	r := rand.New(rand.NewPCG(1, 2))
	weight, data, grad := normal(r, in*out), normal(r, rows*in), normal(r, rows*out)
	run := func(e engine.Engine) (y, dx []float64) {
		w := must(e.NewLinear(engine.LinearSpec{In: in, Weights: [][]float32{weight}}))
		ws := e.NewWorkspace()
		x := ws.Tensor(engine.Narrow, rows, in)
		dyt := ws.Tensor(engine.Narrow, rows, out)
		yt := ws.Tensor(engine.Wide, rows, out)
		dxt := ws.Tensor(engine.Wide, rows, in)
		e.Upload(x, data)
		e.Upload(dyt, grad)
		e.LinearForward(yt, x, w)
		e.LinearBackward(dxt, dyt, w, false)
		y, dx = make([]float64, rows*out), make([]float64, rows*in)
		if err := e.Download(y, yt); err != nil {
			t.Fatal(err)
		}
		if err := e.Download(dx, dxt); err != nil {
			t.Fatal(err)
		}
		return y, dx
	}
	y, dx := run(e)
	wantY, wantDX := run(ref)
	for i := range y {
		if !(math.Abs(y[i]-wantY[i]) <= 1e-5*50) {
			t.Fatalf("forward: element %d is %g, want %g", i, y[i], wantY[i])
		}
	}
	for i := range dx {
		if !(math.Abs(dx[i]-wantDX[i]) <= 1e-5*1500) {
			t.Fatalf("backward: element %d is %g, want %g", i, dx[i], wantDX[i])
		}
	}
}

// TestSteadyState: an op that ran before allocates neither Go's memory nor the engine's.
func TestSteadyState(t *testing.T) {
	e := mustOpen(t, Options{Threads: 2, BF16: true})
	defer e.Close()
	r := rand.New(rand.NewPCG(1, 2))
	w := must(e.NewLinear(engine.LinearSpec{In: 64, Weights: [][]float32{normal(r, 64*192)}}))
	ws := e.NewWorkspace()
	data := normal(r, 300*64)
	spans := []engine.Span{{Start: 0, Len: 101}, {Start: 101, Len: 199}}
	step := func() {
		ws.Reset()
		x := ws.Tensor(engine.Narrow, 300, 64)
		y := ws.Tensor(engine.Narrow, 300, 192)
		dx := ws.Tensor(engine.Wide, 300, 64)
		out, lse := ws.Tensor(engine.Narrow, 300, 64), ws.Tensor(engine.Wide, 300, 2)
		e.Upload(x, data)
		e.LinearForward(y, x, w)
		seg := ws.Segments(engine.SegmentSpec{Q: spans, KV: spans})
		e.AttentionForward(out, lse, ws.View(y, 0, 300, 0, 64), ws.View(y, 0, 300, 64, 64), ws.View(y, 0, 300, 128, 64),
			seg, nil, 2)
		e.LinearBackward(dx, y, w, false)
		e.LinearBackward(dx, y, w, true)
	}
	step()
	step()
	memory, products := len(e.memory), len(e.products)
	if n := testing.AllocsPerRun(5, step); n > 0 {
		t.Errorf("a step allocates %v times", n)
	}
	if len(e.memory) != memory || len(e.products) != products {
		t.Errorf("a step takes %d more blocks of memory and makes %d more products",
			len(e.memory)-memory, len(e.products)-products)
	}
}

// TestNumerics: engines have different Numerics exactly if they compute different bits.
func TestNumerics(t *testing.T) {
	seen := map[string]string{}
	weights := normal(rand.New(rand.NewPCG(1, 2)), 96*64)
	for i := range kernelSets() {
		for _, b := range []bool{false, true} {
			var first string
			for threads := 1; threads <= 2; threads++ {
				e := mustOpen(t, Options{Threads: threads, BF16: b, kernels: i})
				must(e.NewLinear(engine.LinearSpec{In: 96, Weights: [][]float32{weights}}))
				if first == "" {
					first = e.Numerics()
				} else if e.Numerics() != first {
					t.Errorf("numerics %q with 2 threads, %q with 1", e.Numerics(), first)
				}
				e.Close()
			}
			mode := fmt.Sprint(i, b)
			if i == 0 || b { // in float32 the first two sets may be the same
				if other, ok := seen[first]; ok {
					t.Errorf("modes %s and %s have the same numerics %q", mode, other, first)
				}
			}
			seen[first] = mode
		}
	}
}
