// Attention; part of kernels_impl.h.
//
// One part is one head of one segment. Queries run in blocks; a block's scores exist in float32.
// Keys and values are packed once, each panel just before the first block needs it.

// QF and QB are the queries in a block of forward and backward, WIDE those of a head so wide that
// packing costs more than scores that do not stay in cache. Each is a multiple of 2 and of every
// MR.
#define QF 24
#define QB 48
#define WIDE 96

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
	long block;           // queries in one
	long ld;              // of scores
	int once;             // there is only one block: panels of keys and values share one place
	float *ext;           // bias by distance, from queries-1 below key 0 up
	uint32_t *kt, *vt;    // panels: columns are keys
	uint32_t *kp;         // panels: rows are keys, in forward those of v
	uint32_t *q, *dout;   // words [block, depth]
	uint32_t *qp, *doutp; // a panel: rows are queries of the block
	float *s, *ds;        // [block, ld]
	uint16_t *sh;         // bfloat16, in forward of s, in backward of ds
	uint32_t *st, *dst;   // s and ds in pairs of queries [block/2, ld]
	float *o;             // [block, columns]
	float *dk, *dv;       // [keys, columns]
} attn_memory;

static size_t attn_layout(attn_memory *x, void *base, const dpt_attn *a, long nq, long nk) {
	arena s = {base, 0};
	long paired = PAIRED(a), keys = UP(nk, VL), cols = UP(a->d, VL), depth = paired ? a->d / 2 : a->d, steps = paired ? (nk + 1) / 2 : nk;
	long block = x->block = a->d > 4 * NR ? WIDE : a->backward ? QB : QF;
	x->once = nq <= block;
	// Rows an odd number of vectors apart do not compete for the same places in cache.
	x->ld = keys + (keys / VL % 2 ? 0 : VL);
	x->ext = take(&s, a->bias ? 4 * (nq + keys + VL) : 0);
	x->kt = take(&s, 4 * depth * (x->once ? NR : keys));
	x->kp = take(&s, 4 * steps * (x->once ? NR : cols));
	x->q = take(&s, 4 * block * depth);
	x->s = take(&s, 4 * block * x->ld);
	x->sh = take(&s, paired ? 2 * block * x->ld : 0);
	x->o = take(&s, 4 * block * cols);
	if (!a->backward) return s.used;
	x->vt = take(&s, a->shared ? 0 : 4 * depth * (x->once ? NR : keys));
	if (a->shared) x->vt = x->kt;
	x->dout = take(&s, 4 * block * depth);
	x->qp = take(&s, 4 * block * NR);
	x->doutp = take(&s, 4 * block * NR);
	x->ds = take(&s, 4 * block * x->ld);
	x->st = take(&s, paired ? 2 * block * x->ld : 0);
	x->dst = take(&s, paired ? 2 * block * x->ld : 0);
	x->dk = take(&s, 4 * keys * cols);
	x->dv = take(&s, a->shared ? 0 : 4 * keys * cols);
	if (a->shared) x->dv = x->dk;
	return s.used;
}

static size_t attention_scratch(const dpt_attn *a, long queries, long keys) {
	// A segment of one block may need more than one of several blocks: its panel is NR wide even if
	// there are fewer keys or columns.
	attn_memory x = {0};
	size_t several = attn_layout(&x, NULL, a, queries, keys);
	size_t one = attn_layout(&x, NULL, a, least(queries, x.block), keys);
	return several > one ? several : one;
}

