// Products of small matrices and the packing of their operands, for attention; part of
// kernels_impl.h.
//
// The right side of a product is packed in panels of NR columns; a last panel is VL wide where that
// is enough. Products run in microkernels of at most MR rows and one panel. An element is summed
// along the depth in order, in one accumulator, so its bits depend on nothing but its row and
// column.
//
// With HAVE_DPBF16 and tensors in bfloat16, products are of bfloat16 pairs: everything is the same
// on 32-bit words that hold two neighbours along the depth. Otherwise bfloat16 operands become
// float32 as they are packed.

#define NR (2 * VL)

// UNROLL unrolls a loop whole, so that its array lives in registers.
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define UP(n, to) (((n) + (to)-1) / (to) * (to))

INLINE long least(long a, long b) { return a < b ? a : b; }

// micro adds to, or sets, c [M, N vectors]: the products of M rows of a, whose element (i, k) is
// a[i*rs + k*cs], with a panel b [depth, ldb].
INLINE void micro_f32(const int M, const int N, long depth, const float *a, long rs, long cs, const float *b, long ldb, float *c, long ldc, int add) {
	vf s[MR][2];
	UNROLL
	for (int i = 0; i < M; i++)
		for (int j = 0; j < N; j++) s[i][j] = add ? loadf(c + i * ldc, j * VL, VL) : splat(0);
	for (long k = 0; k < depth; k++) {
		vf b0 = loadf(b, 0, VL), b1 = N > 1 ? loadf(b, VL, VL) : b0;
		UNROLL
		for (int i = 0; i < M; i++) {
			s[i][0] += a[i * rs] * b0;
			if (N > 1) s[i][1] += a[i * rs] * b1;
		}
		a += cs;
		b += ldb;
	}
	UNROLL
	for (int i = 0; i < M; i++)
		for (int j = 0; j < N; j++) storef(c + i * ldc, j * VL, VL, s[i][j]);
}

#if HAVE_DPBF16
INLINE __m512 dp(__m512 s, uint32_t a, __m512i b) { return _mm512_dpbf16_ps(s, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b); }

// micro_pair is micro_f32 on pairs; depth counts pairs.
INLINE void micro_pair(const int M, const int N, long depth, const uint32_t *a, long rs, long cs, const uint32_t *b, long ldb, float *c, long ldc, int add) {
	__m512 s[MR][2];
	UNROLL
	for (int i = 0; i < M; i++)
		for (int j = 0; j < N; j++) s[i][j] = add ? _mm512_loadu_ps(c + i * ldc + j * VL) : _mm512_setzero_ps();
	for (long k = 0; k < depth; k++) {
		__m512i b0 = _mm512_loadu_si512(b), b1 = N > 1 ? _mm512_loadu_si512(b + VL) : b0;
		UNROLL
		for (int i = 0; i < M; i++) {
			s[i][0] = dp(s[i][0], a[i * rs], b0);
			if (N > 1) s[i][1] = dp(s[i][1], a[i * rs], b1);
		}
		a += cs;
		b += ldb;
	}
	UNROLL
	for (int i = 0; i < M; i++)
		for (int j = 0; j < N; j++) _mm512_storeu_ps(c + i * ldc + j * VL, s[i][j]);
}
#define PAIRED(a) ((a)->q.dt == DPT_BF16 && (a)->k.dt == DPT_BF16 && (a)->v.dt == DPT_BF16 && (a)->d % 2 == 0)
#else
#define PAIRED(a) 0
#endif

// A product with one panel: c [m, N vectors] = or += a·b.
#define PRODUCT(name, N, T, micro)                                                                                                            \
	static void name(long m, long depth, const T *a, long rs, long cs, const T *b, long ldb, float *c, long ldc, int add) {                \
		long i = 0;                                                                                                                    \
		for (; i + MR <= m; i += MR) micro(MR, N, depth, a + i * rs, rs, cs, b, ldb, c + i * ldc, ldc, add);                           \
		for (; i + 4 <= m; i += 4) micro(4, N, depth, a + i * rs, rs, cs, b, ldb, c + i * ldc, ldc, add);                              \
		for (; i < m; i++) micro(1, N, depth, a + i * rs, rs, cs, b, ldb, c + i * ldc, ldc, add);                                      \
	}
PRODUCT(product_f32_1, 1, float, micro_f32)
PRODUCT(product_f32_2, 2, float, micro_f32)
#if HAVE_DPBF16
PRODUCT(product_pair_1, 1, uint32_t, micro_pair)
PRODUCT(product_pair_2, 2, uint32_t, micro_pair)
#endif

// multiply: c [m, n], n a multiple of VL and at most NR, = or += a·b on float32 or, when paired,
// on pairs; depth, rs, cs and ldb count words.
INLINE void multiply(int paired, long m, long n, long depth, const void *a, long rs, long cs, const void *b, long ldb, float *c, long ldc, int add) {
#if HAVE_DPBF16
	if (paired) {
		(n > VL ? product_pair_2 : product_pair_1)(m, depth, a, rs, cs, b, ldb, c, ldc, add);
		return;
	}
#else
	(void)paired;
#endif
	(n > VL ? product_f32_2 : product_f32_1)(m, depth, a, rs, cs, b, ldb, c, ldc, add);
}

