// Attention; part of kernels_impl.h.
//
// One part is one head of one segment. Its operands are packed once: as the right side of a product in panels of NR columns. Scores exist for QB
// queries at a time, in float32. Products run in microkernels of at most MR rows and one panel; an element is summed along the
// depth in order, in one accumulator, so its bits depend on nothing but its row and column.
//
// With HAVE_DPBF16 and tensors in bfloat16, products are of bfloat16 pairs: everything is the same on 32-bit words that hold two
// neighbours along the depth. Otherwise bfloat16 operands become float32 as they are packed.

#define NR (2 * VL)
#define QB 96 // queries in a block: a multiple of 2 and of every MR

// UNROLL unrolls a loop whole, so that its array lives in registers.
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define UP(n, to) (((n) + (to)-1) / (to) * (to))

// micro adds to, or sets, c [M, NR]: the products of M rows of a, whose element (i, k) is a[i*rs + k*cs], with a panel b [depth, NR].
INLINE void micro_f32(const int M, long depth, const float *a, long rs, long cs, const float *b, float *c, long ldc, int add) {
	vf s[MR][2];
	UNROLL
	for (int i = 0; i < M; i++) {
		s[i][0] = add ? loadf(c + i * ldc, 0, VL) : splat(0);
		s[i][1] = add ? loadf(c + i * ldc, VL, VL) : splat(0);
	}
	for (long k = 0; k < depth; k++) {
		vf b0 = loadf(b, 0, VL), b1 = loadf(b, VL, VL);
		UNROLL
		for (int i = 0; i < M; i++) {
			s[i][0] += a[i * rs] * b0;
			s[i][1] += a[i * rs] * b1;
		}
		a += cs;
		b += NR;
	}
	UNROLL
	for (int i = 0; i < M; i++) {
		storef(c + i * ldc, 0, VL, s[i][0]);
		storef(c + i * ldc, VL, VL, s[i][1]);
	}
}

#if HAVE_DPBF16
INLINE __m512 dp(__m512 s, uint32_t a, __m512i b) { return _mm512_dpbf16_ps(s, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b); }

// micro_pair is micro_f32 on pairs; depth counts pairs.
INLINE void micro_pair(const int M, long depth, const uint32_t *a, long rs, long cs, const uint32_t *b, float *c, long ldc, int add) {
	__m512 s[MR][2];
	UNROLL
	for (int i = 0; i < M; i++) {
		s[i][0] = add ? _mm512_loadu_ps(c + i * ldc) : _mm512_setzero_ps();
		s[i][1] = add ? _mm512_loadu_ps(c + i * ldc + VL) : _mm512_setzero_ps();
	}
	for (long k = 0; k < depth; k++) {
		__m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + VL);
		UNROLL
		for (int i = 0; i < M; i++) {
			s[i][0] = dp(s[i][0], a[i * rs], b0);
			s[i][1] = dp(s[i][1], a[i * rs], b1);
		}
		a += cs;
		b += NR;
	}
	UNROLL
	for (int i = 0; i < M; i++) {
		_mm512_storeu_ps(c + i * ldc, s[i][0]);
		_mm512_storeu_ps(c + i * ldc + VL, s[i][1]);
	}
}
#define PAIRED(a) ((a)->q.dt == DPT_BF16 && (a)->k.dt == DPT_BF16 && (a)->v.dt == DPT_BF16 && (a)->d % 2 == 0)
#else
#define PAIRED(a) 0
#endif

// product: c [m, n] = or += a·b, n in whole panels of `depth` by NR.
#define PRODUCT(name, T, micro)                                                                                              \
	static void name(long m, long n, long depth, const T *a, long rs, long cs, const T *b, float *c, long ldc, int add) { \
		for (long j = 0; j < n; j += NR, b += depth * NR) {                                                           \
			long i = 0;                                                                                           \
			for (; i + MR <= m; i += MR) micro(MR, depth, a + i * rs, rs, cs, b, c + i * ldc + j, ldc, add);      \
			for (; i + 4 <= m; i += 4) micro(4, depth, a + i * rs, rs, cs, b, c + i * ldc + j, ldc, add);         \
			for (; i < m; i++) micro(1, depth, a + i * rs, rs, cs, b, c + i * ldc + j, ldc, add);                 \
		}                                                                                                             \
	}