// exp_score is eˣ as expv has it, within 2e-7, or 3e-6 where the result becomes bfloat16.
INLINE vf exp_score(vf x, const int paired) {
	const float round = 1.5f * (1 << 23) + 127, ln2Hi = 0.693359375f, ln2Lo = -2.12194440054690583e-4f, log2e = 1.44269504088896340736f;
	x = maxv(splat(-87.3f), x);
	vf n = x * log2e + round;
	vf scale = (vf)((vi)n << 23);
	n -= round;
	if (paired) { // 2ʳ
		vf r = x * log2e - n;
		vf p = r * 0.009582845494151115f + 0.0559065043926239f;
		p = p * r + 0.24024099111557007f;
		p = p * r + 0.6931241750717163f;
		return (p * r + 1) * scale;
	}
	vf r = (x - n * ln2Hi) - n * ln2Lo;
	vf p = r * 0.008312520571053028f + 0.041890159249305725f;
	p = p * r + 0.16667114198207855f;
	p = p * r + 0.499992311000824f;
	p = p * r + 1;
	return (p * r + 1) * scale;
}

// across joins the lanes of each of the vectors v[0], v[1] … into a lane of the result, in FOLD's
// order; those from the n-th on are 0.
INLINE vf across(const vf *v, long n, const int max) {
	vu t[VL];
	UNROLL
	for (int i = 0; i < VL; i++) t[i] = i < n ? (vu)v[i] : (vu){0};
	transpose(t);
	UNROLL
	for (int s = VL / 2; s; s /= 2) {
		UNROLL
		for (int i = 0; i < s; i++) t[i] = (vu)(max ? maxv((vf)t[i], (vf)t[i + s]) : (vf)t[i] + (vf)t[i + s]);
	}
	return (vf)t[0];
}

// top's lanes hold the maximum of n scores and their biases.
INLINE vf top(const float *s, const float *ext, long n) {
	vf most = splat(-INFINITY);
	long full = n / VL * VL;
	if (ext)
		for (long j = 0; j < full; j += VL) most = maxv(loadf(s, j, VL) + loadf(ext, j, VL), most);
	else
		for (long j = 0; j < full; j += VL) most = maxv(loadf(s, j, VL), most);
	if (full < n) {
		vf v = loadf(s, full, VL);
		if (ext) v += loadf(ext, full, n - full);
		most = maxv(blend(lanes(n - full), v, splat(-INFINITY)), most);
	}
	return most;
}

// softmax_forward turns a row of scores, n of them visible, into the exponentials of their
// differences to `top`, in bfloat16 at h when paired, and 0 from n up to keys. The lanes of the
// result sum to the sum of the exponentials.
INLINE vf softmax_forward(float *s, uint16_t *h, const float *ext, float top, long n, long keys, const int paired, const int biased) {
	vf sum = {0};
	long j = 0;
	for (; j + VL <= n; j += VL) {
		vf v = loadf(s, j, VL);
		if (biased) v += loadf(ext, j, VL);
		v = exp_score(v - top, paired);
		sum += v;
		if (paired)
			storeh(h, j, VL, v);
		else
			storef(s, j, VL, v);
	}
	for (; j < keys; j += VL) {
		vf v = {0};
		if (j < n) {
			v = loadf(s, j, VL);
			if (biased) v += loadf(ext, j, n - j);
			v = blend(lanes(n - j), exp_score(v - top, paired), splat(0));
			sum += v;
		}
		if (paired)
			storeh(h, j, VL, v);
		else
			storef(s, j, VL, v);
	}
	return sum;
}

// probability turns VL scores at s, biases at ext and probabilities' gradients at ds into
// probabilities p and the scores' gradients g = p∘(ds − d).
INLINE void probability(vf *p, vf *g, const float *s, const float *ds, const float *ext, float lse, float d, long j, long n, const int paired, const int biased) {
	vf v = loadf(s, j, VL);
	if (biased) v += loadf(ext, j, VL);
	v = exp_score(v - lse, paired);
	vf w = v * (loadf(ds, j, VL) - d);
	if (__builtin_expect(n - j < VL, 0)) { // also where s holds padding
		v = blend(lanes(n - j), v, splat(0));
		w = blend(lanes(n - j), w, splat(0));
	}
	*p = v;
	*g = w;
}

