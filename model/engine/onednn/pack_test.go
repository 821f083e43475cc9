//go:build onednn && cgo

package onednn

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/dptune/dpt/model/internal/enginetest"
)

// reordered is w packed for p by the library: element (i, j) is w[i*rs + j*cs].
func reordered(t *testing.T, e *Engine, p *product, w []float32, rs, cs int) []byte {
	t.Helper()
	m := e.alloc(p.size())
	if err := e.reorder(must(e.packedAt(p, m)), p, 0, w, rs, cs); err != nil {
		t.Fatal(err)
	}
	return unsafe.Slice((*byte)(m), p.size())
}

// TestPacking: the kernels pack weights, and turn them, into the bytes that the library's own
// reorder makes of them.
func TestPacking(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options, _ enginetest.Tolerance) {
		if !opt.library {
			t.Skip("the weights are not the library's")
		}
		opt.Threads = 2
		for _, s := range [][2]int{
			{1, 1}, {16, 16}, {64, 96}, {128, 64}, {192, 256}, {70, 130}, {33, 200}, {400, 17}, {64, 1000},
		} {
			t.Run(fmt.Sprint(s), func(t *testing.T) {
				out, in := s[0], s[1]
				e := mustOpen(t, opt)
				defer e.Close()
				w := normal(rand.New(rand.NewPCG(3, 4)), out*in)
				l := must(e.pack(w, out, in))
				forward := must(e.partProduct(l.forward[0], 0, f32))
				if forward.layout == nil {
					t.Skip("the library keeps its layout to itself")
				}
				want := reordered(t, e, forward, w, 1, in)
				got := unsafe.Slice((*byte)(l.forward[0].memories[0]), len(want))
				if !bytes.Equal(got, want) {
					t.Error("packed weights differ from the library's")
				}
				turned := l.backward[0]
				if turned.source == nil {
					t.Fatal("the weight is packed twice, though its layout is known")
				}
				for i := range turned.count() {
					pr := must(e.partProduct(turned, i, f32))
					first, _ := turned.cols(i)
					want := reordered(t, e, pr, w[first:], in, 1)
					m := e.alloc(len(want))
					got := unsafe.Slice((*byte)(m), len(want))
					for j := range got {
						got[j] = 0xff
					}
					e.turnInto(m, turned, i, pr)
					if !bytes.Equal(got, want) {
						t.Errorf("panel %d differs from the library's", i)
					}
				}
			})
		}
	})
}
