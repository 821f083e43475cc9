//go:build onednn && cgo

#include "kernels.h"

extern const dpt_kernels dpt_kernels_generic;
#if defined(__x86_64__)
#include <cpuid.h>

extern const dpt_kernels dpt_kernels_avx512bf16, dpt_kernels_avx512, dpt_kernels_avx2;
#endif

static int usable(const dpt_kernels *list[4]) {
	int n = 0;
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
		if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
			if (__builtin_cpu_supports("avx512bf16")) list[n++] = &dpt_kernels_avx512bf16;
			list[n++] = &dpt_kernels_avx512;
		}
		list[n++] = &dpt_kernels_avx2;
	}
#endif
	list[n++] = &dpt_kernels_generic;
	return n;
}

int dpt_kernels_count(void) {
	const dpt_kernels *list[4];
	return usable(list);
}

const dpt_kernels *dpt_kernels_get(int i) {
	const dpt_kernels *list[4];
	usable(list);
	return list[i];
}

int dpt_matrix_units(void) {
#if defined(__x86_64__)
	unsigned a, b, c, d;
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) return d >> 22 & 1;
#endif
	return 0;
}
