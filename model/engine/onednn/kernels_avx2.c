//go:build onednn && cgo

#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define TARGET "avx2,fma,f16c"
#include "target_begin.h"

#define TABLE dpt_kernels_avx2
#define NAME "avx2"
#define VL 8 // floats in a vector
#define MR 6 // rows of a product that fit in registers, two vectors wide
#include "kernels_impl.h"

#include "target_end.h"

#endif
