// A thin layer over oneDNN's C API, the same for versions 2 and 3: matrix products of one fixed
// shape on packed weights.

#ifndef DPT_GEMM_H
#define DPT_GEMM_H

#include <stdbool.h>
#include <stddef.h>

enum { DPT_F32 = 0, DPT_BF16 = 1 };

typedef struct dpt_dnnl dpt_dnnl;
typedef struct dpt_gemm dpt_gemm;
typedef struct dpt_packed dpt_packed;

// dpt_layout describes packed weights b[k,n] of type dt: element (i, j) is number (j/nb)*kpad*nb +
// (i/v)*nb*v + (j%nb)*v + i%v. Numbers for j beyond n or i beyond k are zero.
typedef struct {
	long k, n, kpad, nb, v;
	int dt;
} dpt_layout;

// Functions return NULL or nonzero on failure and leave the reason in dpt_dnnl_error, of which each
// thread has its own.
const char *dpt_dnnl_error(void);

// dpt_dnnl_version is the version of the library that runs, such as "2.6.3".
const char *dpt_dnnl_version(void);

// dpt_dnnl_open returns an engine for `workers` concurrent callers; oneDNN works for each on the
// caller's thread only.
dpt_dnnl *dpt_dnnl_open(int workers);
void dpt_dnnl_close(dpt_dnnl *d);

// dpt_gemm_new prepares y[m,n] = x[m,k]·b[k,n]. x and y are dense and row-major. b is packed as
// for `like`, unless that is NULL; else it is row-major with plain, and without packed in the
// library's choice of layout. x and b are of type src, y of type dst; products are summed in
// float32.
dpt_gemm *dpt_gemm_new(dpt_dnnl *d, long m, long k, long n, int src, int dst, bool plain, const dpt_gemm *like);
void dpt_gemm_free(dpt_gemm *g);
// dpt_gemm_info names the library's implementation.
const char *dpt_gemm_info(const dpt_gemm *g);
// dpt_gemm_scratch is how many bytes of 64-byte aligned scratch memory a run needs.
size_t dpt_gemm_scratch(const dpt_gemm *g);
// dpt_gemm_packed_size is the size of packed weights in bytes.
size_t dpt_gemm_packed_size(const dpt_gemm *g);
// dpt_gemm_layout reports whether a dpt_layout can describe the packed weights, and fills l if so.
int dpt_gemm_layout(const dpt_gemm *g, dpt_layout *l);
// dpt_gemm_run multiplies on the calling thread. No two callers use the same worker at a time.
int dpt_gemm_run(dpt_gemm *g, int worker, const void *x, const dpt_packed *b, void *y, void *scratch);

// dpt_pack packs b for g into memory of dpt_gemm_packed_size bytes that the caller owns. Element
// (i, j) of b is at w[i*rs + j*cs], one of which is 1.
dpt_packed *dpt_pack(const dpt_gemm *g, int worker, const float *w, long rs, long cs, void *memory);
// dpt_repack replaces the values of weights that dpt_pack made for g or one like it.
int dpt_repack(dpt_packed *p, const dpt_gemm *g, int worker, const float *w, long rs, long cs);
// dpt_packed_at makes a handle for b packed for g at memory, whatever its contents; dpt_packed_move
// points it at other memory.
dpt_packed *dpt_packed_at(const dpt_gemm *g, void *memory);
int dpt_packed_move(dpt_packed *p, void *memory);
void dpt_packed_free(dpt_packed *p);

#endif
