/* The kernels for AVX2 with FMA and F16C. */
#if defined(__x86_64__)
#define SIMD_AVX2
#define KERNELS kernels_avx2
#define KERNELS_NAME "avx2"
#define TILE_ROWS 6
#define TILE_VECTORS 1
#include "core/kernels_table.h"
#include "core/kernels_impl.h"
#endif
