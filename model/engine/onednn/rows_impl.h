// Row-wise ops; part of kernels_impl.h.

static void norm_row(const dpt_rows *a, long i, row x) {
	long n = a->cols;
	vf s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
	long j = 0;
	for (; j + 4 * VL <= n; j += 4 * VL) {
		vf v0 = load(x, j, VL), v1 = load(x, j + VL, VL), v2 = load(x, j + 2 * VL, VL), v3 = load(x, j + 3 * VL, VL);
		s0 += v0 * v0;
		s1 += v1 * v1;
		s2 += v2 * v2;
		s3 += v3 * v3;
	}
	for (; j < n; j += VL) {
		vf v = load(x, j, n - j < VL ? n - j : VL);
		s0 += v * v;
	}
	float r = (float)(1 / sqrt((double)sumv((s0 + s1) + (s2 + s3)) / n + a->eps));
	((float *)a->r.p)[i * a->r.ld] = r;
	row y = at(&a->y, i, 0);
	EACH(n) store(y, j, m, load(x, j, m) * r * loadf(a->gain, j, m));
}

// y2 = x + x2, then y = norm(y2).
static void add_norm(const dpt_rows *a, long i) {
	row x = at(&a->x, i, 0), delta = at(&a->x2, i, 0), sum = at(&a->y2, i, 0);
	EACH(a->cols) store(sum, j, m, load(x, j, m) + load(delta, j, m));
	norm_row(a, i, sum);
}

// y += r·(g∘x2) − x·r³·mean(x∘g∘x2), where x2 is the gradient of the norm's result.
static void norm_backward(const dpt_rows *a, long i) {
	long n = a->cols;
	row x = at(&a->x, i, 0), dy = at(&a->x2, i, 0), dx = at(&a->y, i, 0);
	float r = ((float *)a->r.p)[i * a->r.ld];
	vf s0 = {0}, s1 = {0};
	long j = 0;
	for (; j + 2 * VL <= n; j += 2 * VL) {
		s0 += load(x, j, VL) * (loadf(a->gain, j, VL) * load(dy, j, VL));
		s1 += load(x, j + VL, VL) * (loadf(a->gain, j + VL, VL) * load(dy, j + VL, VL));
	}
	for (; j < n; j += VL) {
		long m = n - j < VL ? n - j : VL;
		s0 += load(x, j, m) * (loadf(a->gain, j, m) * load(dy, j, m));
	}
	float c = (float)((double)sumv(s0 + s1) / n * r * r * r);
	EACH(n) store(dx, j, m, load(dx, j, m) + (r * (loadf(a->gain, j, m) * load(dy, j, m)) - c * load(x, j, m)));
}

// store_positive sets the bits of the columns from the j-th on, a multiple of VL, to where v > 0.
INLINE void store_positive(uint8_t *bits, long j, vf v) {
#if defined(__x86_64__) && VL == 16
	uint16_t b = _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_GT_OQ);
	memcpy(bits + j / 8, &b, 2);
#elif defined(__x86_64__) && VL == 8
	bits[j / 8] = (uint8_t)_mm256_movemask_ps((__m256)(v > 0.0f));
#else
	vi gt = v > 0.0f;
	int b = 0;
	for (int l = 0; l < VL; l++) b |= (gt[l] & 1) << l;
	bits[j / 8] = (uint8_t)(j % 8 ? bits[j / 8] | b << j % 8 : b);
#endif
}

// keep_positive is v where the bit is set, else 0.
INLINE vf keep_positive(const uint8_t *bits, long j, vf v) {
#if defined(__x86_64__) && VL == 16
	uint16_t b;
	memcpy(&b, bits + j / 8, 2);
	return (vf)_mm512_maskz_mov_ps(b, (__m512)v);
#else
	vi lane;
	for (int l = 0; l < VL; l++) lane[l] = 1 << l;
	int32_t b = bits[j / 8] >> j % 8;
	return (vf)((vi)v & ((((vi){0} + b) & lane) != 0));
#endif
}

// y = max(x, 0), and NaN for NaN.
static void relu(const dpt_rows *a, long i) {
	row x = at(&a->x, i, 0), y = at(&a->y, i, 0);
	uint8_t *bits = a->bits.p ? a->bits.p + i * a->bits.ld : NULL;
	EACH(a->cols) {
		vf v = load(x, j, m);
		if (bits) store_positive(bits, j, v);
		store(y, j, m, blend(v <= 0.0f, splat(0), v));
	}
}