PRODUCT(product_f32, float, micro_f32)
#if HAVE_DPBF16
PRODUCT(product_pair, uint32_t, micro_pair)
#endif

// multiply is product on float32 or, when paired, on pairs; depth, rs and cs count words.
INLINE void multiply(int paired, long m, long n, long depth, const void *a, long rs, long cs, const void *b, float *c, long ldc, int add) {
#if HAVE_DPBF16
	if (paired) {
		product_pair(m, n, depth, a, rs, cs, b, c, ldc, add);
		return;
	}
#else
	(void)paired;
#endif
	product_f32(m, n, depth, a, rs, cs, b, c, ldc, add);
}

// words copies one head's part of a row into 32-bit words: float32, or pairs of bfloat16.
INLINE void words(void *dst, row x, long d, int paired) {
	if (paired)
		memcpy(dst, x.p, 2 * d);
	else
		copy((row){dst, DPT_F32}, x, d);
}

// prefetch brings one head's part of a row nearer. Rows lie far apart, where no CPU expects the next.
INLINE void prefetch(const dpt_mat *m, long i, long col, long d) {
	const char *p = at(m, i, col).p;
	for (long b = 0; b < d * (m->dt == DPT_F32 ? 4 : 2); b += 64) __builtin_prefetch(p + b);
}
#define AHEAD 12 // rows

// pack_rows copies head h of rows [first, first+n) of m into words [n, ld].
static void pack_rows(uint32_t *dst, long ld, const dpt_mat *m, long first, long n, long col, long d, int paired) {
	for (long i = 0; i < n; i++) {
		if (i + AHEAD < n) prefetch(m, first + i + AHEAD, col, d);
		words(dst + i * ld, at(m, first + i, col), d, paired);
	}
}

// pack_columns makes panels whose columns are rows of m: word (k, j) is word k of row first+j. Columns beyond n are 0. tmp holds NR rows of words.
static void pack_columns(uint32_t *dst, const dpt_mat *m, long first, long n, long col, long d, int paired, uint32_t *tmp) {
	long depth = paired ? d / 2 : d;
	for (long j = 0; j < n; j += NR, dst += depth * NR) {
		long w = n - j < NR ? n - j : NR;
		for (long i = j + NR; i < j + NR + AHEAD && i < n; i++) prefetch(m, first + i, col, d);
		pack_rows(tmp, depth, m, first + j, w, col, d, paired);
		if (w < NR) memset(tmp + w * depth, 0, 4 * (NR - w) * depth);
		for (long k = 0; k < depth; k++)
			for (long c = 0; c < NR; c++) dst[k * NR + c] = tmp[c * depth + k];
	}
}

// pack_panels makes panels whose rows are rows of m: element (i, j) is element j of row first+i; columns beyond d are 0.
// When paired, a panel's row holds two neighbouring rows of m, interleaved; a missing last one is 0.
static void pack_panels(uint32_t *dst, const dpt_mat *m, long first, long n, long col, long d, int paired) {
	for (long p = 0; p < d; p += NR) {
		long w = d - p < NR ? d - p : NR;
		if (!paired) {
			for (long i = 0; i < n; i++, dst += NR) {
				if (i + AHEAD < n) prefetch(m, first + i + AHEAD, col + p, w);
				row x = at(m, first + i, col + p);
				EACH(NR) storef((float *)dst, j, m, w > j ? load(x, j, w - j < VL ? w - j : VL) : splat(0));
			}
			continue;
		}
		for (long i = 0; i < n; i += 2, dst += NR) {
			for (long r = i + AHEAD; r < i + AHEAD + 2 && r < n; r++) prefetch(m, first + r, col + p, w);
			uint16_t two[2][NR] = {{0}};
			memcpy(two[0], at(m, first + i, col + p).p, 2 * w);
			if (i + 1 < n) memcpy(two[1], at(m, first + i + 1, col + p).p, 2 * w);
			for (long c = 0; c < NR; c++) dst[c] = two[0][c] | (uint32_t)two[1][c] << 16;
		}
	}
}

