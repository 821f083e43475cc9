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
//
// static size_t dpt_scratch(const dpt_kernels *k, long d, int backward, long queries, long keys) {
//	dpt_attn a = {.d = d, .backward = backward};
//	return k->attention_scratch(&a, queries, keys);
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

// attentionScratch is the scratch memory of float32 attention over segments of at most that many
// queries and keys, for tests of its size.
func (e *Engine) attentionScratch(d int, backward bool, queries, keys int) int {
	var back C.int
	if backward {
		back = 1
	}
	return int(C.dpt_scratch(e.kernels, C.long(d), back, C.long(queries), C.long(keys)))
}

func floats(x []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(x))) }
