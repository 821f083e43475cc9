//go:build onednn && cgo

#define _GNU_SOURCE
#include "memory.h"

#include <stdlib.h>
#include <sys/mman.h>

void *dpt_alloc(size_t n) {
	const size_t huge = 1 << 21;
	if (n < huge) return aligned_alloc(64, (n + 63) / 64 * 64 + 64);
	n = (n + huge - 1) / huge * huge;
	void *p = aligned_alloc(huge, n);
#ifdef MADV_HUGEPAGE
	if (p) madvise(p, n, MADV_HUGEPAGE); // only a hint
#endif
	return p;
}
