//go:build onednn && cgo

#define _GNU_SOURCE
#include "gemm.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_include) && __has_include(<oneapi/dnnl/dnnl.h>)
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>
#else
#include <dnnl.h>
#include <dnnl_debug.h>
#endif

#if DNNL_VERSION_MAJOR < 2
#error "oneDNN 2 or 3 is needed"
#endif

// A memory descriptor is a struct in version 2 and a handle in version 3.
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t md_ref;
#define MD(md) (md)
#else
typedef const dnnl_memory_desc_t *md_ref;
#define MD(md) (&(md))
#endif

struct dpt_dnnl {
	dnnl_engine_t engine;
	int workers;
	dnnl_stream_t *streams;
};

struct dpt_gemm {
	dpt_dnnl *d;
	dnnl_primitive_desc_t pd;
	dnnl_primitive_t primitive;
	md_ref weights, scratchpad; // owned by pd
	int dt; // of the weights
	struct worker {
		dnnl_memory_t x, y, scratch;
	} *workers;
};

struct dpt_packed {
	dnnl_memory_t memory;
};

static _Thread_local char error[256];

const char *dpt_dnnl_error(void) { return error; }

static int fail(const char *what, dnnl_status_t s) {
	snprintf(error, sizeof error, "oneDNN: %s: %s", what, dnnl_status2str(s));
	return 1;
}

// TRY notes the reason and goes to `out` when a call fails.
#define TRY(call)                                        \
	do {                                             \
		dnnl_status_t s_ = (call);               \
		if (s_ != dnnl_success) {                \
			fail(#call, s_);                 \
			goto out;                        \
		}                                        \
	} while (0)

static const dnnl_data_type_t types[] = {dnnl_f32, dnnl_bf16};

const char *dpt_dnnl_version(void) {
	static char s[64];
	const dnnl_version_t *v = dnnl_version();
	snprintf(s, sizeof s, "%d.%d.%d", v->major, v->minor, v->patch);
	return s;
}

// one_thread keeps OpenMP from spreading the calling thread's work over others. The setting belongs
// to the thread; other threads keep theirs.
static void one_thread(void) {
	static void (*set)(int);
	static int looked;
	static _Thread_local int done;
	if (done) return;
	done = 1;
	if (!__atomic_load_n(&looked, __ATOMIC_ACQUIRE)) {
		void (*f)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "omp_set_num_threads");
		__atomic_store_n(&set, f, __ATOMIC_RELAXED);
		__atomic_store_n(&looked, 1, __ATOMIC_RELEASE);
	}
	if (set) set(1);
}

dpt_dnnl *dpt_dnnl_open(int workers) {
	unsigned runtime = dnnl_version()->cpu_runtime;
	if (runtime != DNNL_RUNTIME_OMP && runtime != DNNL_RUNTIME_SEQ) {
		snprintf(error, sizeof error, "oneDNN %s: its threads are of kind %u, want a build with OpenMP (%u) or without threads (%u)", dpt_dnnl_version(), runtime, DNNL_RUNTIME_OMP, DNNL_RUNTIME_SEQ);
		return NULL;
	}
	if (dnnl_version()->major != DNNL_VERSION_MAJOR) {
		snprintf(error, sizeof error, "oneDNN: version %s is loaded, want major version %d, for which this was built", dpt_dnnl_version(), DNNL_VERSION_MAJOR);
		return NULL;
	}
	one_thread();
	dpt_dnnl *d = calloc(1, sizeof *d);
	if (!d) goto memory;
	d->workers = workers;
	if (!(d->streams = calloc(workers, sizeof *d->streams))) goto memory;
	TRY(dnnl_engine_create(&d->engine, dnnl_cpu, 0));
	for (int i = 0; i < workers; i++) TRY(dnnl_stream_create(&d->streams[i], d->engine, dnnl_stream_default_flags));
	return d;
memory:
	fail("open", dnnl_out_of_memory);
out:
	dpt_dnnl_close(d);
	return NULL;
}

void dpt_dnnl_close(dpt_dnnl *d) {
	if (!d) return;
	for (int i = 0; d->streams && i < d->workers; i++)
		if (d->streams[i]) dnnl_stream_destroy(d->streams[i]);
	if (d->engine) dnnl_engine_destroy(d->engine);
	free(d->streams);
	free(d);
}

