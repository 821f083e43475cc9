package portable

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dptune/dpt/model/engine"
)

// gradientCase is an op with the tensors its backward differentiates.
type gradientCase struct {
	name string
	// make fills in with random tensors and returns the op: forward computes its result from the
	// inputs, backward their gradients from the result's.
	make func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable
}

type differentiable struct {
	in       []engine.Tensor
	forward  func() engine.Tensor
	backward func(dout engine.Tensor) []engine.Tensor
}

// at returns element (i, j) of a tensor at full precision.
func (e *Engine[F]) at(t engine.Tensor, i, j int) F { return mat[F](t).row(i)[j] }

// set changes element (i, j) of a tensor at full precision.
func (e *Engine[F]) set(t engine.Tensor, i, j int, v F) { mat[F](t).row(i)[j] = v }

func normal(e *Engine[float64], ws engine.Workspace, r *rand.Rand, rows, cols int) engine.Tensor {
	x := ws.Tensor(engine.Wide, rows, cols)
	for i := range rows {
		for j := range cols {
			e.set(x, i, j, r.NormFloat64())
		}
	}
	return x
}

func normal32(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func gradientCases() []gradientCase {
	cases := []gradientCase{
		{"Norm", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			x, y, rs := normal(e, ws, r, 5, 7), ws.Tensor(engine.Wide, 5, 7), ws.Tensor(engine.Wide, 5, 1)
			g := must(e.NewGain(normal32(r, 7)))
			return differentiable{[]engine.Tensor{x}, func() engine.Tensor {
				e.NormForward(y, rs, x, g, 1e-2)
				return y
			}, func(dy engine.Tensor) []engine.Tensor {
				dx := ws.Tensor(engine.Wide, 5, 7)
				e.Zero(dx)
				e.NormBackward(dx, dy, x, rs, g)
				return []engine.Tensor{dx}
			}}
		}},
		{"AddNorm with residual", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			// The result is [norm(x+delta), x+delta] side by side: the branch and the residual
			// stream beside it.
			x, delta, rs := normal(e, ws, r, 5, 7), normal(e, ws, r, 5, 7), ws.Tensor(engine.Wide, 5, 1)
			both := ws.Tensor(engine.Wide, 5, 14)
			y, sum := ws.View(both, 0, 5, 0, 7), ws.View(both, 0, 5, 7, 7)
			g := must(e.NewGain(normal32(r, 7)))
			return differentiable{[]engine.Tensor{x, delta}, func() engine.Tensor {
				e.AddNormForward(sum, y, rs, x, delta, g, 1e-6)
				return both
			}, func(d engine.Tensor) []engine.Tensor {
				dx := ws.View(d, 0, 5, 7, 7) // the residual's gradient, to which backward adds
				e.NormBackward(dx, ws.View(d, 0, 5, 0, 7), sum, rs, g)
				return []engine.Tensor{dx, dx}
			}}
		}},
		{"ReLU", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			x, y, positive := normal(e, ws, r, 4, 9), ws.Tensor(engine.Wide, 4, 9), ws.Mask(4, 9)
			return differentiable{[]engine.Tensor{x}, func() engine.Tensor {
				e.ReLUForward(y, x, positive)
				return y
			}, func(dy engine.Tensor) []engine.Tensor {
				e.ReLUBackward(dy, dy, positive)
				return []engine.Tensor{dy}
			}}
		}},
		{"GatedGELU", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			x, y := normal(e, ws, r, 4, 10), ws.Tensor(engine.Wide, 4, 5)
			return differentiable{[]engine.Tensor{x}, func() engine.Tensor {
				e.GatedGELUForward(y, x)
				return y
			}, func(dy engine.Tensor) []engine.Tensor {
				dx := ws.Tensor(engine.Wide, 4, 10)
				e.GatedGELUBackward(dx, dy, x)
				return []engine.Tensor{dx}
			}}
		}},
		{"GatedSiLU", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			x, y := normal(e, ws, r, 4, 10), ws.Tensor(engine.Wide, 4, 5)
			return differentiable{[]engine.Tensor{x}, func() engine.Tensor {
				e.GatedSiLUForward(y, x)
				return y
			}, func(dy engine.Tensor) []engine.Tensor {
				dx := ws.Tensor(engine.Wide, 4, 10)
				e.GatedSiLUBackward(dx, dy, x)
				return []engine.Tensor{dx}
			}}
		}},
		{"CrossEntropy", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			x, y, lse := normal(e, ws, r, 4, 6), ws.Tensor(engine.Wide, 4, 1), ws.Tensor(engine.Wide, 4, 1)
			targets := ws.Index([]int32{0, 5, 2, 2})
			return differentiable{[]engine.Tensor{x}, func() engine.Tensor {
				e.CrossEntropyForward(y, lse, x, targets)
				return y
			}, func(dy engine.Tensor) []engine.Tensor {
				// The contract is the gradient of the sum; a weighted sum scales its rows.
				dx := ws.Tensor(engine.Wide, 4, 6)
				e.CrossEntropyBackward(dx, x, lse, targets)
				for i := range 4 {
					e.Scale(ws.View(dx, i, 1, 0, 6), e.at(dy, i, 0))
				}
				return []engine.Tensor{dx}
			}}
		}},
		{"Embed", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			prompt, y := normal(e, ws, r, 3, 4), ws.Tensor(engine.Wide, 9, 4)
			table := must(e.NewTable(5, 4, normal32(r, 20)))
			ids := ws.Index([]int32{^0, ^1, ^2, 4, ^0, ^1, ^2, 0, 3})
			return differentiable{[]engine.Tensor{prompt}, func() engine.Tensor {
				e.EmbedForward(y, table, prompt, ids)
				return y
			}, func(dy engine.Tensor) []engine.Tensor {
				dp := ws.Tensor(engine.Wide, 3, 4)
				e.Zero(dp)
				e.EmbedBackward(dp, dy, ids)
				return []engine.Tensor{dp}
			}}
		}},
	}
	for _, sparse := range []bool{false, true} {
		cases = append(cases, gradientCase{map[bool]string{false: "Linear", true: "Linear, sparse input"}[sparse],
			func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
				x, y := normal(e, ws, r, 4, 5), ws.Tensor(engine.Wide, 4, 7)
				w := must(e.NewLinear(engine.LinearSpec{
					In:          5,
					Weights:     [][]float32{normal32(r, 15), normal32(r, 20)},
					SparseInput: sparse,
				}))
				return differentiable{[]engine.Tensor{x}, func() engine.Tensor {
					e.LinearForward(y, x, w)
					return y
				}, func(dy engine.Tensor) []engine.Tensor {
					dx := ws.Tensor(engine.Wide, 4, 5)
					e.LinearBackward(dx, dy, w, false)
					return []engine.Tensor{dx}
				}}
			}})
	}
	cases = append(cases,
		gradientCase{"ExpandHeads", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			x, y, w := normal(e, ws, r, 4, 6), ws.Tensor(engine.Wide, 12, 5), must(e.NewHeads(3, 5, normal32(r, 30)))
			return differentiable{[]engine.Tensor{x}, func() engine.Tensor {
				e.ExpandHeads(y, x, w)
				return y
			}, func(dy engine.Tensor) []engine.Tensor {
				dx := ws.Tensor(engine.Wide, 4, 6)
				e.ContractHeads(dx, dy, w)
				return []engine.Tensor{dx}
			}}
		}}, gradientCase{"ContractHeads", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			x, y, w := normal(e, ws, r, 12, 5), ws.Tensor(engine.Wide, 4, 6), must(e.NewHeads(3, 5, normal32(r, 30)))
			return differentiable{[]engine.Tensor{x}, func() engine.Tensor {
				e.ContractHeads(y, x, w)
				return y
			}, func(dy engine.Tensor) []engine.Tensor {
				dx := ws.Tensor(engine.Wide, 12, 5)
				e.ExpandHeads(dx, dy, w)
				return []engine.Tensor{dx}
			}}
		}}, gradientCase{"SharedAttention", func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
			q, kv := normal(e, ws, r, 72, 5), normal(e, ws, r, 9, 5)
			out, lse := ws.Tensor(engine.Wide, 72, 5), ws.Tensor(engine.Wide, 72, 1)
			seg := ws.Segments(engine.SegmentSpec{
				Q:  []engine.Span{{Start: 0, Len: 2}, {Start: 2, Len: 70}},
				KV: []engine.Span{{Start: 1, Len: 4}, {Start: 5, Len: 4}},
			})
			return differentiable{[]engine.Tensor{q, kv}, func() engine.Tensor {
				e.SharedAttentionForward(out, lse, q, kv, seg)
				return out
			}, func(dout engine.Tensor) []engine.Tensor {
				dq, dkv := ws.Tensor(engine.Wide, 72, 5), ws.Tensor(engine.Wide, 9, 5)
				e.Zero(dkv)
				e.SharedAttentionBackward(dq, dkv, dout, out, lse, q, kv, seg)
				return []engine.Tensor{dq, dkv}
			}}
		}})
	for _, a := range []struct {
		name   string
		spec   engine.SegmentSpec
		nq, nk int
		biased bool
	}{
		{"Attention, encoder",
			engine.SegmentSpec{
				Q:  []engine.Span{{Start: 0, Len: 1}, {Start: 1, Len: 6}},
				KV: []engine.Span{{Start: 0, Len: 1}, {Start: 1, Len: 6}},
			}, 7, 7, true},
		{"Attention, decoder",
			engine.SegmentSpec{
				Q:      []engine.Span{{Start: 0, Len: 5}, {Start: 5, Len: 2}},
				KV:     []engine.Span{{Start: 0, Len: 5}, {Start: 5, Len: 2}},
				Causal: true,
			}, 7, 7, true},
		{"Attention, cross",
			engine.SegmentSpec{
				Q:  []engine.Span{{Start: 0, Len: 2}, {Start: 2, Len: 3}},
				KV: []engine.Span{{Start: 0, Len: 6}, {Start: 6, Len: 1}},
			}, 5, 7, false},
		{"Attention, cached",
			engine.SegmentSpec{
				Q:      []engine.Span{{Start: 0, Len: 2}, {Start: 2, Len: 1}},
				KV:     []engine.Span{{Start: 0, Len: 5}, {Start: 5, Len: 4}},
				Offset: []int{3, 1},
				Causal: true,
			}, 3, 9, true},
		{"Attention, several query blocks",
			engine.SegmentSpec{
				Q:      []engine.Span{{Start: 0, Len: 70}},
				KV:     []engine.Span{{Start: 0, Len: 70}},
				Causal: true,
			}, 70, 70, true},
	} {
		cases = append(cases,
			gradientCase{a.name, func(e *Engine[float64], ws engine.Workspace, r *rand.Rand) differentiable {
				const heads, d = 2, 3
				q, kv := normal(e, ws, r, a.nq, heads*d), normal(e, ws, r, a.nk, 2*heads*d)
				k, v := ws.View(kv, 0, a.nk, 0, heads*d), ws.View(kv, 0, a.nk, heads*d, heads*d)
				out, lse := ws.Tensor(engine.Wide, a.nq, heads*d), ws.Tensor(engine.Wide, a.nq, heads)
				var b engine.Bias
				if a.biased {
					b = must(e.NewBias(heads, -3, 2, normal32(r, heads*6)))
				}
				seg := ws.Segments(a.spec)
				return differentiable{[]engine.Tensor{q, k, v}, func() engine.Tensor {
					e.AttentionForward(out, lse, q, k, v, seg, b, heads)
					return out
				}, func(dout engine.Tensor) []engine.Tensor {
					dq, dkv := ws.Tensor(engine.Wide, a.nq, heads*d), ws.Tensor(engine.Wide, a.nk, 2*heads*d)
					dk, dv := ws.View(dkv, 0, a.nk, 0, heads*d), ws.View(dkv, 0, a.nk, heads*d, heads*d)
					e.Zero(dkv)
					e.AttentionBackward(dq, dk, dv, dout, out, lse, q, k, v, seg, b, heads)
					return []engine.Tensor{dq, dk, dv}
				}}
			}})
	}
	return cases
}

