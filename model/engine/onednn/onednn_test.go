//go:build onednn && cgo

package onednn

import (
	"fmt"
	"testing"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/enginetest"
)

func mustOpen(t testing.TB, opt Options) *Engine {
	e, err := open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestConformance runs the suite on every instruction set that this CPU has, in both precisions.
func TestConformance(t *testing.T) {
	for i := range kernelSets() {
		for _, b := range []bool{false, true} {
			name := mustOpen(t, Options{Threads: 1, BF16: b, kernels: i})
			t.Run(fmt.Sprintf("%s/%s", name.isa(), name.dtype()), func(t *testing.T) {
				tol := enginetest.Tolerance(1e-5)
				if b {
					tol = 2e-2
				}
				enginetest.Run(t, func(threads int) engine.Engine {
					return mustOpen(t, Options{Threads: threads, BF16: b, kernels: i})
				}, tol)
			})
			name.Close()
		}
	}
}
