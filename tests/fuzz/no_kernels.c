/* In place of the kernels, which take minutes to compile: no reader runs one. */
#include "core/kernels_table.h"

const Kernels kernels_portable = {0};
#if defined(__x86_64__)
const Kernels kernels_avx512 = {0};
const Kernels kernels_avx2 = {0};
#endif
