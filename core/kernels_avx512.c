/* The kernels for AVX-512 (F, BW, DQ, VL). */
#if defined(__x86_64__)
#define SIMD_AVX512
#define KERNELS kernels_avx512
#define KERNELS_NAME "avx512"
#define TILE_ROWS 12
#define TILE_VECTORS 2
#include "core/kernels_table.h"
#include "core/kernels_impl.h"
#endif
