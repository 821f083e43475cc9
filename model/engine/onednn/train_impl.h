// Gradients of weights; part of kernels_impl.h. Sums are float32, rows in order. In bfloat16 mode
// operands of weight_gradient are rounded to that where the instruction set multiplies such pairs.

#define WG_ROWS 96   // of dw in a part: a multiple of every MR
#define WG_DEPTH 256 // rows of x and dy at a time: a panel of x stays in the first cache

static size_t weight_gradient_scratch(void) { return 4 * (WG_DEPTH * WG_ROWS + WG_DEPTH * 2 * VL + WG_ROWS * 2 * VL); }

// wg_micro adds to c [M, 2·VL]: the products of M columns of a, whose element (k, i) is
// a[k*WG_ROWS + i], with a panel b [depth, 2·VL].
INLINE void wg_micro(const int M, long depth, const float *a, const float *b, float *c, long ldc) {
	vf s[MR][2];
	UNROLL
	for (int i = 0; i < M; i++) {
		s[i][0] = loadf(c + i * ldc, 0, VL);
		s[i][1] = loadf(c + i * ldc, VL, VL);
	}
	for (long k = 0; k < depth; k++) {
		vf b0 = loadf(b, 0, VL), b1 = loadf(b, VL, VL);
		UNROLL
		for (int i = 0; i < M; i++) {
			s[i][0] += a[i] * b0;
			s[i][1] += a[i] * b1;
		}
		a += WG_ROWS;
		b += 2 * VL;
	}
	UNROLL
	for (int i = 0; i < M; i++) {
		storef(c + i * ldc, 0, VL, s[i][0]);
		storef(c + i * ldc, VL, VL, s[i][1]);
	}
}

#if HAVE_DPBF16
// wg_micro_pair is wg_micro on pairs of bfloat16 that are neighbours along the depth, which it
// counts in pairs.
INLINE void wg_micro_pair(const int M, long depth, const uint32_t *a, const uint32_t *b, float *c, long ldc) {
	__m512 s[MR][2];
	UNROLL
	for (int i = 0; i < M; i++) {
		s[i][0] = _mm512_loadu_ps(c + i * ldc);
		s[i][1] = _mm512_loadu_ps(c + i * ldc + VL);
	}
	for (long k = 0; k < depth; k++) {
		__m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + VL);
		UNROLL
		for (int i = 0; i < M; i++) {
			s[i][0] = dp(s[i][0], a[i], b0);
			s[i][1] = dp(s[i][1], a[i], b1);
		}
		a += WG_ROWS;
		b += 2 * VL;
	}
	UNROLL
	for (int i = 0; i < M; i++) {
		_mm512_storeu_ps(c + i * ldc, s[i][0]);
		_mm512_storeu_ps(c + i * ldc + VL, s[i][1]);
	}
}

INLINE vu half(row r, long j, long m) {
	vh v = {0};
	if (r.dt == DPT_F32)
		v = to_bf16(loadf(r.p, j, m));
	else if (__builtin_expect(m == VL, 1))
		memcpy(&v, (uint16_t *)r.p + j, sizeof v);
	else
		memcpy(&v, (uint16_t *)r.p + j, 2 * m);
	return __builtin_convertvector(v, vu);
}

// wg_pairs joins rows k and k+1 of m, n columns from col on, into words; of a row at or beyond
// `rows` nothing is taken.
INLINE void wg_pairs(uint32_t *dst, const dpt_mat *m, long k, long rows, long col, long n) {
	row a = at(m, k, col), b = at(m, k + 1 < rows ? k + 1 : k, col);
	for (long j = 0; j < n; j += VL) {
		long w = n - j < VL ? n - j : VL;
		vu v = half(a, j, w);
		if (k + 1 < rows) v |= half(b, j, w) << 16;
		memcpy(dst + j, &v, sizeof v);
	}
}
#endif

