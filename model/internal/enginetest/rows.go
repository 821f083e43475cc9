package enginetest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/dptune/dpt/model/engine"
)

// rowOp is an op on matrices with the same number of rows, each of whose result rows depends only
// on its own operand rows.
type rowOp struct {
	name  string
	in    []operand
	limit int // bound of the ids, if the op takes any
	// make builds the op's weights, from r, and returns the op; it is given the operands and
	// returns its results.
	make func(e engine.Engine, r *rand.Rand) op
}

// operand is a random matrix with group rows of cols columns for each row of the op.
type operand struct {
	group, cols int
	p           engine.Precision
}

func wide(cols int) operand   { return operand{1, cols, engine.Wide} }
func narrow(cols int) operand { return operand{1, cols, engine.Narrow} }

// op is an op ready to run.
type op = func(ws engine.Workspace, in []engine.Tensor, ids engine.Index) []engine.Tensor

func rowOps(r *rand.Rand) []rowOp {
	d, f := 1+r.IntN(70), 1+r.IntN(300)
	stack := []int{1 + r.IntN(9), 1 + r.IntN(130), 1 + r.IntN(70)}
	out := stack[0] + stack[1] + stack[2]
	ops := []rowOp{
		{name: "Norm", in: []operand{wide(d), wide(d), wide(d)}, make: func(e engine.Engine, r *rand.Rand) op {
			g := must(e.NewGain(random(r, d)))
			return func(ws engine.Workspace, in []engine.Tensor, _ engine.Index) []engine.Tensor {
				x, dy, dx := in[0], in[1], in[2]
				n := x.Rows()
				y, rs := ws.Tensor(engine.Narrow, n, d), ws.Tensor(engine.Wide, n, 1)
				e.NormForward(y, rs, x, g, 1e-6)
				e.NormBackward(dx, dy, x, rs, g)
				return []engine.Tensor{y, rs, dx}
			}
		}},
		{name: "AddNorm", in: []operand{wide(d), wide(d)}, make: func(e engine.Engine, r *rand.Rand) op {
			g := must(e.NewGain(random(r, d)))
			return func(ws engine.Workspace, in []engine.Tensor, _ engine.Index) []engine.Tensor {
				n := in[0].Rows()
				sum, y, rs := ws.Tensor(engine.Wide, n, d), ws.Tensor(engine.Narrow, n, d), ws.Tensor(engine.Wide, n, 1)
				e.AddNormForward(sum, y, rs, in[0], in[1], g, 1e-6)
				y2 := ws.Tensor(engine.Narrow, n, d)
				e.AddNormForward(in[0], y2, rs, in[0], in[1], g, 1e-6)
				return []engine.Tensor{sum, y, rs, in[0], y2}
			}
		}},
		{name: "ReLU", in: []operand{narrow(f), narrow(f)}, make: func(e engine.Engine, r *rand.Rand) op {
			return func(ws engine.Workspace, in []engine.Tensor, _ engine.Index) []engine.Tensor {
				x, dy := in[0], in[1]
				n := x.Rows()
				y := ws.Tensor(engine.Narrow, n, f)
				y2 := ws.Tensor(engine.Narrow, n, f)
				dx := ws.Tensor(engine.Narrow, n, f)
				e.ReLUForward(y2, x, nil)
				positive, again := ws.Mask(n, f), ws.Mask(n, f)
				if positive.Rows() != n || positive.Cols() != f {
					panic(fmt.Sprintf("enginetest: mask is %d×%d, want %d×%d",
						positive.Rows(), positive.Cols(), n, f))
				}
				e.ReLUForward(y, x, positive)
				e.ReLUForward(x, x, again)
				e.ReLUBackward(dx, dy, positive)
				e.ReLUBackward(dy, dy, again)
				return []engine.Tensor{y, y2, x, dx, dy}
			}
		}},
		{name: "GatedGELU", in: []operand{narrow(2 * f), narrow(f)}, make: func(e engine.Engine, r *rand.Rand) op {
			return func(ws engine.Workspace, in []engine.Tensor, _ engine.Index) []engine.Tensor {
				x, dy := in[0], in[1]
				e.Scale(x, 3) // into tanh's flat ends
				y, dx := ws.Tensor(engine.Narrow, x.Rows(), f), ws.Tensor(engine.Narrow, x.Rows(), 2*f)
				e.GatedGELUForward(y, x)
				e.GatedGELUBackward(dx, dy, x)
				return []engine.Tensor{x, y, dx}
			}
		}},
		{name: "GatedSiLU", in: []operand{narrow(2 * f), narrow(f)}, make: func(e engine.Engine, r *rand.Rand) op {
			return func(ws engine.Workspace, in []engine.Tensor, _ engine.Index) []engine.Tensor {
				x, dy := in[0], in[1]
				e.Scale(x, 3) // into the sigmoid's flat ends
				y, dx := ws.Tensor(engine.Narrow, x.Rows(), f), ws.Tensor(engine.Narrow, x.Rows(), 2*f)
				e.GatedSiLUForward(y, x)
				e.GatedSiLUBackward(dx, dy, x)
				return []engine.Tensor{x, y, dx}
			}
		}},
		{name: "CrossEntropy", in: []operand{wide(f)}, limit: f, make: func(e engine.Engine, r *rand.Rand) op {
			return func(ws engine.Workspace, in []engine.Tensor, ids engine.Index) []engine.Tensor {
				x := in[0]
				e.Scale(x, 4)
				n := x.Rows()
				loss := ws.Tensor(engine.Wide, n, 1)
				lse := ws.Tensor(engine.Wide, n, 1)
				dx := ws.Tensor(engine.Wide, n, f)
				e.CrossEntropyForward(loss, lse, x, ids)
				e.CrossEntropyBackward(dx, x, lse, ids)
				e.CrossEntropyBackward(x, x, lse, ids)
				return []engine.Tensor{loss, lse, dx, x}
			}
		}},
		{name: "Embed", in: nil, limit: f, make: func(e engine.Engine, r *rand.Rand) op {
			table := must(e.NewTable(f, d, random(r, f*d)))
			head := must(e.TableLinear(table))
			return func(ws engine.Workspace, _ []engine.Tensor, ids engine.Index) []engine.Tensor {
				x, y := ws.Tensor(engine.Wide, ids.Len(), d), ws.Tensor(engine.Wide, ids.Len(), f)
				e.EmbedForward(x, table, nil, ids)
				xn := ws.Tensor(engine.Narrow, ids.Len(), d)
				e.EmbedForward(xn, table, nil, ids)
				e.LinearForward(y, xn, head)
				return []engine.Tensor{x, y}
			}
		}},
	}
	heads, dim := 1+r.IntN(5), 1+r.IntN(20)
	ops = append(ops, rowOp{
		name: "Heads",
		in:   []operand{narrow(heads * dim), {heads, d, engine.Narrow}},
		make: func(e engine.Engine, r *rand.Rand) op {
			w := must(e.NewHeads(heads, d, random(r, heads*dim*d)))
			if w.Heads() != heads || w.Dim() != dim || w.In() != d {
				panic(fmt.Sprintf("enginetest: heads are %d of %d×%d, want %d of %d×%d",
					w.Heads(), w.Dim(), w.In(), heads, dim, d))
			}
			return func(ws engine.Workspace, in []engine.Tensor, _ engine.Index) []engine.Tensor {
				n := in[0].Rows()
				expanded, contracted := ws.Tensor(engine.Narrow, n*heads, d), ws.Tensor(engine.Narrow, n, heads*dim)
				e.ExpandHeads(expanded, in[0], w)
				e.ContractHeads(contracted, in[1], w)
				return []engine.Tensor{expanded, contracted}
			}
		},
	})
	for _, sparse := range []bool{false, true} {
		ops = append(ops, rowOp{
			name: fmt.Sprintf("Linear/sparse=%v", sparse),
			in:   []operand{narrow(d), narrow(out), wide(d), wide(out)},
			make: func(e engine.Engine, r *rand.Rand) op {
				spec := engine.LinearSpec{In: d, SparseInput: sparse}
				for _, o := range stack {
					spec.Weights = append(spec.Weights, random(r, o*d))
				}
				w := must(e.NewLinear(spec))
				if w.Out() != out || w.In() != d {
					panic(fmt.Sprintf("enginetest: linear is %d×%d, want %d×%d", w.Out(), w.In(), out, d))
				}
				return func(ws engine.Workspace, in []engine.Tensor, _ engine.Index) []engine.Tensor {
					x, dy, acc, dyWide := in[0], in[1], in[2], in[3]
					if sparse {
						e.ReLUForward(x, x, nil)
					}
					y, dx := ws.Tensor(engine.Narrow, x.Rows(), out), ws.Tensor(engine.Wide, x.Rows(), d)
					e.LinearForward(y, x, w)
					e.LinearBackward(dx, dy, w, false)
					e.LinearBackward(acc, dy, w, true)
					dxNarrow := ws.Tensor(engine.Narrow, x.Rows(), d)
					e.LinearBackward(dxNarrow, dyWide, w, false)
					return []engine.Tensor{y, dx, acc, dxNarrow}
				}
			},
		})
	}
	return ops
}

