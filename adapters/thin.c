/* Thin products in blocks of four rows; the blocking moves memory, never bits. */
#include "adapters/thin.h"

#include <stddef.h>
#include <string.h>

enum { LANES = 16, ROWS = 4, MAX_RANK = 256, DOUBLES = 8, OUTER_RANKS = 8, WIDE = 512 };
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef float LooseLanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

/* One body, compiled for each family of CPUs and chosen when the program loads. Without contraction
 * all of them compute the same bits. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float Half __attribute__((vector_size(LANES / 2 * sizeof(float))));
typedef float LooseHalf
    __attribute__((vector_size(LANES / 2 * sizeof(float)), aligned(4), may_alias));
typedef float Quarter __attribute__((vector_size(LANES / 4 * sizeof(float))));

/* Lane l and lane l + 8, then l and l + 4. */
INLINE Quarter fold(const Lanes *sum)
{
    Half half = __builtin_shufflevector(*sum, *sum, 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(*sum, *sum, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3) +
           __builtin_shufflevector(half, half, 4, 5, 6, 7);
}

/* The sums of four times sixteen lanes: a tree that halves, so l and l + 2, then 0 and 1. */
INLINE Quarter add_lanes(const Lanes *a, const Lanes *b, const Lanes *c, const Lanes *d)
{
    Quarter p = fold(a), q = fold(b), r = fold(c), s = fold(d);
    p = __builtin_shufflevector(p, q, 0, 1, 4, 5) + __builtin_shufflevector(p, q, 2, 3, 6, 7);
    r = __builtin_shufflevector(r, s, 0, 1, 4, 5) + __builtin_shufflevector(r, s, 2, 3, 6, 7);
    return __builtin_shufflevector(p, r, 0, 2, 4, 6) + __builtin_shufflevector(p, r, 1, 3, 5, 7);
}

/* Columns i .. n, fewer than there are lanes. */
INLINE void project_tail(Lanes *sum, const float *x, const float *f, int i, int n)
{
    float lane[LANES];
    memcpy(lane, sum, sizeof lane);
    for (; i < n; i++) {
        lane[i % LANES] += x[i] * f[i];
    }
    memcpy(sum, lane, sizeof lane);
}

/* `rows` rows times `ranks` factors, both constants where this is inlined, and all loops over them
 * unrolled, so that sum stays in registers. */
INLINE void project_block(float *h, const float *x, int ld, const float *f, int ld_f, int n,
                          int rank, int rows, int ranks)
{
    Lanes sum[ROWS][2] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        Lanes factor[2];
#pragma GCC unroll 2
        for (int j = 0; j < ranks; j++) {
            factor[j] = *(const LooseLanes *)(f + (size_t)j * ld_f + i);
        }
#pragma GCC unroll 4
        for (int t = 0; t < rows; t++) {
            /* volatile: loaded once and not again for each factor, which GCC likes to do */
            Lanes part = *(const volatile LooseLanes *)(x + (size_t)t * ld + i);
#pragma GCC unroll 2
            for (int j = 0; j < ranks; j++) {
                sum[t][j] += part * factor[j];
            }
        }
    }
    if (i < n) {
#pragma GCC unroll 4
        for (int t = 0; t < rows; t++) {
#pragma GCC unroll 2
            for (int j = 0; j < ranks; j++) {
                Lanes copy = sum[t][j];
                project_tail(&copy, x + (size_t)t * ld, f + (size_t)j * ld_f, i, n);
                sum[t][j] = copy;
            }
        }
    }
#pragma GCC unroll 2
    for (int t = 0; t < rows; t += 2) {
        Quarter two = add_lanes(&sum[t][0], &sum[t][1], &sum[t + 1][0], &sum[t + 1][1]);
        for (int j = 0; j < ranks; j++) {
            h[(size_t)t * rank + j] = two[j];
        }
        for (int j = 0; t + 1 < rows && j < ranks; j++) {
            h[(size_t)(t + 1) * rank + j] = two[2 + j];
        }
    }
}

INLINE void project_rows(float *h, const float *x, int ld, const float *f, int ld_f, int n,
                         int rank, int rows)
{
    int j = 0;
    for (; j + 2 <= rank; j += 2) {
        project_block(h + j, x, ld, f + (size_t)j * ld_f, ld_f, n, rank, rows, 2);
    }
    if (j < rank) {
        project_block(h + j, x, ld, f + (size_t)j * ld_f, ld_f, n, rank, rows, 1);
    }
}

