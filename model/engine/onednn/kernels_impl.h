// The kernels, for vectors of VL floats. Vectors are the compiler's own (GCC and Clang), which
// every CPU has in some width. A row whose length is no multiple of VL ends in a vector that is
// filled up.

#if defined(__clang__)
#pragma clang fp contract(fast)
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef uint32_t vu __attribute__((vector_size(4 * VL)));
typedef uint16_t vh __attribute__((vector_size(2 * VL)));

INLINE vf splat(float x) { return x - (vf){0}; }

// blend is a where mask is all ones, b where it is 0.
INLINE vf blend(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }

// maxv is a where a > b, else b: the second operand where one is NaN.
INLINE vf maxv(vf a, vf b) {
#if defined(__x86_64__) && VL == 16
	return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__x86_64__) && VL == 8
	return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
	return blend(a > b, a, b);
#endif
}

INLINE vf minv(vf a, vf b) {
#if defined(__x86_64__) && VL == 16
	return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__x86_64__) && VL == 8
	return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
	return blend(a < b, a, b);
#endif
}

INLINE vf from_bf16(vh h) { return (vf)(__builtin_convertvector(h, vu) << 16); }

// to_bf16 rounds to nearest, ties to even; NaN stays NaN.
INLINE vh to_bf16(vf x) {
#if HAVE_DPBF16
	return (vh)_mm512_cvtneps_pbh((__m512)x);
#endif
	vu u = (vu)x;
	vu rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
	vu nan = (vu)(x != x);
	return __builtin_convertvector((rounded & ~nan) | (0x7fc0 & nan), vh);
}

// What lies in memory need not be aligned.
typedef vf vf_mem __attribute__((aligned(1), may_alias));
typedef vh vh_mem __attribute__((aligned(1), may_alias));

// load_some and store_some move the m < VL elements from p on; the other lanes are 0.
#if defined(__x86_64__) && VL == 16
#define FIRST(m) ((1u << (m)) - 1)
INLINE vf load_some(const float *p, long m) { return (vf)_mm512_maskz_loadu_ps(FIRST(m), p); }
INLINE void store_some(float *p, long m, vf v) { _mm512_mask_storeu_ps(p, FIRST(m), (__m512)v); }
INLINE vh load_some_h(const uint16_t *p, long m) { return (vh)_mm256_maskz_loadu_epi16(FIRST(m), p); }
INLINE void store_some_h(uint16_t *p, long m, vh v) { _mm256_mask_storeu_epi16(p, FIRST(m), (__m256i)v); }
#undef FIRST
#else
INLINE vf load_some(const float *p, long m) {
	vf v = {0};
	memcpy(&v, p, 4 * m);
	return v;
}
INLINE void store_some(float *p, long m, vf v) { memcpy(p, &v, 4 * m); }
INLINE vh load_some_h(const uint16_t *p, long m) {
	vh v = {0};
	memcpy(&v, p, 2 * m);
	return v;
}
INLINE void store_some_h(uint16_t *p, long m, vh v) { memcpy(p, &v, 2 * m); }
#endif

// load reads the m ≤ VL elements from the j-th on; the other lanes are 0.
INLINE vf loadf(const float *p, long j, long m) {
	if (__builtin_expect(m == VL, 1)) return *(const vf_mem *)(p + j);
	return load_some(p + j, m);
}

INLINE void storef(float *p, long j, long m, vf v) {
	if (__builtin_expect(m == VL, 1))
		*(vf_mem *)(p + j) = v;
	else
		store_some(p + j, m, v);
}

INLINE vf loadh(const uint16_t *p, long j, long m) {
	if (__builtin_expect(m == VL, 1)) return from_bf16(*(const vh_mem *)(p + j));
	return from_bf16(load_some_h(p + j, m));
}

INLINE void storeh(uint16_t *p, long j, long m, vf x) {
	vh v = to_bf16(x);
	if (__builtin_expect(m == VL, 1))
		*(vh_mem *)(p + j) = v;
	else
		store_some_h(p + j, m, v);
}

// row is a row of a matrix.
typedef struct {
	void *p;
	int dt;
} row;

INLINE row at(const dpt_mat *m, long i, long j) {
	return (row){(char *)m->p + (i * m->ld + j) * (m->dt == DPT_F32 ? 4 : 2), m->dt};
}

INLINE vf load(row r, long j, long m) { return r.dt == DPT_F32 ? loadf(r.p, j, m) : loadh(r.p, j, m); }

INLINE void store(row r, long j, long m, vf v) {
	if (r.dt == DPT_F32)
		storef(r.p, j, m, v);
	else
		storeh(r.p, j, m, v);
}

// EACH runs its body for the columns [0, n), m from the j-th on at a time.
#define EACH(n) for (long j = 0, m; m = (n) - j < VL ? (n) - j : VL, j < (n); j += VL)

// SHUFFLE takes lane f(j, s) of a and b, one after the other, as its lane j.
#if VL == 4
#define LANES(f, s) f(0, s), f(1, s), f(2, s), f(3, s)
#elif VL == 8
#define LANES(f, s) f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s)
#else
#define LANES(f, s) f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s), f(8, s), f(9, s), f(10, s), f(11, s), f(12, s), f(13, s), f(14, s), f(15, s)
#endif
#if defined(__clang__)
#define SHUFFLE(T, a, b, f, s) ((T)__builtin_shufflevector(a, b, LANES(f, s)))
#else
#define SHUFFLE(T, a, b, f, s) ((T)__builtin_shuffle(a, b, (vi){LANES(f, s)}))
#endif

