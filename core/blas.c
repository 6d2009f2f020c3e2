/* The one file that includes OpenBLAS. */
#include "core/blas.h"

#include <cblas.h>
#include <stdio.h>
#include <string.h>

void blas_gemm(bool transpose_a, bool transpose_b, int m, int n, int k, float alpha, const float *a,
               int lda, const float *b, int ldb, float beta, float *c, int ldc)
{
    cblas_sgemm(CblasColMajor, transpose_a ? CblasTrans : CblasNoTrans,
                transpose_b ? CblasTrans : CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c,
                ldc);
}

int blas_set_threads(int n_threads)
{
    int before = openblas_get_num_threads();
    openblas_set_num_threads(n_threads);
    return before;
}

const char *blas_core_name(void)
{
    return openblas_get_corename();
}

void blas_version(char *out, size_t size)
{
    const char *config = openblas_get_config(); /* "OpenBLAS 0.3.21 NO_LAPACKE ..." */
    config += strncmp(config, "OpenBLAS ", 9) == 0 ? 9 : 0;
    snprintf(out, size, "%.*s", (int)strcspn(config, " "), config);
}