// attn_row holds what softmax_backward needs of a query.
typedef struct {
	const float *ext;
	float lse, d; // d is dout·out
	long seen;    // keys
} attn_row;

// softmax_backward turns a row of scores into probabilities and ds, the gradient of these, into
// that of the scores.
INLINE void softmax_backward(float *s, float *ds, attn_row r, long keys, const int biased) {
	for (long j = 0; j < keys; j += VL) {
		vf p, g;
		probability(&p, &g, s, ds, r.ext, r.lse, r.d, j, r.seen, 0, biased);
		storef(s, j, VL, p);
		storef(ds, j, VL, g);
	}
}

#if HAVE_DPBF16
// softmax_backward_pair is softmax_backward on two rows, ld apart, in bfloat16: the scores'
// gradients in dh, row by row, and both results in pairs of the two rows, in st and dst.
INLINE void softmax_backward_pair(const float *s, const float *ds, long ld, uint16_t *dh, uint32_t *st, uint32_t *dst, attn_row r0, attn_row r1, long keys, const int biased) {
	static const uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
	__m512i interleave = _mm512_loadu_si512(order);
	for (long j = 0; j < keys; j += VL) {
		vf p0, g0, p1, g1;
		probability(&p0, &g0, s, ds, r0.ext, r0.lse, r0.d, j, r0.seen, 1, biased);
		probability(&p1, &g1, s + ld, ds + ld, r1.ext, r1.lse, r1.d, j, r1.seen, 1, biased);
		__m512i p = (__m512i)_mm512_cvtne2ps_pbh((__m512)p1, (__m512)p0), g = (__m512i)_mm512_cvtne2ps_pbh((__m512)g1, (__m512)g0);
		_mm256_storeu_si256((void *)(dh + j), _mm512_castsi512_si256(g));
		_mm256_storeu_si256((void *)(dh + ld + j), _mm512_extracti64x4_epi64(g, 1));
		_mm512_storeu_si512(st + j, _mm512_permutexvar_epi16(interleave, p));
		_mm512_storeu_si512(dst + j, _mm512_permutexvar_epi16(interleave, g));
	}
}
#endif

// spread fills ext with head h's bias by distance: ext[i] is that of distance i − below, for n
// distances.
static void spread(float *ext, const dpt_attn *a, long h, long below, long n) {
	long span = a->hi - a->lo + 1;
	const float *v = a->bias + h * span;
	for (long i = 0; i < n; i++) {
		long t = i - below;
		t = t < a->lo ? a->lo : t > a->hi ? a->hi : t;
		ext[i] = v[t - a->lo];
	}
}

// attn_block is a block of a part's queries.
typedef struct {
	long first, rows; // from the segment's first on
	long n, np;       // keys that some of its queries see, and these in whole vectors
	long seen[WIDE];  // keys that each sees
	float *lse[WIDE];
} attn_block;

INLINE const float *bias_row(const attn_memory *x, long nq, long i) { return x->ext ? x->ext + (nq - 1 - i) : NULL; }

// block_forward turns a block's scores into exponentials, and fills sums with theirs.
INLINE void block_forward(const attn_memory *x, const attn_block *b, long nq, float *sums, const int paired, const int biased) {
	float tops[WIDE];
	vf v[WIDE];
	for (long r = 0; r < b->rows; r++) v[r] = top(x->s + r * x->ld, bias_row(x, nq, b->first + r), b->seen[r]);
	for (long r = 0; r < b->rows; r += VL) storef(tops, r, least(VL, b->rows - r), across(v + r, b->rows - r, 1));
	for (long r = 0; r < b->rows; r++)
		v[r] = softmax_forward(x->s + r * x->ld, paired ? x->sh + r * x->ld : NULL, bias_row(x, nq, b->first + r), tops[r], b->seen[r], b->np, paired, biased);
	for (long r = 0; r < b->rows; r += VL) {
		long m = least(VL, b->rows - r);
		float lse[VL];
		vf sum = across(v + r, m, 0);
		storef(sums, r, m, sum);
		storef(lse, 0, VL, loadf(tops, r, m) + logv(sum));
		for (long i = 0; i < m; i++) *b->lse[r + i] = lse[i];
	}
}

