//go:build onednn && cgo

#include "kernels.h"

#include <math.h>
#include <string.h>

// Vectors of four floats: what every x86-64 and arm64 has.
#define TABLE dpt_kernels_generic
#define NAME "generic"
#define VL 4
#define MR 6
#include "kernels_impl.h"