// interleave joins two rows of n bfloat16 numbers into pairs.
static void interleave(uint32_t *dst, const uint16_t *a, const uint16_t *b, long n) {
	for (long j = 0; j < n; j++) dst[j] = a[j] | (uint32_t)b[j] << 16;
}

// arena hands out scratch memory; with a NULL base it only counts.
typedef struct {
	char *base;
	size_t used;
} arena;

INLINE void *take(arena *s, size_t bytes) {
	void *p = s->base ? s->base + s->used : NULL;
	s->used += UP(bytes, 64);
	return p;
}

// attn_memory is the scratch memory of a part.
typedef struct {
	uint32_t *tmp;      // NR rows of words
	float *ext;         // bias by distance, from queries-1 below key 0 up
	uint32_t *kt, *vt;  // panels: columns are keys
	uint32_t *kp, *vp;  // panels: rows are keys
	uint32_t *q, *dout; // words [QB, depth]
	uint32_t *qp, *doutp; // panels: rows are queries of the block
	float *s, *ds;      // [QB, keys]
	uint16_t *sh, *dsh; // the same in bfloat16
	uint32_t *st, *dst;  // the same in pairs of queries [QB/2, keys]
	float *o;           // [QB, columns]
	float *dk, *dv;     // [keys, columns]
} attn_memory;

static size_t attn_layout(attn_memory *x, void *base, const dpt_attn *a, long nq, long nk) {
	arena s = {base, 0};
	long paired = PAIRED(a), keys = UP(nk, NR), cols = UP(a->d, NR), depth = a->d;
	x->tmp = take(&s, 4 * NR * depth);
	x->ext = take(&s, 4 * (nq + keys + VL));
	x->kt = take(&s, 4 * keys * depth);
	x->q = take(&s, 4 * QB * depth);
	x->s = take(&s, 4 * QB * keys);
	x->sh = take(&s, paired ? 2 * QB * keys : 0);
	x->o = take(&s, 4 * QB * cols);
	if (!a->backward) {
		x->vp = take(&s, 4 * keys * cols);
		return s.used;
	}
	x->vt = take(&s, 4 * keys * depth);
	x->kp = take(&s, 4 * keys * cols);
	x->dout = take(&s, 4 * QB * depth);
	x->qp = take(&s, 4 * QB * cols);
	x->doutp = take(&s, 4 * QB * cols);
	x->ds = take(&s, 4 * QB * keys);
	x->dsh = take(&s, paired ? 2 * QB * keys : 0);
	x->st = take(&s, paired ? 2 * QB * keys : 0);
	x->dst = take(&s, paired ? 2 * QB * keys : 0);
	x->dk = take(&s, 4 * keys * cols);
	x->dv = take(&s, 4 * keys * cols);
	return s.used;
}

static size_t attention_scratch(const dpt_attn *a, long queries, long keys) {
	attn_memory x = {0};
	return attn_layout(&x, NULL, a, queries, keys);
}

