/* OpenBLAS, for what the law of core/matrix does not cover: the small products of the SVD and the
 * weight gradients of full training. One thread a call: callers split the work, so that the thread
 * count cannot show in a number. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* c = alpha op(a) op(b) + beta c, column-major as LAPACK has it; op transposes where asked.
 * c: (m, n), columns ldc apart   op(a): (m, k)   op(b): (k, n) */
void blas_gemm(bool transpose_a, bool transpose_b, int m, int n, int k, float alpha, const float *a,
               int lda, const float *b, int ldb, float beta, float *c, int ldc);

/* Threads inside a call; returns what it was before. */
int blas_set_threads(int n_threads);
/* The kernels that the library chose for this CPU, such as "SkylakeX". */
const char *blas_core_name(void);
/* The library's version, such as "0.3.21". */
void blas_version(char *out, size_t size);