// prefetch brings one head's part of rows [from, to) nearer. Rows lie far apart, where no CPU
// expects the next.
INLINE void prefetch(const dpt_mat *m, long from, long to, long col, long d) {
	for (long i = from; i < to; i++) {
		const char *p = at(m, i, col).p;
		for (long b = 0; b < d * (m->dt == DPT_F32 ? 4 : 2); b += 64) __builtin_prefetch(p + b);
	}
}

// words loads words k to k+m ≤ k+VL of a row: float32, or pairs of bfloat16.
INLINE vu words(row x, long k, long m, int paired) {
	if (paired) return (vu)loadf(x.p, k, m);
	return (vu)load(x, k, m);
}

// pack_rows copies one head of rows [first, first+n) of m into words [n, depth].
static void pack_rows(uint32_t *dst, long depth, const dpt_mat *m, long first, long n, long col, int paired) {
	for (long i = 0; i < n; i++) {
		row x = at(m, first + i, col);
		if (paired)
			memcpy(dst + i * depth, x.p, 4 * depth);
		else
			copy((row){dst + i * depth, DPT_F32}, x, depth);
	}
}

// transpose turns VL vectors, the rows of a square matrix, into its columns.
INLINE void transpose(vu t[VL]) {
#define LOW(j, s) ((j) & (s) ? VL + ((j) ^ (s)) : (j))
#define HIGH(j, s) ((j) & (s) ? VL + (j) : (j) | (s))
#define STEP(s)                                                                \
	UNROLL                                                                 \
	for (int i = 0; i < VL; i++) {                                         \
		if (i & (s)) continue;                                         \
		vu a = t[i], b = t[(i | (s)) & (VL - 1)];                      \
		t[i] = SHUFFLE(vu, a, b, LOW, s);                              \
		t[(i | (s)) & (VL - 1)] = SHUFFLE(vu, a, b, HIGH, s);          \
	}
	STEP(1)
	STEP(2)
#if VL > 4
	STEP(4)
#endif
#if VL > 8
	STEP(8)
#endif
#undef STEP
#undef LOW
#undef HIGH
}

// columns_tile is pack_columns for VL columns and `wide` ≤ VL words of each from the k-th on.
INLINE void columns_tile(uint32_t *dst, long w, const dpt_mat *m, long first, long n, long col, long k, long wide, const int paired, const int dt) {
	vu t[VL];
	UNROLL
	for (int i = 0; i < VL; i++) {
		row x = at(m, first + least(i, n - 1), col);
		x.dt = dt;
		t[i] = words(x, k, wide, paired);
		if (i >= n) t[i] = (vu){0};
	}
	transpose(t);
	UNROLL
	for (int i = 0; i < VL; i++)
		if (i < wide) storef((float *)dst + i * w, 0, VL, (vf)t[i]);
}

INLINE void pack_columns_of(uint32_t *dst, long w, const dpt_mat *m, long first, long n, long col, long depth, const int paired, const int dt) {
	for (long c = 0; c < w; c += VL, first += VL, n -= VL) {
		long k = 0;
		for (; k + VL <= depth; k += VL) columns_tile(dst + k * w + c, w, m, first, n, col, k, VL, paired, dt);
		if (k < depth) columns_tile(dst + k * w + c, w, m, first, n, col, k, depth - k, paired, dt);
	}
}

// pack_columns makes a panel of w columns that are rows of m: word (k, j) is word k of row first+j.
// Columns beyond n are 0; the last VL columns hold at least one that is not.
static void pack_columns(uint32_t *dst, long w, const dpt_mat *m, long first, long n, long col, long depth, int paired) {
	if (paired)
		pack_columns_of(dst, w, m, first, n, col, depth, 1, DPT_BF16);
	else if (m->dt == DPT_BF16)
		pack_columns_of(dst, w, m, first, n, col, depth, 0, DPT_BF16);
	else
		pack_columns_of(dst, w, m, first, n, col, depth, 0, DPT_F32);
}

// pack_panel makes a panel of w columns whose rows are n rows of m: element (i, j) is element col+j
// of row first+i; columns beyond valid are 0. When paired, a panel's row holds two neighbouring
// rows of m, interleaved; a missing last one is 0.
static void pack_panel(uint32_t *dst, long w, const dpt_mat *m, long first, long n, long col, long valid, int paired) {
	if (!paired) {
		for (long i = 0; i < n; i++, dst += w) {
			row x = at(m, first + i, col);
			for (long j = 0; j < w; j += VL) storef((float *)dst, j, VL, j < valid ? load(x, j, least(VL, valid - j)) : splat(0));
		}
		return;
	}
	for (long i = 0; i < n; i += 2, dst += w) {
		row x = at(m, first + i, col), y = at(m, first + i + (i + 1 < n), col);
		for (long j = 0; j < w; j += VL) {
			long wide = least(VL, valid - j);
			vu low = {0}, high = {0};
			if (wide > 0) {
				low = (vu)loadh(x.p, j, wide) >> 16;
				high = i + 1 < n ? (vu)loadh(y.p, j, wide) : high;
			}
			storef((float *)dst, j, VL, (vf)(low | high));
		}
	}
}
