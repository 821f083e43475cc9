//go:build onednn && cgo

#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define TARGET "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"
#include "target_begin.h"

#define TABLE dpt_kernels_avx512
#define NAME "avx512"
#define VL 16 // floats in a vector
#define MR 12 // rows of a product that fit in registers, two vectors wide
#include "kernels_impl.h"

#include "target_end.h"

#endif