// TestGradients compares every backward with central differences of its forward in float64.
func TestGradients(t *testing.T) {
	for _, c := range gradientCases() {
		t.Run(c.name, func(t *testing.T) {
			e := New[float64](1)
			defer e.Close()
			ws := e.NewWorkspace()
			r := rand.New(rand.NewPCG(1, 2))
			f := c.make(e, ws, r)
			out := f.forward()
			weights := normal(e, ws, r, out.Rows(), out.Cols())
			// loss is the result's sum under random weights, so that every element counts
			// differently.
			loss := func() float64 {
				f.forward()
				var sum float64
				for i := range out.Rows() {
					for j := range out.Cols() {
						sum += e.at(out, i, j) * e.at(weights, i, j)
					}
				}
				return sum
			}
			dout := ws.Tensor(engine.Wide, out.Rows(), out.Cols())
			for i := range out.Rows() {
				for j := range out.Cols() {
					e.set(dout, i, j, e.at(weights, i, j))
				}
			}
			grads := f.backward(dout)
			for n, x := range f.in {
				stride := 1 + x.Rows()*x.Cols()/100
				for at := 0; at < x.Rows()*x.Cols(); at += stride {
					i, j := at/x.Cols(), at%x.Cols()
					const h = 1e-5
					v := e.at(x, i, j)
					e.set(x, i, j, v+h)
					up := loss()
					e.set(x, i, j, v-h)
					down := loss()
					e.set(x, i, j, v)
					want, got := (up-down)/(2*h), e.at(grads[n], i, j)
					if math.Abs(got-want) > 1e-7*max(1, math.Abs(want)) {
						t.Fatalf("input %d, element (%d,%d): gradient %.9g, finite difference %.9g", n, i, j, got, want)
					}
				}
			}
		})
	}
}