// block_backward turns a block's scores and their gradients into the operands of backward's three
// products.
INLINE void block_backward(const dpt_attn *a, const attn_memory *x, const attn_block *b, long q0, long nq, long col, const int paired, const int biased) {
	attn_row rows[WIDE + 1];
	vf v[WIDE];
	float d[WIDE];
	for (long r = 0; r < b->rows; r++) {
		row o = at(&a->out, q0 + b->first + r, col), dout = at(&a->dout, q0 + b->first + r, col);
		vf dot = {0};
		EACH(a->d) dot += load(o, j, m) * load(dout, j, m);
		v[r] = dot;
	}
	for (long r = 0; r < b->rows; r += VL) storef(d, r, least(VL, b->rows - r), across(v + r, b->rows - r, 0));
	for (long r = 0; r < b->rows; r++) rows[r] = (attn_row){bias_row(x, nq, b->first + r), *b->lse[r], d[r], b->seen[r]};
	long ld = x->ld;
#if HAVE_DPBF16
	if (paired) {
		rows[b->rows] = rows[b->rows - 1]; // an odd last row is paired with one that sees nothing
		rows[b->rows].seen = 0;
		for (long r = 0; r < b->rows; r += 2)
			softmax_backward_pair(x->s + r * ld, x->ds + r * ld, ld, x->sh + r * ld, x->st + r / 2 * ld, x->dst + r / 2 * ld, rows[r], rows[r + 1], b->np, biased);
		return;
	}
#endif
	for (long r = 0; r < b->rows; r++) softmax_backward(x->s + r * ld, x->ds + r * ld, rows[r], b->np, biased);
}

// prefetch_block prefetches what a block of queries will read and write.
INLINE void prefetch_block(const dpt_attn *a, long q0, long nq, long i, long block, long col) {
	long from = q0 + least(nq, i), to = q0 + least(nq, i + block);
	prefetch(&a->q, from, to, col, a->d);
	prefetch(&a->out, from, to, col, a->d);
	if (!a->backward) return;
	prefetch(&a->dout, from, to, col, a->d);
	prefetch(&a->dq, from, to, col, a->d);
}

