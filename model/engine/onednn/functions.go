//go:build onednn && cgo

package onednn

// #include "kernels.h"
//
// static void dpt_exp(const dpt_kernels *k, float *y, const float *x, long n) {
//	k->exp(y, x, n);
// }
//
// static void dpt_log(const dpt_kernels *k, float *y, const float *x, long n) {
//	k->log(y, x, n);
// }
//
// static void dpt_tanh(const dpt_kernels *k, float *y, const float *x, long n) {
//	k->tanh(y, x, n);
// }
import "C"

import "unsafe"

// exp, log and tanh are the kernels' functions, for tests of their accuracy.
func (e *Engine) exp(y, x []float32) {
	C.dpt_exp(e.kernels, floats(y), floats(x), C.long(len(x)))
}

func (e *Engine) log(y, x []float32) {
	C.dpt_log(e.kernels, floats(y), floats(x), C.long(len(x)))
}

func (e *Engine) tanh(y, x []float32) {
	C.dpt_tanh(e.kernels, floats(y), floats(x), C.long(len(x)))
}

func floats(x []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(x))) }
