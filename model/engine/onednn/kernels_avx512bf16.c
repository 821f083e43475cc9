//go:build onednn && cgo

#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define TARGET "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"
#include "target_begin.h"

#define TABLE dpt_kernels_avx512bf16
#define NAME "avx512bf16"
#define VL 16 // floats in a vector
#define MR 12 // rows of a product that fit in registers, two vectors wide
#define HAVE_DPBF16 1 // sums of products of bfloat16 pairs in hardware
#include "kernels_impl.h"

#include "target_end.h"

#endif
