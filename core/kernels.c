/* Which kernels this CPU can run. */
#include "core/kernels_table.h"

#include <string.h>

const Kernels *kernels_find(const char *name)
{
#if defined(__x86_64__)
    if (strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
        return &kernels_avx512;
    }
    /* They use f16c too, which every CPU with avx2 has and clang 14 cannot ask for. */
    if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma")) {
        return &kernels_avx2;
    }
#endif
    return strcmp(name, "portable") == 0 ? &kernels_portable : NULL;
}

const Kernels *kernels_best(void)
{
    const Kernels *kernels = kernels_find("avx512");
    if (!kernels) {
        kernels = kernels_find("avx2");
    }
    return kernels ? kernels : &kernels_portable;
}