// wg_pack copies rows [k0, k0+depth) of m, n columns from col on, into words [·, ld] for wg_micro
// or, paired, for wg_micro_pair. Columns from n to ld are 0 or left alone.
INLINE void wg_pack(float *dst, long ld, const dpt_mat *m, long k0, long depth, long col, long n, int paired) {
#if HAVE_DPBF16
	if (paired) {
		for (long k = 0; k < depth; k += 2, dst += ld) wg_pairs((uint32_t *)dst, m, k0 + k, k0 + depth, col, n);
		return;
	}
#else
	(void)paired;
#endif
	for (long k = 0; k < depth; k++, dst += ld) {
		row from = at(m, k0 + k, col);
		EACH(n) storef(dst, j, VL, load(from, j, m));
	}
}

INLINE void wg_tile(const int M, long depth, const float *a, const float *b, float *c, long ldc, int paired) {
#if HAVE_DPBF16
	if (paired) {
		wg_micro_pair(M, (depth + 1) / 2, (const uint32_t *)a, (const uint32_t *)b, c, ldc);
		return;
	}
#else
	(void)paired;
#endif
	wg_micro(M, depth, a, b, c, ldc);
}

static void weight_gradient(const dpt_weight_gradient *a, long part, void *scratch) {
	float *dy = scratch, *x = dy + WG_DEPTH * WG_ROWS, *edge = x + WG_DEPTH * 2 * VL;
	long first = part * WG_ROWS, rows = a->out - first < WG_ROWS ? a->out - first : WG_ROWS;
	const int paired = a->bf16;
	for (long k0 = 0; k0 < a->n; k0 += WG_DEPTH) {
		long depth = a->n - k0 < WG_DEPTH ? a->n - k0 : WG_DEPTH;
		wg_pack(dy, WG_ROWS, &a->dy, k0, depth, first, rows, paired);
		for (long j0 = 0; j0 < a->in; j0 += 2 * VL) {
			long w = a->in - j0 < 2 * VL ? a->in - j0 : 2 * VL;
			if (w <= VL) // the panel's second half has no part in the result, but is computed
				memset(x, 0, 4 * WG_DEPTH * 2 * VL);
			wg_pack(x, 2 * VL, &a->x, k0, depth, j0, w, paired);
			float *c = (float *)at(&a->dw, first, j0).p;
			long ldc = a->dw.ld;
			if (w < 2 * VL) {
				memset(edge, 0, 4 * WG_ROWS * 2 * VL);
				for (long i = 0; i < rows; i++) copy((row){edge + i * 2 * VL, DPT_F32}, (row){c + i * ldc, DPT_F32}, w);
				c = edge;
				ldc = 2 * VL;
			}
			long i = 0;
			for (; i + MR <= rows; i += MR) wg_tile(MR, depth, dy + i, x, c + i * ldc, ldc, paired);
			for (; i + 4 <= rows; i += 4) wg_tile(4, depth, dy + i, x, c + i * ldc, ldc, paired);
			for (; i < rows; i++) wg_tile(1, depth, dy + i, x, c + i * ldc, ldc, paired);
			if (w < 2 * VL)
				for (i = 0; i < rows; i++) copy(at(&a->dw, first + i, j0), (row){edge + i * 2 * VL, DPT_F32}, w);
		}
	}
}

// dg += Σ dy∘x·r, for columns [from, to), at most 64 of them.
static void gain_gradient(const dpt_gain_gradient *a, long from, long to) {
	long n = to - from;
	float sum[64 + VL] = {0};
	copy((row){sum, DPT_F32}, at(&a->dg, 0, from), n);
	for (long i = 0; i < a->n; i++) {
		row dy = at(&a->dy, i, from), x = at(&a->x, i, from);
		float r = ((float *)a->r.p)[i * a->r.ld];
		EACH(n) storef(sum, j, m, loadf(sum, j, m) + load(dy, j, m) * load(x, j, m) * r);
	}
	copy(at(&a->dg, 0, from), (row){sum, DPT_F32}, n);
}

// bg_memory is the scratch memory of a head: see attn_memory.
typedef struct {
	float *ext;
	uint32_t *kt, *vt, *q, *dout;
	float *s, *ds;
} bg_memory;

