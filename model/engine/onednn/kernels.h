// Everything that is not a matrix product with frozen weights: row-wise ops and attention. Each
// instruction set has its own table of the same functions, compiled from kernels_impl.h.

#ifndef DPT_KERNELS_H
#define DPT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "gemm.h" // DPT_F32, DPT_BF16, dpt_layout

// dpt_mat is a matrix whose element (i, j) is the (i*ld + j)-th of p, of type dt.
typedef struct {
	void *p;
	long ld;
	int dt;
} dpt_mat;

// dpt_bits is a matrix of bits whose row i is the ld bytes from p + i*ld on, the first column in
// the lowest bit of the first byte.
typedef struct {
	uint8_t *p;
	long ld;
} dpt_bits;

enum {
	DPT_COPY, // y = x
	DPT_ADD, // y += x
	DPT_ZERO,
	DPT_SCALE, // y *= s
	DPT_NORM,
	DPT_ADD_NORM,
	DPT_NORM_BACKWARD,
	DPT_RELU,
	DPT_RELU_BACKWARD,
	DPT_GATED_GELU,
	DPT_GATED_GELU_BACKWARD,
	DPT_GATED_SILU,
	DPT_GATED_SILU_BACKWARD,
	DPT_CROSS_ENTROPY,
	DPT_CROSS_ENTROPY_BACKWARD,
	DPT_EMBED,
	DPT_GATHER,
	DPT_SCATTER,
	DPT_ARGMAX,
};

// dpt_rows is a row-wise op; the op's function documents which members it uses. cols is the width
// of its narrowest matrix operand.
typedef struct {
	int op;
	long cols;
	dpt_mat y, y2, x, x2;
	dpt_mat r; // [rows, 1], float32
	dpt_bits bits; // p is NULL where there are none
	const float *gain;
	const int32_t *ids;
	int32_t *out;
	double eps, s;
} dpt_rows;

// dpt_embed_backward is the sum of rows of dx into rows of dprompt.
typedef struct {
	dpt_mat dprompt, dx;
	long prompt_rows, n;
	const int32_t *ids;
} dpt_embed_backward;

// dpt_attn is attention over segments. lse is float32; bias, which may be NULL, holds hi-lo+1
// values per head.
typedef struct {
	dpt_mat q, k, v, out, lse, dout, dq, dk, dv;
	long heads, d;
	const float *bias;
	long lo, hi;
	const long *segments; // five numbers each: first query, queries, first key, keys, offset
	int causal, backward;
	int shared; // backward adds the gradients of both k and v to dk
} dpt_attn;

// dpt_weight_gradient is dw [out,in] += dyᵀ·x over n rows; dw is float32.
typedef struct {
	dpt_mat dw, dy, x;
	long out, in, n;
	int bf16; // operands may be rounded to bfloat16
} dpt_weight_gradient;

// dpt_gain_gradient is dg [1,·] += Σ dy∘x·r over n rows; dg and r are float32.
typedef struct {
	dpt_mat dg, dy, x, r;
	long n;
} dpt_gain_gradient;

// dpt_product is y = or += x·w for weights w [k,·] packed in panels of DPT_PANEL columns, one
// after another (dpt_layout's nb). x is of the weights' type; in bfloat16 an odd number of columns
// is followed by one of zeros. Sums are float32, whatever y is.
typedef struct {
	dpt_mat y, x;
	const void *w;
	long k;
	int add;
} dpt_product;

#define DPT_PANEL 64

typedef struct {
	const char *name;
	void (*rows)(const dpt_rows *a, long from, long to);
	// Columns [from, to), at most 64 of them; scratch holds prompt_rows*64 floats.
	void (*embed_backward)(const dpt_embed_backward *a, long from, long to, void *scratch);
	// Part s*heads + h is head h of segment s.
	void (*attention)(const dpt_attn *a, long part, void *scratch);
	// Bytes of scratch memory, 64-byte aligned, for segments of at most that many queries and keys.
	size_t (*attention_scratch)(const dpt_attn *a, long queries, long keys);
	// Gradients of weights: see train_impl.h. Part i of weight_gradient is rows 96·i to 96·(i+1)
	// of dw.
	void (*weight_gradient)(const dpt_weight_gradient *a, long part, void *scratch);
	size_t (*weight_gradient_scratch)(void);
	void (*gain_gradient)(const dpt_gain_gradient *a, long from, long to);
	void (*bias_gradient)(const dpt_attn *a, long head, long segments, void *scratch);
	size_t (*bias_gradient_scratch)(const dpt_attn *a, long queries, long keys);
	// Columns [first, last) of weights, first a multiple of the layout's nb, last too or n: column
	// j is the to->k numbers from w + j*ld on. Padding becomes zero.
	void (*pack)(const dpt_layout *to, void *dst, const float *w, long ld, long first, long last);
	// Transposed, without padding: element (at+i, j) of dst becomes (i0+j, j0+i) of src, for `rows`
	// i and all columns j of dst. The types are the same.
	void (*turn)(const dpt_layout *from, const void *src, long i0, long j0, long rows, const dpt_layout *to, void *dst, long at);
	// Products of `rows` rows and `cols` columns by the weights' type, NULL if the library's are
	// faster. A row's bits do not depend on the number of rows.
	void (*product[2])(const dpt_product *p, long rows, long cols);
	// For tests: y = exp(x), log(x), tanh(x).
	void (*exp)(float *y, const float *x, long n);
	void (*log)(float *y, const float *x, long n);
	void (*tanh)(float *y, const float *x, long n);
} dpt_kernels;

// dpt_kernels_count is how many instruction sets of this build the CPU has; dpt_kernels_get returns
// the i-th, best first.
int dpt_kernels_count(void);
const dpt_kernels *dpt_kernels_get(int i);

// dpt_matrix_units reports whether the CPU has units for products of bfloat16 matrices (AMX), which
// the library uses.
int dpt_matrix_units(void);

#endif
