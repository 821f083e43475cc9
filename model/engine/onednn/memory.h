// Memory outside of Go's heap: the kernels keep pointers into it, and Go's collector never looks at
// it.

#ifndef DPT_MEMORY_H
#define DPT_MEMORY_H

#include <stddef.h>

// dpt_alloc returns n bytes, 64-byte aligned, or NULL. Large blocks are the system's own, in huge
// pages where it has them, so that what is freed is not resident any more.
void *dpt_alloc(size_t n);
// dpt_free takes back the n bytes at p, which may be NULL.
void dpt_free(void *p, size_t n);

#endif