static size_t bg_layout(bg_memory *x, void *base, const dpt_attn *a, long nq, long nk) {
	arena s = {base, 0};
	long keys = UP(nk, VL), depth = a->d;
	x->ext = take(&s, 4 * (nq + keys + VL));
	x->kt = take(&s, 4 * keys * depth);
	x->vt = take(&s, 4 * keys * depth);
	x->q = take(&s, 4 * QB * depth);
	x->dout = take(&s, 4 * QB * depth);
	x->s = take(&s, 4 * QB * keys);
	x->ds = take(&s, 4 * QB * keys);
	return s.used;
}

static size_t bias_gradient_scratch(const dpt_attn *a, long queries, long keys) {
	bg_memory x = {0};
	return bg_layout(&x, NULL, a, queries, keys);
}

// bias_gradient adds head h's gradient to a->dq, which is [heads, hi-lo+1] here: the gradient of
// the scores, as attention has it, by distance. Each row sums the many distances beyond the ends
// first, so that float32 sums stay short.
static void bias_gradient(const dpt_attn *a, long h, long segments, void *scratch) {
	long d = a->d, col = h * d;
	float *sum = at(&a->dq, h, 0).p;
	bg_memory x = {0};
	for (long part = 0; part < segments; part++) {
		const long *seg = a->segments + 5 * part;
		long q0 = seg[0], nq = seg[1], k0 = seg[2], nk = seg[3], offset = seg[4], keys = UP(nk, VL);
		bg_layout(&x, scratch, a, nq, nk);
		spread(x.ext, a, h, offset + nq - 1, nq - 1 + keys);
		for (long j = 0; j < keys; j += NR) {
			pack_columns(x.kt + j * d, least(NR, keys - j), &a->k, k0 + j, nk - j, col, d, 0);
			pack_columns(x.vt + j * d, least(NR, keys - j), &a->v, k0 + j, nk - j, col, d, 0);
		}
		for (long i = 0; i < nq; i += QB) {
			long rows = nq - i < QB ? nq - i : QB, pos = offset + i;
			long n = a->causal && pos + rows < nk ? pos + rows : nk, np = UP(n, VL);
			pack_rows(x.q, d, &a->q, q0 + i, rows, col, 0);
			pack_rows(x.dout, d, &a->dout, q0 + i, rows, col, 0);
			for (long j = 0; j < np; j += NR) {
				long w = least(NR, keys - j);
				multiply(0, rows, least(w, np - j), d, x.q, d, 1, x.kt + j * d, w, x.s + j, keys, 0);
				multiply(0, rows, least(w, np - j), d, x.dout, d, 1, x.vt + j * d, w, x.ds + j, keys, 0);
			}
			for (long r = 0; r < rows; r++) {
				long seen = a->causal && pos + r + 1 < n ? pos + r + 1 : n;
				row o = at(&a->out, q0 + i + r, col), dout = at(&a->dout, q0 + i + r, col);
				vf dot = {0};
				EACH(d) dot += load(o, j, m) * load(dout, j, m);
				float lse = ((float *)a->lse.p)[(q0 + i + r) * a->lse.ld + h], *g = x.ds + r * keys;
				softmax_backward(x.s + r * keys, g, (attn_row){x.ext + (nq - 1 - i - r), lse, sumv(dot), seen}, np, 1);
				// Key j's distance is j - (pos+r): those from `low` to `high` have a value each.
				long low = a->lo + pos + r + 1, high = a->hi + pos + r - 1;
				low = low < 0 ? 0 : low > seen ? seen : low;
				high = high + 1 < low ? low : high + 1 > seen ? seen : high + 1;
				float *to = sum + (low - (pos + r) - a->lo);
				vf below = {0}, above = {0};
				EACH(low) below += loadf(g, j, m);
				EACH(high - low) storef(to, j, m, loadf(to, j, m) + loadf(g + low, j, m));
				EACH(seen - high) above += loadf(g + high, j, m);
				sum[0] += sumv(below);
				sum[a->hi - a->lo] += sumv(above);
			}
		}
	}
}