// y = x where the bits are set.
static void relu_backward(const dpt_rows *a, long i) {
	row dy = at(&a->x, i, 0), dx = at(&a->y, i, 0);
	const uint8_t *bits = a->bits.p + i * a->bits.ld;
	EACH(a->cols) store(dx, j, m, keep_positive(bits, j, load(dy, j, m)));
}

#define GELU_SCALE 0.7978845608028653559f // sqrt(2/π)
#define GELU_CUBIC 0.044715f

// y = gelu(x[:cols]) ∘ x[cols:].
static void gated_gelu(const dpt_rows *a, long i) {
	row x = at(&a->x, i, 0), up = at(&a->x, i, a->cols), y = at(&a->y, i, 0);
	EACH(a->cols) {
		vf v = load(x, j, m);
		vf t = tanhv(GELU_SCALE * (v + GELU_CUBIC * v * v * v));
		store(y, j, m, 0.5f * v * (1 + t) * load(up, j, m));
	}
}

// y [2·cols] from the gradient x [cols] and the forward input x2 [2·cols].
static void gated_gelu_backward(const dpt_rows *a, long i) {
	row dy = at(&a->x, i, 0), x = at(&a->x2, i, 0), up = at(&a->x2, i, a->cols), dx = at(&a->y, i, 0), dup = at(&a->y, i, a->cols);
	EACH(a->cols) {
		vf v = load(x, j, m), d = load(dy, j, m), u = load(up, j, m);
		vf t = tanhv(GELU_SCALE * (v + GELU_CUBIC * v * v * v));
		vf du = GELU_SCALE * (1 + 3 * GELU_CUBIC * v * v);
		store(dx, j, m, d * u * (0.5f * (1 + t) + 0.5f * v * (1 - t * t) * du));
		store(dup, j, m, d * (0.5f * v * (1 + t)));
	}
}

// sigmoidv is 1 / (1 + e⁻ˣ); below −88.3 it stays at expv's end, about 5e-39.
INLINE vf sigmoidv(vf x) { return 1 / (1 + expv(-x)); }

// y = silu(x[:cols]) ∘ x[cols:].
static void gated_silu(const dpt_rows *a, long i) {
	row x = at(&a->x, i, 0), up = at(&a->x, i, a->cols), y = at(&a->y, i, 0);
	EACH(a->cols) {
		vf v = load(x, j, m);
		store(y, j, m, v * sigmoidv(v) * load(up, j, m));
	}
}

// y [2·cols] from the gradient x [cols] and the forward input x2 [2·cols].
static void gated_silu_backward(const dpt_rows *a, long i) {
	row dy = at(&a->x, i, 0), x = at(&a->x2, i, 0), up = at(&a->x2, i, a->cols), dx = at(&a->y, i, 0), dup = at(&a->y, i, a->cols);
	EACH(a->cols) {
		vf v = load(x, j, m), d = load(dy, j, m), u = load(up, j, m);
		vf s = sigmoidv(v);
		store(dx, j, m, d * u * (s * (1 + v * (1 - s))));
		store(dup, j, m, d * (v * s));
	}
}

INLINE float element(row r, long j) {
	float f;
	if (r.dt == DPT_F32) return ((float *)r.p)[j];
	uint32_t u = (uint32_t)((uint16_t *)r.p)[j] << 16;
	memcpy(&f, &u, 4);
	return f;
}

static float maximum(row x, long n) {
	vf best = splat(-INFINITY);
	EACH(n) best = maxv(blend(lanes(m), load(x, j, m), splat(-INFINITY)), best);
	return maxlane(best);
}

// r = log Σ exp(x), y = r − x[id].
static void cross_entropy(const dpt_rows *a, long i) {
	row x = at(&a->x, i, 0), y = at(&a->y, i, 0);
	float top = maximum(x, a->cols);
	double sum = 0;
	for (long b = 0; b < a->cols; b += 64 * VL) { // in pieces, so that float32 sums stay short
		long n = a->cols - b < 64 * VL ? a->cols - b : 64 * VL;
		row part = at(&a->x, i, b);
		vf s = {0};
		EACH(n) s += blend(lanes(m), expv(load(part, j, m) - top), splat(0));
		sum += sumv(s);
	}
	double lse = top + log(sum);
	((float *)a->r.p)[i * a->r.ld] = (float)lse;
	store(y, 0, 1, splat((float)(lse - element(x, a->ids[i]))));
}

