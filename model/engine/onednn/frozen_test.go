//go:build onednn && cgo

package onednn

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/internal/enginetest"
)

// eachOwn runs f in each mode that uses the kernels' products.
func eachOwn(t *testing.T, f func(t *testing.T, opt Options)) {
	ran := false
	eachMode(t, func(t *testing.T, opt Options, _ enginetest.Tolerance) {
		if opt.library {
			t.Skip("the products are the library's")
		}
		ran = true
		f(t, opt)
	})
	if !ran {
		t.Skip("the kernels have no products for this CPU")
	}
}

// panelsOf is w packed in panels, element (i, j) of k×n being w[i*rs + j*cs].
func panelsOf(e *Engine, w []float32, k, n, rs, cs int) []byte {
	size := panelBytes(k, e.source())
	out := make([]byte, (n+panelCols-1)/panelCols*size)
	for j := range n {
		panel := unsafe.Pointer(&out[j/panelCols*size])
		for i := range k {
			e.put(panel, e.place(i, j%panelCols), w[i*rs+j*cs])
		}
	}
	return out
}

// TestPanels: weights are packed, and turned, into the panels that the product reads.
func TestPanels(t *testing.T) {
	eachOwn(t, func(t *testing.T, opt Options) {
		for _, s := range [][2]int{{1, 1}, {16, 16}, {64, 96}, {192, 256}, {70, 130}, {33, 200}, {400, 17}} {
			out, in := s[0], s[1]
			e := mustOpen(t, opt)
			w := normal(rand.New(rand.NewPCG(3, 4)), out*in)
			l := must(e.pack(w, out, in))
			want := panelsOf(e, w, in, out, 1, in)
			if got := unsafe.Slice((*byte)(l.forward[0].memories[0]), len(want)); !bytes.Equal(got, want) {
				t.Errorf("%d×%d: packed weights differ", out, in)
			}
			want = panelsOf(e, w, out, in, in, 1)
			size := panelBytes(out, e.source())
			m := e.alloc(size)
			got := unsafe.Slice((*byte)(m), size)
			turn := panelTask{e: e, w: l.backward}
			for i := range l.backward[0].panels() {
				for j := range got {
					got[j] = 0xff
				}
				turn.turn(0, i, m)
				if !bytes.Equal(got, want[i*size:(i+1)*size]) {
					t.Errorf("%d×%d: turned panel %d differs", out, in, i)
				}
			}
			e.Close()
		}
	})
}

// TestPanelRows: a row's bits depend neither on the number of rows, and so on the tile, chunk and
// strip in which it is computed, nor on how the weight is turned, nor on the number of threads.
func TestPanelRows(t *testing.T) {
	const rows = 421
	eachOwn(t, func(t *testing.T, opt Options) {
		for _, s := range [][2]int{
			{130, 96}, {33, 65}, {640, 512}, {20000, 256},
		} { // the last one's transpose is turned in two parts
			r := rand.New(rand.NewPCG(1, 2))
			w, x, dy := normal(r, s[0]*s[1]), normal(r, rows*s[1]), normal(r, rows*s[0])
			run := func(threads, first, n int) (y, dx []float64) {
				opt.Threads = threads
				e := mustOpen(t, opt)
				defer e.Close()
				l, ws := must(e.NewLinear(engine.LinearSpec{In: s[1], Weights: [][]float32{w}})), e.NewWorkspace()
				xt, yt := ws.Tensor(engine.Narrow, n, s[1]), ws.Tensor(engine.Narrow, n, s[0])
				dyt, dxt := ws.Tensor(engine.Wide, n, s[0]), ws.Tensor(engine.Wide, n, s[1])
				e.Upload(xt, x[first*s[1]:(first+n)*s[1]])
				e.Upload(dyt, dy[first*s[0]:(first+n)*s[0]])
				e.LinearForward(yt, xt, l)
				e.LinearBackward(dxt, dyt, l, false)
				e.LinearBackward(dxt, dyt, l, true)
				y, dx = make([]float64, n*s[0]), make([]float64, n*s[1])
				for _, err := range []error{e.Download(y, yt), e.Download(dx, dxt)} {
					if err != nil {
						t.Fatal(err)
					}
				}
				return y, dx
			}
			y, dx := run(2, 0, rows)
			for _, c := range []struct{ threads, first, n int }{
				{1, 0, rows}, {3, 1, rows - 1}, {2, 100, 1}, {2, 200, 5}, {2, 17, 150},
			} {
				gotY, gotDX := run(c.threads, c.first, c.n)
				if !slices.Equal(gotY, y[c.first*s[0]:(c.first+c.n)*s[0]]) {
					t.Errorf("%v, %+v: other bits forward", s, c)
				}
				if !slices.Equal(gotDX, dx[c.first*s[1]:(c.first+c.n)*s[1]]) {
					t.Errorf("%v, %+v: other bits backward", s, c)
				}
			}
		}
	})
}

// TestOwnNumerics: an engine with the kernels' products has other Numerics than one with the
// library's.
func TestOwnNumerics(t *testing.T) {
	eachOwn(t, func(t *testing.T, opt Options) {
		weights := [][]float32{normal(rand.New(rand.NewPCG(1, 2)), 96*64)}
		var seen []string
		for _, opt.library = range []bool{false, true} {
			e := mustOpen(t, opt)
			must(e.NewLinear(engine.LinearSpec{In: 96, Weights: weights}))
			seen = append(seen, e.Numerics())
			e.Close()
		}
		if seen[0] == seen[1] {
			t.Errorf("both are %q", seen[0])
		}
	})
}
