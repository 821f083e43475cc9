// Weights into and between the layouts of products; part of kernels_impl.h.

INLINE size_t place(const dpt_layout *l, long i, long j) {
	return (size_t)(j / l->nb) * l->kpad * l->nb + i / l->v * l->nb * l->v + j % l->nb * l->v + i % l->v;
}

INLINE size_t bytes(const dpt_layout *l) { return l->dt == DPT_F32 ? 4 : 2; }

// TILE rows and columns are moved at a time.
#define TILE 16

#if defined(__x86_64__) && VL == 16

// transpose32 transposes 16×16 words.
INLINE void transpose32(__m512i r[16]) {
	__m512i t[16];
	for (int i = 0; i < 16; i += 2) {
		t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
	}
	for (int i = 0; i < 16; i += 4) {
		r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
		r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
		r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
		r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
	// Lane l of r[4g+c] holds column 4l+c of the rows from 4g on.
	for (int c = 0; c < 4; c++) {
		__m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
		__m512i d = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd), e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
		t[c] = _mm512_shuffle_i32x4(a, b, 0x88);
		t[8 + c] = _mm512_shuffle_i32x4(a, b, 0xdd);
		t[4 + c] = _mm512_shuffle_i32x4(d, e, 0x88);
		t[12 + c] = _mm512_shuffle_i32x4(d, e, 0xdd);
	}
	for (int i = 0; i < 16; i++) r[i] = t[i];
}

// transpose64 transposes 8×8 double words.
INLINE void transpose64(__m512i r[8]) {
	__m512i t[8];
	for (int i = 0; i < 8; i += 2) {
		t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
	}
	for (int c = 0; c < 2; c++) {
		__m512i a = _mm512_shuffle_i64x2(t[c], t[2 + c], 0x88), b = _mm512_shuffle_i64x2(t[4 + c], t[6 + c], 0x88);
		__m512i d = _mm512_shuffle_i64x2(t[c], t[2 + c], 0xdd), e = _mm512_shuffle_i64x2(t[4 + c], t[6 + c], 0xdd);
		r[c] = _mm512_shuffle_i64x2(a, b, 0x88);
		r[4 + c] = _mm512_shuffle_i64x2(a, b, 0xdd);
		r[2 + c] = _mm512_shuffle_i64x2(d, e, 0x88);
		r[6 + c] = _mm512_shuffle_i64x2(d, e, 0xdd);
	}
}

// pack_tile packs rows w + j*ld, of TILE·v numbers, as columns: dst is where the first one's first
// number goes, whose neighbours follow; runs of rows are step bytes apart.
INLINE void pack_tile(char *dst, size_t step, const float *w, long ld, int dt) {
	__m512i r[16];
	for (int j = 0; j < 16; j++) {
		if (dt == DPT_F32) {
			r[j] = _mm512_loadu_si512(w + j * ld);
		} else {
			vh lo = to_bf16(loadf(w + j * ld, 0, VL)), hi = to_bf16(loadf(w + j * ld, VL, VL));
			r[j] = _mm512_inserti64x4(_mm512_castsi256_si512((__m256i)lo), (__m256i)hi, 1);
		}
	}
	transpose32(r);
	for (int i = 0; i < 16; i++) _mm512_storeu_si512(dst + i * step, r[i]);
}

// turn_tile transposes TILE × TILE numbers at src, whose runs of rows are from bytes apart, to
// dst, where they are to bytes apart.
INLINE void turn_tile(char *dst, size_t to, const char *src, size_t from, int dt) {
	__m512i r[16];
	if (dt == DPT_F32) {
		for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(src + i * from);
		transpose32(r);
		for (int i = 0; i < 16; i++) _mm512_storeu_si512(dst + i * to, r[i]);
		return;
	}
	// Words hold two rows. In a double word, (row 0, row 1) of two columns become (column 0, column
	// 1) of two rows.
	const __m512i swap = _mm512_set4_epi32(0x0f0e0b0a, 0x0d0c0908, 0x07060302, 0x05040100);
	for (int i = 0; i < 8; i++) r[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(src + i * from), swap);
	transpose64(r);
	for (int i = 0; i < 8; i++) _mm512_storeu_si512(dst + i * to, r[i]);
}

#define FAST_TILES 1

#endif

static void put(const dpt_layout *l, void *dst, long i, long j, float f) {
	size_t at = place(l, i, j);
	if (l->dt == DPT_F32)
		((float *)dst)[at] = f;
	else
		storeh((uint16_t *)dst, (long)at, 1, splat(f));
}

// tiled reports whether pack_tile and turn_tile fit a layout.
INLINE int tiled(const dpt_layout *l) { return l->nb % TILE == 0 && l->v == (l->dt == DPT_F32 ? 1 : 2); }

static void pack(const dpt_layout *to, void *dst, const float *w, long ld, long first, long last) {
	long end = last == to->n ? (last + to->nb - 1) / to->nb * to->nb : last; // with padding
	if (to->kpad != to->k || end != last) {
		for (long j = first; j < end; j++)
			for (long i = 0; i < to->kpad; i++) put(to, dst, i, j, 0);
	}
	long i0 = 0, j0 = first; // up to here columns j0 and their rows i0 are done by tiles
#ifdef FAST_TILES
	if (tiled(to)) {
		long deep = TILE * to->v;
		i0 = to->k / deep * deep;
		j0 = first + (last - first) / TILE * TILE;
		for (long j = first; j < j0; j += TILE)
			for (long i = 0; i < i0; i += deep)
				pack_tile((char *)dst + place(to, i, j) * bytes(to), to->nb * to->v * bytes(to), w + j * ld + i, ld, to->dt);
	}
#endif
	for (long j = first; j < last; j++)
		for (long i = j < j0 ? i0 : 0; i < to->k; i++) put(to, dst, i, j, w[j * ld + i]);
}

static void turn(const dpt_layout *from, const void *src, long i0, long j0, long rows, const dpt_layout *to, void *dst, long at) {
	size_t size = bytes(from);
	long done = 0, columns = 0; // by tiles
#ifdef FAST_TILES
	if (tiled(from) && tiled(to) && i0 % TILE == 0 && j0 % TILE == 0 && at % TILE == 0) {
		done = rows / TILE * TILE;
		columns = to->n / TILE * TILE;
		size_t step = from->nb * from->v * size, step2 = to->nb * to->v * size;
		for (long i = 0; i < done; i += TILE)
			for (long j = 0; j < columns; j += TILE)
				turn_tile((char *)dst + place(to, at + i, j) * size, step2, (const char *)src + place(from, i0 + j, j0 + i) * size, step, from->dt);
	}
#endif
	for (long i = 0; i < rows; i++)
		for (long j = i < done ? columns : 0; j < to->n; j++) {
			char *d = (char *)dst + place(to, at + i, j) * size;
			const char *s = (const char *)src + place(from, i0 + j, j0 + i) * size;
			if (size == 4)
				memcpy(d, s, 4);
			else
				memcpy(d, s, 2);
		}
}

#undef TILE
#undef FAST_TILES