// TestExp32 compares with math.Exp over the whole range, to two units in the last place.
func TestExp32(t *testing.T) {
	for x := float32(-110); x < 95; x += 0.00317 {
		want := float32(math.Exp(float64(x)))
		got := exp32(x)
		if want < 1.2e-38 {
			want = 0 // below the normal range
			if got > 1.3e-38 {
				t.Fatalf("exp(%v) = %v, want about 0", x, got)
			}
			continue
		}
		if got == want {
			continue
		}
		if d := math.Abs(float64(got)-float64(want)) / float64(want); !(d <= 2.5e-7) {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	for _, x := range []float64{math.Inf(-1), math.Inf(1), math.NaN(), 0} {
		got, want := float64(exp32(float32(x))), math.Exp(x)
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("exp(%v) = %v, want %v", x, got, want)
		}
	}
}

// TestOpsDoNotAllocate: ops, parallel ones included, allocate nothing in a workspace in which the
// step ran before.
func TestOpsDoNotAllocate(t *testing.T) {
	e := New[float32](2)
	defer e.Close()
	w := must(e.NewLinear(engine.LinearSpec{In: 256, Weights: [][]float32{make([]float32, 256*256)}}))
	g := must(e.NewGain(make([]float32, 256)))
	ws := e.NewWorkspace()
	spans := []engine.Span{{Start: 0, Len: 100}, {Start: 100, Len: 28}}
	step := func() {
		ws.Reset()
		x, y, r := ws.Tensor(engine.Wide, 128, 256), ws.Tensor(engine.Wide, 128, 256), ws.Tensor(engine.Wide, 128, 1)
		e.Zero(x)
		e.NormForward(y, r, x, g, 1e-6)
		e.LinearForward(x, y, w)
		e.LinearBackward(y, x, w, true)
		e.ReLUForward(y, y, ws.Mask(128, 256))
		seg := ws.Segments(engine.SegmentSpec{Q: spans, KV: spans})
		lse := ws.Tensor(engine.Wide, 128, 4)
		out := ws.Tensor(engine.Wide, 128, 256)
		e.AttentionForward(out, lse, x, y, x, seg, nil, 4)
	}
	step()
	step()
	if n := testing.AllocsPerRun(10, step); n > 0 {
		t.Errorf("a step allocates %v times, want 0", n)
	}
}