// y = exp(x − r), less 1 at the target.
static void cross_entropy_backward(const dpt_rows *a, long i) {
	row x = at(&a->x, i, 0), y = at(&a->y, i, 0);
	float lse = ((float *)a->r.p)[i * a->r.ld];
	float target = element(x, a->ids[i]);
	EACH(a->cols) store(y, j, m, expv(load(x, j, m) - lse));
	row t = at(&a->y, i, a->ids[i]);
	store(t, 0, 1, expv(splat(target - lse)) - 1);
}

INLINE void copy(row y, row x, long n) {
	EACH(n) store(y, j, m, load(x, j, m));
}

static int32_t argmax(row x, long n) {
	long best = 0;
	float top = element(x, 0);
	for (long b = 0; b < n; b += VL) { // a vector that holds nothing new is passed over whole
		long m = n - b < VL ? n - b : VL;
		vf v = blend(lanes(m), load(x, b, m), splat(-INFINITY));
		vi news = (v > top) | (v != v);
		int32_t any = 0, flags[VL];
		memcpy(flags, &news, sizeof flags);
		for (int l = 0; l < VL; l++) any |= flags[l];
		if (!any && b) continue;
		for (long l = b; l < b + m; l++) {
			float f = element(x, l);
			if (f != f) return -1;
			if (f > top) {
				top = f;
				best = l;
			}
		}
	}
	return (int32_t)best;
}

static void rows(const dpt_rows *a, long from, long to) {
	for (long i = from; i < to; i++) {
		switch (a->op) {
		case DPT_COPY: copy(at(&a->y, i, 0), at(&a->x, i, 0), a->cols); break;
		case DPT_ADD: {
			row x = at(&a->x, i, 0), y = at(&a->y, i, 0);
			EACH(a->cols) store(y, j, m, load(y, j, m) + load(x, j, m));
			break;
		}
		case DPT_ZERO: memset(at(&a->y, i, 0).p, 0, a->cols * (a->y.dt == DPT_F32 ? 4 : 2)); break;
		case DPT_SCALE: {
			row y = at(&a->y, i, 0);
			float s = (float)a->s;
			EACH(a->cols) store(y, j, m, load(y, j, m) * s);
			break;
		}
		case DPT_NORM: norm_row(a, i, at(&a->x, i, 0)); break;
		case DPT_ADD_NORM: add_norm(a, i); break;
		case DPT_NORM_BACKWARD: norm_backward(a, i); break;
		case DPT_RELU: relu(a, i); break;
		case DPT_RELU_BACKWARD: relu_backward(a, i); break;
		case DPT_GATED_GELU: gated_gelu(a, i); break;
		case DPT_GATED_GELU_BACKWARD: gated_gelu_backward(a, i); break;
		case DPT_GATED_SILU: gated_silu(a, i); break;
		case DPT_GATED_SILU_BACKWARD: gated_silu_backward(a, i); break;
		case DPT_CROSS_ENTROPY: cross_entropy(a, i); break;
		case DPT_CROSS_ENTROPY_BACKWARD: cross_entropy_backward(a, i); break;
		case DPT_EMBED: copy(at(&a->y, i, 0), a->ids[i] >= 0 ? at(&a->x, a->ids[i], 0) : at(&a->x2, ~a->ids[i], 0), a->cols); break;
		case DPT_GATHER: copy(at(&a->y, i, 0), at(&a->x, a->ids[i], 0), a->cols); break;
		case DPT_SCATTER: copy(at(&a->y, a->ids[i], 0), at(&a->x, i, 0), a->cols); break;
		case DPT_ARGMAX: a->out[i] = argmax(at(&a->x, i, 0), a->cols); break;
		}
	}
}

// Sums are kept in float32, whatever dprompt is.
static void embed_backward(const dpt_embed_backward *a, long from, long to, void *scratch) {
	float *sum = scratch;
	long n = to - from;
	for (long c = 0; c < a->prompt_rows; c++) copy((row){sum + c * 64, DPT_F32}, at(&a->dprompt, c, from), n);
	for (long i = 0; i < a->n; i++) {
		if (a->ids[i] >= 0) continue;
		float *s = sum + (long)~a->ids[i] * 64;
		row x = at(&a->dx, i, from);
		EACH(n) storef(s, j, m, loadf(s, j, m) + load(x, j, m));
	}
	for (long c = 0; c < a->prompt_rows; c++) copy(at(&a->dprompt, c, from), (row){sum + c * 64, DPT_F32}, n);
}
