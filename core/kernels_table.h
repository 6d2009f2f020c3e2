/* The families that were compiled (private to kernels*.c). */
#pragma once
#include "core/kernels.h"

extern const Kernels kernels_portable;
#if defined(__x86_64__)
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx2;
#endif
