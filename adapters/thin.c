/* Thin products in blocks of four rows; the blocking moves memory, never bits. */
#include "adapters/thin.h"

#include <stddef.h>
#include <string.h>

enum { LANES = 16, ROWS = 4 };
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef float LooseLanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

/* One body, compiled for each family of CPUs and chosen when the program loads. Without contraction
 * all of them compute the same bits. */
#if defined(__x86_64__) && defined(__GNUC__)
#define FOR_EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

/* `rows` rows times `ranks` factors, both constants where this is inlined. */
INLINE void project_block(float *h, const float *x, const float *f, int n, int rank, int rows,
                          int ranks)
{
    Lanes sum[ROWS][2];
    for (int t = 0; t < rows; t++) {
        for (int j = 0; j < ranks; j++) {
            sum[t][j] = (Lanes){0};
        }
    }
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
#pragma GCC unroll 2
        for (int j = 0; j < ranks; j++) {
            Lanes factor = *(const LooseLanes *)(f + (size_t)j * n + i);
#pragma GCC unroll 4
            for (int t = 0; t < rows; t++) {
                sum[t][j] += *(const LooseLanes *)(x + (size_t)t * n + i) * factor;
            }
        }
    }
    for (int t = 0; t < rows; t++) {
        for (int j = 0; j < ranks; j++) {
            float lane[LANES];
            memcpy(lane, &sum[t][j], sizeof lane);
            for (int l = 0; i + l < n; l++) {
                lane[l] += x[(size_t)t * n + i + l] * f[(size_t)j * n + i + l];
            }
            for (int half = LANES / 2; half > 0; half /= 2) {
                for (int l = 0; l < half; l++) {
                    lane[l] += lane[l + half];
                }
            }
            h[(size_t)t * rank + j] = lane[0];
        }
    }
}

INLINE void project_rows(float *h, const float *x, const float *f, int n, int rank, int rows)
{
    int j = 0;
    for (; j + 2 <= rank; j += 2) {
        project_block(h + j, x, f + (size_t)j * n, n, rank, rows, 2);
    }
    if (j < rank) {
        project_block(h + j, x, f + (size_t)j * n, n, rank, rows, 1);
    }
}

FOR_EACH_CPU void thin_project(float *h, const float *x, const float *f, int rows, int n, int rank)
{
    int t = 0;
    for (; t + ROWS <= rows; t += ROWS) {
        project_rows(h + (size_t)t * rank, x + (size_t)t * n, f, n, rank, ROWS);
    }
    for (; t < rows; t++) {
        project_rows(h + (size_t)t * rank, x + (size_t)t * n, f, n, rank, 1);
    }
}

INLINE void expand_rows(float *y, const float *z, const float *f, int n, int rank, int rows)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        Lanes sum[ROWS];
        Lanes factor = *(const LooseLanes *)(f + i);
#pragma GCC unroll 4
        for (int t = 0; t < rows; t++) {
            sum[t] = z[(size_t)t * rank] * factor;
        }
        for (int j = 1; j < rank; j++) {
            factor = *(const LooseLanes *)(f + (size_t)j * n + i);
#pragma GCC unroll 4
            for (int t = 0; t < rows; t++) {
                sum[t] += z[(size_t)t * rank + j] * factor;
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < rows; t++) {
            *(LooseLanes *)(y + (size_t)t * n + i) += sum[t];
        }
    }
    for (; i < n; i++) {
        for (int t = 0; t < rows; t++) {
            float sum = z[(size_t)t * rank] * f[i];
            for (int j = 1; j < rank; j++) {
                sum += z[(size_t)t * rank + j] * f[(size_t)j * n + i];
            }
            y[(size_t)t * n + i] += sum;
        }
    }
}

FOR_EACH_CPU void thin_expand(float *y, const float *z, const float *f, int rows, int n, int rank)
{
    int t = 0;
    for (; t + ROWS <= rows; t += ROWS) {
        expand_rows(y + (size_t)t * n, z + (size_t)t * rank, f, n, rank, ROWS);
    }
    for (; t < rows; t++) {
        expand_rows(y + (size_t)t * n, z + (size_t)t * rank, f, n, rank, 1);
    }
}