// softmax_forward turns a row of scores, n of them visible, into exponentials, in bfloat16 at h unless that is NULL, and 0 from n up to `keys`.
// It returns their sum; *top is the maximum.
static float softmax_forward(float *s, uint16_t *h, const float *ext, long n, long keys, float *top) {
	vf most = splat(-INFINITY);
	long full = n / VL * VL, j = 0;
	for (; j < full; j += VL) {
		vf v = loadf(s, j, VL);
		if (ext) v += loadf(ext, j, VL);
		storef(s, j, VL, v);
		most = maxv(v, most);
	}
	if (j < n) {
		vf v = loadf(s, j, VL);
		if (ext) v += loadf(ext, j, n - j);
		v = blend(lanes(n - j), v, splat(-INFINITY));
		storef(s, j, VL, v);
		most = maxv(v, most);
	}
	float c = maxlane(most);
	vf sum = {0};
	for (j = 0; j < full; j += VL) {
		vf v = expv(loadf(s, j, VL) - c);
		sum += v;
		if (h)
			storeh(h, j, VL, v);
		else
			storef(s, j, VL, v);
	}
	if (j < n) {
		vf v = blend(lanes(n - j), expv(loadf(s, j, VL) - c), splat(0));
		sum += v;
		if (h)
			storeh(h, j, VL, v);
		else
			storef(s, j, VL, v);
		j += VL;
	}
	for (; j < keys; j += VL) {
		if (h)
			storeh(h, j, VL, splat(0));
		else
			storef(s, j, VL, splat(0));
	}
	*top = c;
	return sumv(sum);
}

// softmax_backward turns scores s into probabilities and ds, the gradient of the probabilities, into that of the scores: p∘(ds − d).
static void softmax_backward(float *s, float *ds, uint16_t *h, uint16_t *dh, const float *ext, float lse, float d, long n, long keys) {
	for (long j = 0; j < keys; j += VL) {
		vf p = loadf(s, j, VL), g = loadf(ds, j, VL);
		if (ext) p += loadf(ext, j, VL);
		p = expv(p - lse);
		g = p * (g - d);
		if (__builtin_expect(n - j < VL, 0)) { // also where s holds padding
			p = blend(lanes(n - j), p, splat(0));
			g = blend(lanes(n - j), g, splat(0));
		}
		if (h) {
			storeh(h, j, VL, p);
			storeh(dh, j, VL, g);
		} else {
			storef(s, j, VL, p);
			storef(ds, j, VL, g);
		}
	}
}

// spread fills ext with head h's bias by distance: ext[i] is that of distance i − below, for n distances.
static void spread(float *ext, const dpt_attn *a, long h, long below, long n) {
	long span = a->hi - a->lo + 1;
	const float *v = a->bias + h * span;
	for (long i = 0; i < n; i++) {
		long t = i - below;
		t = t < a->lo ? a->lo : t > a->hi ? a->hi : t;
		ext[i] = v[t - a->lo];
	}
}

