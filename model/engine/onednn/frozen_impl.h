// Products with packed weights; part of kernels_impl.h.
//
// Weights lie in panels of PANEL columns (see dpt_layout). A tile of TALL rows and one panel has
// its sums in registers, along the whole depth in order, each in one accumulator: an element's bits
// depend on nothing but its row and its column. On two vector units of 512 bits that keeps both
// busy but for the tile's ends: per step along the depth 24 multiplications take 4 loads of weights
// and 6 of rows.

#if defined(__x86_64__) && VL == 16

#define TALL 6
#define PANEL DPT_PANEL

// frozen_store writes, or adds, M rows of sums, n columns of them.
INLINE void frozen_store(const int M, vf s[TALL][4], const dpt_mat *y, long n, int add) {
	if (n == PANEL) {
		UNROLL
		for (int i = 0; i < M; i++) {
			row out = at(y, i, 0);
			UNROLL
			for (int j = 0; j < 4; j++) store(out, j * VL, VL, add ? load(out, j * VL, VL) + s[i][j] : s[i][j]);
		}
		return;
	}
	float t[TALL][PANEL];
	UNROLL
	for (int i = 0; i < M; i++) {
		UNROLL
		for (int j = 0; j < 4; j++) storef(t[i], j * VL, VL, s[i][j]);
	}
	for (int i = 0; i < M; i++) {
		row out = at(y, i, 0);
		EACH(n) store(out, j, m, add ? load(out, j, m) + loadf(t[i], j, m) : loadf(t[i], j, m));
	}
}

// frozen_tile multiplies M rows of x, of `depth` words and `step` bytes apart, with the panel at w.
INLINE void frozen_tile(const int M, const int paired, long depth, const char *x, long step, const float *w, const dpt_mat *y, long n, int add) {
	vf s[TALL][4];
	UNROLL
	for (int i = 0; i < M; i++) {
		UNROLL
		for (int j = 0; j < 4; j++) s[i][j] = splat(0);
	}
	for (long k = 0; k < depth; k++, x += 4, w += PANEL) {
		vf b[4];
		UNROLL
		for (int j = 0; j < 4; j++) b[j] = loadf(w, j * VL, VL);
		UNROLL
		for (int i = 0; i < M; i++) {
			int word;
			memcpy(&word, x + i * step, 4);
			vf a = (vf)_mm512_set1_epi32(word);
			__asm__("" : "+v"(a)); // one load for four multiplications, not one each
			UNROLL
			for (int j = 0; j < 4; j++) {
#if HAVE_DPBF16
				if (paired) {
					s[i][j] = (vf)_mm512_dpbf16_ps((__m512)s[i][j], (__m512bh)a, (__m512bh)b[j]);
					continue;
				}
#endif
				s[i][j] += a * b[j];
			}
		}
	}
	frozen_store(M, s, y, n, add);
}

#define FROZEN_TILE(name, M, paired)                                                                                                   \
	static __attribute__((noinline)) void name(long depth, const char *x, long step, const float *w, const dpt_mat *y, long n, int add) { \
		frozen_tile(M, paired, depth, x, step, w, y, n, add);                                                                   \
	}

// FROZEN defines a product of `rows` rows and `cols` columns.
#define FROZEN(name, paired)                                                                                              \
	FROZEN_TILE(name##_1, 1, paired)                                                                                  \
	FROZEN_TILE(name##_2, 2, paired)                                                                                  \
	FROZEN_TILE(name##_3, 3, paired)                                                                                  \
	FROZEN_TILE(name##_4, 4, paired)                                                                                  \
	FROZEN_TILE(name##_5, 5, paired)                                                                                  \
	FROZEN_TILE(name##_6, 6, paired)                                                                                  \
	static void name(const dpt_product *p, long rows, long cols) {                                                    \
		static void (*const tiles[])(long, const char *, long, const float *, const dpt_mat *, long, int) = {     \
			NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};                                \
		long step = p->x.ld * (paired ? 2 : 4), depth = paired ? (p->k + 1) / 2 : p->k;                           \
		const float *w = p->w;                                                                                    \
		for (long j = 0; j < cols; j += PANEL, w += depth * PANEL)                                                \
			for (long i = 0, m; i < rows; i += m) {                                                           \
				dpt_mat y = {at(&p->y, i, j).p, p->y.ld, p->y.dt};                                        \
				m = least(TALL, rows - i);                                                                \
				tiles[m](depth, at(&p->x, i, 0).p, step, w, &y, least(PANEL, cols - j), p->add);          \
			}                                                                                                 \
	}

FROZEN(frozen_f32, 0)
#if HAVE_DPBF16
FROZEN(frozen_bf16, 1)
#define PRODUCTS {frozen_f32, frozen_bf16}
#else
#define PRODUCTS {frozen_f32}
#endif

#else
#define PRODUCTS {0}
#endif
