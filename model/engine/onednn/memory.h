// Memory outside of Go's heap: the kernels keep pointers into it, and Go's collector never looks at it.

#ifndef DPT_MEMORY_H
#define DPT_MEMORY_H

#include <stddef.h>

// dpt_alloc returns n bytes, 64-byte aligned and in huge pages where the system has them, or NULL. free returns them.
void *dpt_alloc(size_t n);

#endif