// matmul creates the primitive descriptor; w is NULL for the library's own choice or, with plain,
// rows after one another.
static dnnl_status_t matmul(dpt_dnnl *d, dnnl_primitive_desc_t *pd, long m, long k, long n, dnnl_data_type_t src, dnnl_data_type_t dst, bool plain, md_ref w) {
	dnnl_primitive_attr_t attr = NULL;
	dnnl_status_t s = dnnl_primitive_attr_create(&attr);
	if (s != dnnl_success) return s;
	s = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
	dnnl_dims_t dx = {m, k}, db = {k, n}, dy = {m, n}, sx = {k, 1}, sy = {n, 1};
#if DNNL_VERSION_MAJOR >= 3
	dnnl_memory_desc_t x = NULL, b = NULL, y = NULL;
	if (s == dnnl_success) s = dnnl_memory_desc_create_with_strides(&x, 2, dx, src, sx);
	if (s == dnnl_success) s = dnnl_memory_desc_create_with_tag(&b, 2, db, src, plain ? dnnl_ab : dnnl_format_tag_any);
	if (s == dnnl_success) s = dnnl_memory_desc_create_with_strides(&y, 2, dy, dst, sy);
	if (s == dnnl_success) s = dnnl_matmul_primitive_desc_create(pd, d->engine, x, w ? w : b, NULL, y, attr);
	dnnl_memory_desc_destroy(x);
	dnnl_memory_desc_destroy(b);
	dnnl_memory_desc_destroy(y);
#else
	dnnl_memory_desc_t x, b, y;
	dnnl_matmul_desc_t desc;
	if (s == dnnl_success) s = dnnl_memory_desc_init_by_strides(&x, 2, dx, src, sx);
	if (s == dnnl_success) s = dnnl_memory_desc_init_by_tag(&b, 2, db, src, plain ? dnnl_ab : dnnl_format_tag_any);
	if (s == dnnl_success) s = dnnl_memory_desc_init_by_strides(&y, 2, dy, dst, sy);
	if (s == dnnl_success) s = dnnl_matmul_desc_init(&desc, &x, w ? w : &b, NULL, &y);
	if (s == dnnl_success) s = dnnl_primitive_desc_create(pd, &desc, attr, d->engine, NULL);
#endif
	dnnl_primitive_attr_destroy(attr);
	return s;
}

dpt_gemm *dpt_gemm_new(dpt_dnnl *d, long m, long k, long n, int src, int dst, bool plain, const dpt_gemm *like) {
	one_thread();
	dpt_gemm *g = calloc(1, sizeof *g);
	if (!g || !(g->workers = calloc(d->workers, sizeof *g->workers))) {
		free(g);
		fail("product", dnnl_out_of_memory);
		return NULL;
	}
	g->d = d;
	g->dt = src;
	TRY(matmul(d, &g->pd, m, k, n, types[src], types[dst], plain, like ? like->weights : NULL));
	g->weights = dnnl_primitive_desc_query_md(g->pd, dnnl_query_weights_md, 0);
	g->scratchpad = dnnl_primitive_desc_query_md(g->pd, dnnl_query_scratchpad_md, 0);
	TRY(dnnl_primitive_create(&g->primitive, g->pd));
	md_ref x = dnnl_primitive_desc_query_md(g->pd, dnnl_query_src_md, 0), y = dnnl_primitive_desc_query_md(g->pd, dnnl_query_dst_md, 0);
	for (int i = 0; i < d->workers; i++) {
		TRY(dnnl_memory_create(&g->workers[i].x, x, d->engine, DNNL_MEMORY_NONE));
		TRY(dnnl_memory_create(&g->workers[i].y, y, d->engine, DNNL_MEMORY_NONE));
		TRY(dnnl_memory_create(&g->workers[i].scratch, g->scratchpad, d->engine, DNNL_MEMORY_NONE));
	}
	return g;
out:
	dpt_gemm_free(g);
	return NULL;
}

void dpt_gemm_free(dpt_gemm *g) {
	if (!g) return;
	for (int i = 0; i < g->d->workers; i++) {
		struct worker *w = &g->workers[i];
		if (w->x) dnnl_memory_destroy(w->x);
		if (w->y) dnnl_memory_destroy(w->y);
		if (w->scratch) dnnl_memory_destroy(w->scratch);
	}
	if (g->primitive) dnnl_primitive_destroy(g->primitive);
	if (g->pd) dnnl_primitive_desc_destroy(g->pd);
	free(g->workers);
	free(g);
}

const char *dpt_gemm_info(const dpt_gemm *g) {
	const char *s = "unknown";
	dnnl_primitive_desc_query(g->pd, dnnl_query_impl_info_str, 0, &s);
	return s;
}

size_t dpt_gemm_scratch(const dpt_gemm *g) { return dnnl_memory_desc_get_size(g->scratchpad); }
size_t dpt_gemm_packed_size(const dpt_gemm *g) { return dnnl_memory_desc_get_size(g->weights); }