static void attention(const dpt_attn *a, long part, void *scratch) {
	long h = part % a->heads, d = a->d, col = h * d;
	const long *seg = a->segments + 5 * (part / a->heads);
	long q0 = seg[0], nq = seg[1], k0 = seg[2], nk = seg[3], offset = seg[4];
	const int paired = PAIRED(a), backward = a->backward;
	attn_memory x = {0};
	attn_layout(&x, scratch, a, nq, nk);
	long keys = UP(nk, VL), cols = UP(d, VL), depth = paired ? d / 2 : d, steps = paired ? (nk + 1) / 2 : nk, ld = x.ld;
	if (!a->bias) x.ext = NULL;
	if (a->bias) spread(x.ext, a, h, offset + nq - 1, nq - 1 + keys); // query i's distances go from -(offset+i) up

	prefetch_block(a, q0, nq, 0, x.block, col);
	if (backward && a->causal) { // keys that a block does not see have sums of nothing so far
		memset(x.dk, 0, 4 * keys * cols);
		memset(x.dv, 0, 4 * keys * cols);
	}
	long packed = 0; // keys
	for (long i = 0; i < nq; i += x.block) {
		attn_block b; // its arrays are long, and mostly not needed
		b.first = i, b.rows = least(nq - i, x.block), b.n = nk;
		long pos = offset + i;
		if (a->causal) b.n = least(nk, pos + b.rows);
		b.np = UP(b.n, VL);
		for (long r = 0; r < b.rows; r++) {
			b.seen[r] = a->causal ? least(b.n, pos + r + 1) : b.n;
			b.lse[r] = (float *)a->lse.p + (q0 + i + r) * a->lse.ld + h;
		}

		pack_rows(x.q, depth, &a->q, q0 + i, b.rows, col, paired);
		if (backward) pack_rows(x.dout, depth, &a->dout, q0 + i, b.rows, col, paired);
		for (long j = 0; j < b.np; j += NR) {
			long w = least(NR, keys - j), n = least(w, b.np - j), place = x.once ? 0 : j * depth;
			if (j >= packed) {
				pack_columns(x.kt + place, w, &a->k, k0 + j, nk - j, col, depth, paired);
				if (backward && !a->shared) pack_columns(x.vt + place, w, &a->v, k0 + j, nk - j, col, depth, paired);
				packed = j + w;
				prefetch(&a->k, k0 + least(nk, packed), k0 + least(nk, packed + NR), col, d);
				if (!a->shared) prefetch(&a->v, k0 + least(nk, packed), k0 + least(nk, packed + NR), col, d);
			}
			multiply(paired, b.rows, n, depth, x.q, depth, 1, x.kt + place, w, x.s + j, ld, 0);
			if (backward) multiply(paired, b.rows, n, depth, x.dout, depth, 1, x.vt + place, w, x.ds + j, ld, 0);
		}
		prefetch_block(a, q0, nq, i + x.block, x.block, col);

		float sums[WIDE];
		if (!backward && x.ext)
			block_forward(&x, &b, nq, sums, paired, 1);
		else if (!backward)
			block_forward(&x, &b, nq, sums, paired, 0);
		else if (x.ext)
			block_backward(a, &x, &b, q0, nq, col, paired, 1);
		else
			block_backward(a, &x, &b, q0, nq, col, paired, 0);

		const void *left = paired ? (void *)x.sh : backward ? x.ds : x.s;
		for (long j = 0; j < cols; j += NR) {
			long w = least(NR, cols - j);
			uint32_t *panel = x.kp + (x.once ? 0 : j * steps);
			if (i == 0) pack_panel(panel, w, backward ? &a->k : &a->v, k0, nk, col + j, d - j, paired);
			multiply(paired, b.rows, w, paired ? (b.n + 1) / 2 : b.n, left, paired ? ld / 2 : ld, 1, panel, w, x.o + j, cols, 0);
		}
		for (long r = 0; r < b.rows; r++) {
			row y = at(backward ? &a->dq : &a->out, q0 + i + r, col);
			float scale = backward ? 1 : 1 / sums[r];
			EACH(d) store(y, j, m, loadf(x.o + r * cols, j, m) * scale);
		}
		if (!backward) continue;

		const void *pt = paired ? (void *)x.st : x.s, *dst = paired ? (void *)x.dst : x.ds;
		for (long j = 0; j < cols; j += NR) {
			long w = least(NR, cols - j), qsteps = paired ? (b.rows + 1) / 2 : b.rows;
			pack_panel(x.qp, w, &a->q, q0 + i, b.rows, col + j, d - j, paired);
			pack_panel(x.doutp, w, &a->dout, q0 + i, b.rows, col + j, d - j, paired);
			multiply(paired, b.n, w, qsteps, dst, 1, ld, x.qp, w, x.dk + j, cols, i > 0 || a->causal);
			multiply(paired, b.n, w, qsteps, pt, 1, ld, x.doutp, w, x.dv + j, cols, i > 0 || a->causal || a->shared);
		}
	}
	if (!backward) return;
	for (long i = 0; i < nk; i++) {
		row y = at(&a->dk, k0 + i, col);
		if (a->shared) {
			EACH(d) store(y, j, m, load(y, j, m) + loadf(x.dk + i * cols, j, m));
			continue;
		}
		copy(y, (row){x.dk + i * cols, DPT_F32}, d);
		copy(at(&a->dv, k0 + i, col), (row){x.dv + i * cols, DPT_F32}, d);
	}
}