#define ACROSS(j, s) ((j) ^ (s))

// FOLD joins all lanes of v by join, halves of them at a time.
#if VL == 4
#define FOLD(v, join) v = join(v, SHUFFLE(vf, v, v, ACROSS, 2)), v = join(v, SHUFFLE(vf, v, v, ACROSS, 1))
#elif VL == 8
#define FOLD(v, join) v = join(v, SHUFFLE(vf, v, v, ACROSS, 4)), v = join(v, SHUFFLE(vf, v, v, ACROSS, 2)), v = join(v, SHUFFLE(vf, v, v, ACROSS, 1))
#else
#define FOLD(v, join) v = join(v, SHUFFLE(vf, v, v, ACROSS, 8)), v = join(v, SHUFFLE(vf, v, v, ACROSS, 4)), v = join(v, SHUFFLE(vf, v, v, ACROSS, 2)), v = join(v, SHUFFLE(vf, v, v, ACROSS, 1))
#endif

INLINE vf plus(vf a, vf b) { return a + b; }

INLINE float sumv(vf v) {
	FOLD(v, plus);
	return v[0];
}

// maxlane is the largest lane of a v without NaN.
INLINE float maxlane(vf v) {
	FOLD(v, maxv);
	return v[0];
}

// lanes is all ones in the first m lanes.
INLINE vi lanes(long m) {
	vi v;
	for (int i = 0; i < VL; i++) v[i] = i;
	return v < (int32_t)m;
}

// expv is eˣ within 2 units in the last place, for x in [-87.3, 88.3]; what lies outside is taken
// for the nearer end. NaN stays NaN.
INLINE vf expv(vf x) {
	// x = n·ln 2 + r with |r| ≤ ln 2 / 2. Adding 2²³·1.5 rounds to an integer in the low
	// bits, and 127 more makes them 2ⁿ's exponent. ln2Hi has few enough bits that n·ln2Hi is
	// exact. The polynomial is eʳ's best of its degree, 3e-9 off at most.
	const float round = 1.5f * (1 << 23) + 127, ln2Hi = 0.693359375f, ln2Lo = -2.12194440054690583e-4f;
	x = maxv(splat(-87.3f), x);
	x = minv(splat(88.3f), x);
	vf n = x * 1.44269504088896340736f + round;
	vf scale = (vf)((vi)n << 23);
	n -= round;
	vf r = (x - n * ln2Hi) - n * ln2Lo;
	vf p = r * 0.001381459878757596f + 0.008368716575205326f;
	p = p * r + 0.04166838899254799f;
	p = p * r + 0.1666652113199234f;
	p = p * r + 0.4999999403953552f;
	p = p * r + 1;
	p = p * r + 1;
	return p * scale;
}

// logv is the natural logarithm within 2e-7, relative or absolute, for normal x > 0; that of
// infinity is infinity, that of NaN is NaN.
INLINE vf logv(vf x) {
	// x = m·2ⁿ with m in [√½, √2), and log m = 2·artanh(s) for s = (m − 1)/(m + 1).
	vi n = ((vi)x - 0x3f3504f3) >> 23;
	vf m = (vf)((vi)x - (n << 23));
	vf s = (m - 1) / (m + 1), z = s * s;
	vf p = z * 0.298715204000473f + 0.39977553486824036f;
	p = p * z + 0.6666677594184875f;
	vf e = __builtin_convertvector(n, vf);
	vf y = e * 0.693359375f + (s * (p * z + 2) - e * 2.12194440054690583e-4f);
	return blend(x < INFINITY, y, x);
}

// tanhv is tanh within 4e-7, relative.
INLINE vf tanhv(vf x) {
	vi sign = (vi)x & INT32_MIN;
	vf a = (vf)((vi)x & INT32_MAX);
	vf t = 1 - 2 / (expv(2 * minv(splat(10), a)) + 1);
	vf s = x * x;
	vf p = s * -0.0088632355f + 0.0218694885f;
	p = p * s - 0.053968254f;
	p = p * s + 0.13333333f;
	p = p * s - 0.33333333f;
	p = a + a * s * p;
	t = blend(a < 0.35f, p, t);
	return (vf)((vi)t | sign);
}

static void test_exp(float *y, const float *x, long n) { EACH(n) storef(y, j, m, expv(loadf(x, j, m))); }
static void test_log(float *y, const float *x, long n) { EACH(n) storef(y, j, m, logv(loadf(x, j, m))); }
static void test_tanh(float *y, const float *x, long n) { EACH(n) storef(y, j, m, tanhv(loadf(x, j, m))); }

#include "rows_impl.h"
#include "product_impl.h"
#include "attention_impl.h"
#include "train_impl.h"
#include "pack_impl.h"
#include "frozen_impl.h"

const dpt_kernels TABLE = {
	.name = NAME,
	.rows = rows,
	.embed_backward = embed_backward,
	.attention = attention,
	.attention_scratch = attention_scratch,
	.weight_gradient = weight_gradient,
	.weight_gradient_scratch = weight_gradient_scratch,
	.gain_gradient = gain_gradient,
	.bias_gradient = bias_gradient,
	.bias_gradient_scratch = bias_gradient_scratch,
	.pack = pack,
	.turn = turn,
	.product = PRODUCTS,
	.exp = test_exp,
	.log = test_log,
	.tanh = test_tanh,
};