FOR_EACH_CPU void thin_project(float *h, const float *x, const float *f, int rows, int n, int rank)
{
    int t = 0;
    for (; t + ROWS <= rows; t += ROWS) {
        project_rows(h + (size_t)t * rank, x + (size_t)t * n, n, f, n, n, rank, ROWS);
    }
    for (; t < rows; t++) {
        project_rows(h + (size_t)t * rank, x + (size_t)t * n, n, f, n, n, rank, 1);
    }
}

FOR_EACH_CPU void thin_project_columns(float *h, const float *x, int ld, const float *f, int ld_f,
                                       int rows, int n, int rank)
{
    float part[ROWS * MAX_RANK];
    for (int t = 0; t < rows; t += ROWS) {
        int some = rows - t < ROWS ? rows - t : ROWS;
        if (some == ROWS) {
            project_rows(part, x + (size_t)t * ld, ld, f, ld_f, n, rank, ROWS);
        }
        for (int r = 0; some < ROWS && r < some; r++) {
            project_rows(part + r * rank, x + (size_t)(t + r) * ld, ld, f, ld_f, n, rank, 1);
        }
        for (int e = 0; e < some * rank; e++) {
            /* cppcheck-suppress uninitvar ; project_rows filled it */
            h[(size_t)t * rank + e] += part[e]; /* NOLINT(*uninitialized.Assign): as above */
        }
    }
}

/* y[t][i ..] += sum_j z[t][j] f[j][i ..] for as many columns as the type is wide; `add` 0: = */
/* NOLINTBEGIN(bugprone-macro-parentheses): of types */
#define EXPAND(Wide, Loose)                                                                        \
    do {                                                                                           \
        Wide total[ROWS], factor = *(const Loose *)(f + i);                                        \
        _Pragma("GCC unroll 4") for (int t = 0; t < rows; t++)                                     \
        {                                                                                          \
            total[t] = z[(size_t)t * rank] * factor;                                               \
        }                                                                                          \
        for (int j = 1; j < rank; j++) {                                                           \
            factor = *(const Loose *)(f + (size_t)j * ld_f + i);                                   \
            _Pragma("GCC unroll 4") for (int t = 0; t < rows; t++)                                 \
            {                                                                                      \
                total[t] += z[(size_t)t * rank + j] * factor;                                      \
            }                                                                                      \
        }                                                                                          \
        _Pragma("GCC unroll 4") for (int t = 0; t < rows; t++)                                     \
        {                                                                                          \
            Loose *out = (Loose *)(y + (size_t)t * n + i);                                         \
            if (add) {                                                                             \
                *out += total[t];                                                                  \
            } else {                                                                               \
                *out = total[t];                                                                   \
            }                                                                                      \
        }                                                                                          \
    } while (0)
/* NOLINTEND(bugprone-macro-parentheses) */

INLINE void expand_block(float *y, const float *z, const float *f, int ld_f, int n, int rank,
                         int rows, int add)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        EXPAND(Lanes, LooseLanes);
    }
    if (i + LANES / 2 <= n) {
        EXPAND(Half, LooseHalf);
        i += LANES / 2;
    }
    for (; i < n; i++) {
        EXPAND(float, float);
    }
}

/* The usual small rank is a constant, and its z a copy that y cannot be: both stay in registers. */
INLINE void expand_rows(float *y, const float *z, const float *f, int ld_f, int n, int rank,
                        int rows, int add)
{
    if (rank == 2) {
        float copy[ROWS * 2];
        memcpy(copy, z, (size_t)rows * 2 * sizeof *z);
        expand_block(y, copy, f, ld_f, n, 2, rows, add);
    } else {
        expand_block(y, z, f, ld_f, n, rank, rows, add);
    }
}

FOR_EACH_CPU void thin_expand(float *y, const float *z, const float *f, int rows, int n, int rank)
{
    int t = 0;
    for (; t + ROWS <= rows; t += ROWS) {
        expand_rows(y + (size_t)t * n, z + (size_t)t * rank, f, n, n, rank, ROWS, 1);
    }
    for (; t < rows; t++) {
        expand_rows(y + (size_t)t * n, z + (size_t)t * rank, f, n, n, rank, 1, 1);
    }
}

FOR_EACH_CPU void thin_expand_columns(float *y, const float *z, const float *f, int ld_f, int rows,
                                      int n, int rank)
{
    int t = 0;
    for (; t + ROWS <= rows; t += ROWS) {
        expand_rows(y + (size_t)t * n, z + (size_t)t * rank, f, ld_f, n, rank, ROWS, 0);
    }
    for (; t < rows; t++) {
        expand_rows(y + (size_t)t * n, z + (size_t)t * rank, f, ld_f, n, rank, 1, 0);
    }
}