int dpt_gemm_layout(const dpt_gemm *g, dpt_layout *l) {
	md_ref md = g->weights;
#if DNNL_VERSION_MAJOR >= 3
	dnnl_format_kind_t kind;
	dnnl_dims_t *dims, *padded, *strides, *blocks, *idxs;
	int inner;
	if (dnnl_memory_desc_query(md, dnnl_query_format_kind, &kind) || kind != dnnl_blocked || dnnl_memory_desc_query(md, dnnl_query_dims, &dims) ||
	    dnnl_memory_desc_query(md, dnnl_query_padded_dims, &padded) || dnnl_memory_desc_query(md, dnnl_query_strides, &strides) ||
	    dnnl_memory_desc_query(md, dnnl_query_inner_nblks_s32, &inner) || dnnl_memory_desc_query(md, dnnl_query_inner_blks, &blocks) ||
	    dnnl_memory_desc_query(md, dnnl_query_inner_idxs, &idxs))
		return 0;
	const dnnl_dim_t *d = *dims, *p = *padded, *s = *strides, *b = *blocks, *i = *idxs;
#else
	if (md->format_kind != dnnl_blocked || md->extra.flags != dnnl_memory_extra_flag_none) return 0;
	const dnnl_dim_t *d = md->dims, *p = md->padded_dims, *s = md->format_desc.blocking.strides;
	const dnnl_dim_t *b = md->format_desc.blocking.inner_blks, *i = md->format_desc.blocking.inner_idxs;
	int inner = md->format_desc.blocking.inner_nblks;
#endif
	*l = (dpt_layout){.k = d[0], .n = d[1], .kpad = p[0], .nb = p[1], .v = 1, .dt = g->dt};
	if (inner == 0) return s[1] == 1 && s[0] == d[1]; // plain
	// Blocks of columns that contain blocks of rows, which may contain runs of rows.
	if (inner > 3 || inner < 2 || i[0] != 0 || i[1] != 1 || (inner == 3 && i[2] != 0)) return 0;
	l->nb = b[1];
	if (inner == 3) l->v = b[2];
	return s[0] == b[0] * l->nb * l->v && s[1] == l->kpad * l->nb;
}

int dpt_gemm_run(dpt_gemm *g, int worker, const void *x, const dpt_packed *b, void *y, void *scratch) {
	one_thread();
	struct worker *w = &g->workers[worker];
	TRY(dnnl_memory_set_data_handle(w->x, (void *)x));
	TRY(dnnl_memory_set_data_handle(w->y, y));
	TRY(dnnl_memory_set_data_handle(w->scratch, scratch));
	dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, w->x}, {DNNL_ARG_WEIGHTS, b->memory}, {DNNL_ARG_DST, w->y}, {DNNL_ARG_SCRATCHPAD, w->scratch}};
	TRY(dnnl_primitive_execute(g->primitive, g->d->streams[worker], 4, args));
	return 0;
out:
	return 1;
}

int dpt_repack(dpt_packed *p, const dpt_gemm *g, int worker, const float *w, long rs, long cs) {
	one_thread();
	dnnl_memory_t from = NULL;
	dnnl_primitive_desc_t pd = NULL;
	dnnl_primitive_t reorder = NULL;
	int failed = 1;
	dnnl_dims_t strides = {rs, cs};
#if DNNL_VERSION_MAJOR >= 3
	dnnl_memory_desc_t plain = NULL;
	dnnl_dims_t *shape;
	TRY(dnnl_memory_desc_query(g->weights, dnnl_query_dims, &shape));
	TRY(dnnl_memory_desc_create_with_strides(&plain, 2, *shape, dnnl_f32, strides));
#else
	dnnl_memory_desc_t plain;
	TRY(dnnl_memory_desc_init_by_strides(&plain, 2, g->weights->dims, dnnl_f32, strides));
#endif
	TRY(dnnl_memory_create(&from, MD(plain), g->d->engine, (void *)w));
	TRY(dnnl_reorder_primitive_desc_create(&pd, MD(plain), g->d->engine, g->weights, g->d->engine, NULL));
	TRY(dnnl_primitive_create(&reorder, pd));
	dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, p->memory}};
	TRY(dnnl_primitive_execute(reorder, g->d->streams[worker], 2, args));
	TRY(dnnl_stream_wait(g->d->streams[worker]));
	failed = 0;
out:
	if (reorder) dnnl_primitive_destroy(reorder);
	if (pd) dnnl_primitive_desc_destroy(pd);
	if (from) dnnl_memory_destroy(from);
#if DNNL_VERSION_MAJOR >= 3
	if (plain) dnnl_memory_desc_destroy(plain);
#endif
	return failed;
}

dpt_packed *dpt_packed_at(const dpt_gemm *g, void *memory) {
	dpt_packed *p = calloc(1, sizeof *p);
	if (!p) {
		fail("pack", dnnl_out_of_memory);
		return NULL;
	}
	TRY(dnnl_memory_create(&p->memory, g->weights, g->d->engine, memory));
	return p;
out:
	dpt_packed_free(p);
	return NULL;
}

int dpt_packed_move(dpt_packed *p, void *memory) {
	TRY(dnnl_memory_set_data_handle(p->memory, memory));
	return 0;
out:
	return 1;
}

dpt_packed *dpt_pack(const dpt_gemm *g, int worker, const float *w, long rs, long cs, void *memory) {
	dpt_packed *p = dpt_packed_at(g, memory);
	if (p && dpt_repack(p, g, worker, w, rs, cs)) {
		dpt_packed_free(p);
		return NULL;
	}
	return p;
}

void dpt_packed_free(dpt_packed *p) {
	if (!p) return;
	if (p->memory) dnnl_memory_destroy(p->memory);
	free(p);
}