static void attention(const dpt_attn *a, long part, void *scratch) {
	long h = part % a->heads, d = a->d, col = h * d;
	const long *seg = a->segments + 5 * (part / a->heads);
	long q0 = seg[0], nq = seg[1], k0 = seg[2], nk = seg[3], offset = seg[4];
	const int paired = PAIRED(a);
	attn_memory x = {0};
	attn_layout(&x, scratch, a, nq, nk);
	long keys = UP(nk, NR), cols = UP(d, NR), depth = paired ? d / 2 : d;

	float *ext = NULL;
	if (a->bias) {
		// Query i's distances go from -(offset+i) up; below is the largest such.
		ext = x.ext;
		spread(ext, a, h, offset + nq - 1, nq - 1 + keys);
	}
	pack_columns(x.kt, &a->k, k0, nk, col, d, paired, x.tmp);
	if (a->backward) {
		pack_columns(x.vt, &a->v, k0, nk, col, d, paired, x.tmp);
		memset(x.dk, 0, 4 * keys * cols);
		memset(x.dv, 0, 4 * keys * cols);
	}

	long packed = -1; // keys in kp or vp, whose layout depends on their number
	for (long i = 0; i < nq; i += QB) {
		long rows = nq - i < QB ? nq - i : QB, pos = offset + i;
		long n = nk; // keys that some query of the block sees
		if (a->causal && pos + rows < n) n = pos + rows;
		long np = UP(n, NR), steps = paired ? (n + 1) / 2 : n;
		if (n != packed) {
			pack_panels(a->backward ? x.kp : x.vp, a->backward ? &a->k : &a->v, k0, n, col, d, paired);
			packed = n;
		}
		pack_rows(x.q, depth, &a->q, q0 + i, rows, col, d, paired);
		multiply(paired, rows, np, depth, x.q, depth, 1, x.kt, x.s, keys, 0);
		if (a->backward) {
			pack_rows(x.dout, depth, &a->dout, q0 + i, rows, col, d, paired);
			multiply(paired, rows, np, depth, x.dout, depth, 1, x.vt, x.ds, keys, 0);
		}
		float sums[QB];
		for (long r = 0; r < rows; r++) {
			long seen = a->causal && pos + r + 1 < n ? pos + r + 1 : n;
			float *lse = (float *)a->lse.p + (q0 + i + r) * a->lse.ld + h;
			const float *e = ext ? ext + (nq - 1 - i - r) : NULL;
			uint16_t *sh = paired ? x.sh + r * keys : NULL, *dsh = paired && a->backward ? x.dsh + r * keys : NULL;
			if (!a->backward) {
				float top;
				sums[r] = softmax_forward(x.s + r * keys, sh, e, seen, np, &top);
				*lse = (float)(top + log(sums[r]));
				continue;
			}
			row o = at(&a->out, q0 + i + r, col), dout = at(&a->dout, q0 + i + r, col);
			vf dot = {0};
			EACH(d) dot += load(o, j, m) * load(dout, j, m);
			softmax_backward(x.s + r * keys, x.ds + r * keys, sh, dsh, e, *lse, sumv(dot), seen, np);
		}
		const void *left = paired ? (void *)(a->backward ? x.dsh : x.sh) : a->backward ? x.ds : x.s;
		multiply(paired, rows, cols, steps, left, paired ? keys / 2 : keys, 1, a->backward ? x.kp : x.vp, x.o, cols, 0);
		for (long r = 0; r < rows; r++) {
			row y = at(a->backward ? &a->dq : &a->out, q0 + i + r, col);
			float scale = a->backward ? 1 : 1 / sums[r];
			EACH(d) store(y, j, m, loadf(x.o + r * cols, j, m) * scale);
		}
		if (!a->backward) continue;

		const void *pt = x.s, *dst = x.ds;
		if (paired) {
			for (long r = 0; r < rows; r += 2) {
				if (r + 1 == rows) {
					memset(x.sh + (r + 1) * keys, 0, 2 * np);
					memset(x.dsh + (r + 1) * keys, 0, 2 * np);
				}
				interleave(x.st + r / 2 * keys, x.sh + r * keys, x.sh + (r + 1) * keys, np);
				interleave(x.dst + r / 2 * keys, x.dsh + r * keys, x.dsh + (r + 1) * keys, np);
			}
			pt = x.st;
			dst = x.dst;
		}
		long qsteps = paired ? (rows + 1) / 2 : rows;
		pack_panels(x.qp, &a->q, q0 + i, rows, col, d, paired);
		pack_panels(x.doutp, &a->dout, q0 + i, rows, col, d, paired);
		multiply(paired, n, cols, qsteps, dst, 1, keys, x.qp, x.dk, cols, 1);
		multiply(paired, n, cols, qsteps, pt, 1, keys, x.doutp, x.dv, cols, 1);
	}
	if (!a->backward) return;
	if (a->shared) {
		for (long i = 0; i < nk; i++) {
			row y = at(&a->dk, k0 + i, col);
			EACH(d) store(y, j, m, load(y, j, m) + (loadf(x.dk + i * cols, j, m) + loadf(x.dv + i * cols, j, m)));
		}
		return;
	}
	for (long j0 = 0; j0 < nk; j0++) {
		copy(at(&a->dk, k0 + j0, col), (row){x.dk + j0 * cols, DPT_F32}, d);
		copy(at(&a->dv, k0 + j0, col), (row){x.dv + j0 * cols, DPT_F32}, d);
	}
}