func (s *suite) rowOps(t *testing.T) {
	eng, many, ref := s.engine(t, 1), s.engine(t, 3), reference(t)
	for seed := range uint64(8) {
		shapes := rand.New(rand.NewPCG(seed, 0))
		n := []int{1, 2, 63, 64, 65, 130, 200, 17}[seed]
		for _, o := range rowOps(shapes) {
			t.Run(fmt.Sprintf("%s/%d", o.name, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				in, ids := o.operands(r, n)
				run := func(e engine.Engine, from, rows int) [][]float64 {
					return o.run(t, e, place{}, seed, in, ids, from, rows)
				}
				want, got, got3 := run(ref, 0, n), run(eng, 0, n), run(many, 0, n)
				for i := range want {
					what := fmt.Sprintf("result %d of %d rows", i, n)
					s.compare(t, what, got[i], want[i])
					sameBits(t, what+" with 3 threads", got3[i], got[i])
				}
				for _, at := range places {
					for i, x := range o.run(t, many, at, seed, in, ids, 0, n) {
						sameBits(t, fmt.Sprintf("result %d with operands at %+v", i, at), x, got[i])
					}
				}
				for _, part := range [][2]int{{0, 1}, {n - 1, 1}, {n / 2, 1}, {n / 3, (n + 2) / 3}} {
					some := run(many, part[0], part[1])
					for i := range some {
						cols := len(got[i]) / n
						sameBits(t, fmt.Sprintf("result %d, rows %d+%d of %d alone", i, part[0], part[1], n),
							some[i], got[i][part[0]*cols:(part[0]+part[1])*cols])
					}
				}
			})
		}
	}
}

// operands draws the op's operands for n rows.
func (o rowOp) operands(r *rand.Rand, n int) (in [][]float32, ids []int32) {
	for _, x := range o.in {
		in = append(in, random(r, n*x.group*x.cols))
	}
	if o.limit > 0 {
		ids = randomIDs(r, n, o.limit)
	}
	return in, ids
}

// run computes the op on some of the rows, in dirty memory.
func (o rowOp) run(
	t *testing.T,
	e engine.Engine,
	at place,
	seed uint64,
	data [][]float32,
	ids []int32,
	from, rows int,
) [][]float64 {
	t.Helper()
	f := o.make(e, rand.New(rand.NewPCG(seed, 2)))
	ws := e.NewWorkspace()
	dirty(e, ws)
	var in []engine.Tensor
	for i, x := range o.in {
		size := x.group * x.cols
		in = append(in, at.upload(e, ws, x.p, data[i][from*size:(from+rows)*size], x.group*rows, x.cols))
	}
	var index engine.Index
	if ids != nil {
		index = ws.Index(ids[from : from+rows])
	}
	var out [][]float64
	for _, x := range f(ws, in, index) {
		out = append(out, download(t, e, x))
	}
	return out
}
