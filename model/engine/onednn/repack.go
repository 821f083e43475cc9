//go:build onednn && cgo

package onednn

// #include "gemm.h"
import "C"

import (
	"errors"
	"unsafe"
)

// repackTask is packTask for weights that are there already: only values change.
type repackTask struct {
	packTask
}

// repack gives l the values w [out, in].
func (e *Engine) repack(l *linear, w []float32) error {
	t := &repackTask{packTask{e: e, w: w, in: l.in, weights: [2]*packed{l.forward[0], l.backward[0]}}}
	parts := len(l.forward[0].parts) + len(l.backward[0].parts)
	t.errs = make([]error, parts)
	e.run(parts, 2*len(w), t)
	return errors.Join(t.errs...)
}

func (t *repackTask) Do(part, worker int) {
	i, j, from, rs, cs := t.place(part)
	g, p := t.gemm(i, j), t.weights[i].parts[j]
	t.errs[part] = call(func() bool {
		return C.dpt_repack(p, g, C.int(worker), (*C.float)(unsafe.Pointer(&t.w[from])), C.long(rs), C.long(cs)) == 0
	})
}
