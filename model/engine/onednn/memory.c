//go:build onednn && cgo

#define _GNU_SOURCE
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HUGE ((size_t)1 << 21) // a huge page's size

static size_t whole(size_t n) { return (n + HUGE - 1) / HUGE * HUGE; }

void *dpt_alloc(size_t n) {
	if (n < HUGE) return aligned_alloc(64, (n + 63) / 64 * 64 + 64);
	// More than that is mapped, and what lies outside of whole huge pages given back.
	size_t size = whole(n);
	char *p = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) return NULL;
	size_t skip = (HUGE - (uintptr_t)p % HUGE) % HUGE;
	if (skip) munmap(p, skip);
	p += skip;
	if (HUGE - skip) munmap(p + size, HUGE - skip);
#ifdef MADV_HUGEPAGE
	madvise(p, size, MADV_HUGEPAGE); // only a hint
#endif
	return p;
}

void dpt_free(void *p, size_t n) {
	if (n < HUGE)
		free(p);
	else if (p)
		munmap(p, whole(n));
}