/* The small matrices: `rank` is a constant where it matters, so that sums stay in registers. */
INLINE void mix_rows(float *restrict z, const float *restrict h, const float *restrict m, int rows,
                     int rank)
{
    for (int t = 0; t < rows; t++, z += rank, h += rank) {
        int j = 0;
        for (; j + LANES / 2 <= rank; j += LANES / 2) {
            Half total = h[0] * *(const LooseHalf *)(m + j);
            for (int k = 1; k < rank; k++) {
                total += h[k] * *(const LooseHalf *)(m + (size_t)k * rank + j);
            }
            *(LooseHalf *)(z + j) = total;
        }
        for (; j < rank; j++) {
            float total = h[0] * m[j];
            for (int k = 1; k < rank; k++) {
                total += h[k] * m[(size_t)k * rank + j];
            }
            z[j] = total;
        }
    }
}

FOR_EACH_CPU void thin_mix(float *z, const float *h, const float *m, int rows, int rank)
{
    switch (rank) {
    case 2:
        mix_rows(z, h, m, rows, 2);
        break;
    case 8:
        mix_rows(z, h, m, rows, 8);
        break;
    default:
        mix_rows(z, h, m, rows, rank);
    }
}

typedef double Doubles __attribute__((vector_size(DOUBLES * sizeof(double))));
typedef double LooseDoubles
    __attribute__((vector_size(DOUBLES * sizeof(double)), aligned(8), may_alias));

/* `ranks` rows of the sum, a constant where this is inlined, stay in registers over all rows. */
INLINE void outer_block(double *sum, const double *g, const float *x, int ld, int rows, int n,
                        int rank, int ranks)
{
    int i = 0;
    for (; i + DOUBLES <= n; i += DOUBLES) {
        Doubles total[OUTER_RANKS];
        for (int j = 0; j < ranks; j++) {
            total[j] = *(const LooseDoubles *)(sum + (size_t)j * n + i);
        }
        for (int t = 0; t < rows; t++) {
            Half narrow = *(const LooseHalf *)(x + (size_t)t * ld + i);
            Doubles wide = __builtin_convertvector(narrow, Doubles);
#pragma GCC unroll 8
            for (int j = 0; j < ranks; j++) {
                total[j] += g[(size_t)t * rank + j] * wide;
            }
        }
        for (int j = 0; j < ranks; j++) {
            *(LooseDoubles *)(sum + (size_t)j * n + i) = total[j];
        }
    }
    for (; i < n; i++) {
        for (int j = 0; j < ranks; j++) {
            double total = sum[(size_t)j * n + i];
            for (int t = 0; t < rows; t++) {
                total += g[(size_t)t * rank + j] * (double)x[(size_t)t * ld + i];
            }
            sum[(size_t)j * n + i] = total;
        }
    }
}

FOR_EACH_CPU void thin_outer_columns(double *sum, const double *g, const float *x, int ld, int rows,
                                     int n, int rank)
{
    int j = 0;
    for (; j + OUTER_RANKS <= rank; j += OUTER_RANKS) {
        outer_block(sum + (size_t)j * n, g + j, x, ld, rows, n, rank, OUTER_RANKS);
    }
    for (; j < rank; j++) {
        outer_block(sum + (size_t)j * n, g + j, x, ld, rows, n, rank, 1);
    }
}

INLINE void outer_rows(double *restrict sum, const float *restrict g, const float *restrict h,
                       int rows, int rank)
{
    for (int t = 0; t < rows; t++, g += rank, h += rank) {
        for (int j = 0; j < rank; j++) {
            for (int k = 0; k < rank; k++) {
                sum[j * rank + k] += (double)g[j] * (double)h[k];
            }
        }
    }
}

FOR_EACH_CPU void thin_outer(double *sum, const float *g, const float *h, int rows, int rank)
{
    double wide[WIDE];
    int block = WIDE / rank;
    if (rank == 2) {
        outer_rows(sum, g, h, rows, 2);
    } else if (rank < OUTER_RANKS) {
        outer_rows(sum, g, h, rows, rank);
    } else {
        for (int t = 0; t < rows; t += block) {
            int some = rows - t < block ? rows - t : block;
            for (int e = 0; e < some * rank; e++) {
                wide[e] = (double)g[(size_t)t * rank + e];
            }
            thin_outer_columns(sum, wide, h + (size_t)t * rank, rank, some, rank, rank);
        }
    }
}
