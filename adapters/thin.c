/* Thin products in blocks of four rows; the blocking moves memory, never bits. */
#include "adapters/thin.h"

#include <stddef.h>
#include <string.h>

enum { LANES = 16, ROWS = 4, MAX_RANK = 256, DOUBLES = 8, OUTER_RANKS = 8 };
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

typedef float Half __attribute__((vector_size(LANES / 2 * sizeof(float))));
typedef float LooseHalf
    __attribute__((vector_size(LANES / 2 * sizeof(float)), aligned(4), may_alias));
typedef float Quarter __attribute__((vector_size(LANES / 4 * sizeof(float))));

/* Lane l and lane l + 8, then l + 4, l + 2, l + 1: a tree that halves. */
INLINE float add_lanes(const Lanes *sum)
{
    Half half[2];
    memcpy(half, sum, sizeof half);
    half[0] += half[1];
    Quarter quarter[2];
    memcpy(quarter, half, sizeof quarter);
    quarter[0] += quarter[1];
    return (quarter[0][0] + quarter[0][2]) + (quarter[0][1] + quarter[0][3]);
}

/* `rows` rows times `ranks` factors, both constants where this is inlined. */
INLINE void project_block(float *h, const float *x, int ld, const float *f, int ld_f, int n,
                          int rank, int rows, int ranks)
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
            Lanes factor = *(const LooseLanes *)(f + (size_t)j * ld_f + i);
#pragma GCC unroll 4
            for (int t = 0; t < rows; t++) {
                sum[t][j] += *(const LooseLanes *)(x + (size_t)t * ld + i) * factor;
            }
        }
    }
    if (i + LANES / 2 <= n) { /* the first half of the lanes goes on */
        for (int j = 0; j < ranks; j++) {
            Half factor = *(const LooseHalf *)(f + (size_t)j * ld_f + i);
            for (int t = 0; t < rows; t++) {
                Half part;
                memcpy(&part, &sum[t][j], sizeof part);
                part += *(const LooseHalf *)(x + (size_t)t * ld + i) * factor;
                memcpy(&sum[t][j], &part, sizeof part);
            }
        }
        i += LANES / 2;
    }
    for (int t = 0; t < rows; t++) {
        for (int j = 0; j < ranks; j++) {
            if (i < n) {
                float lane[LANES];
                memcpy(lane, &sum[t][j], sizeof lane);
                for (int e = i; e < n; e++) {
                    lane[e % LANES] += x[(size_t)t * ld + e] * f[(size_t)j * ld_f + e];
                }
                memcpy(&sum[t][j], lane, sizeof lane);
            }
            h[(size_t)t * rank + j] = add_lanes(&sum[t][j]);
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
            h[(size_t)t * rank + e] += part[e];
        }
    }
}

/* y[t][i ..] += sum_j z[t][j] f[j][i ..] for as many columns as the type is wide; `add` 0: = */
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

INLINE void expand_rows(float *y, const float *z, const float *f, int ld_f, int n, int rank,
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

/* The small matrices: `rank` is a constant where it matters, so that loops unroll into registers.
 */
INLINE void mix_rows(float *restrict z, const float *restrict h, const float *restrict m, int rows,
                     int rank)
{
    for (int t = 0; t < rows; t++, z += rank, h += rank) {
        for (int j = 0; j < rank; j++) {
            z[j] = h[0] * m[j];
        }
        for (int k = 1; k < rank; k++) {
            for (int j = 0; j < rank; j++) {
                z[j] += h[k] * m[k * rank + j];
            }
        }
    }
}

FOR_EACH_CPU void thin_mix(float *z, const float *h, const float *m, int rows, int rank)
{
    switch (rank) {
    case 1:
        mix_rows(z, h, m, rows, 1);
        break;
    case 2:
        mix_rows(z, h, m, rows, 2);
        break;
    case 4:
        mix_rows(z, h, m, rows, 4);
        break;
    case 8:
        mix_rows(z, h, m, rows, 8);
        break;
    default:
        mix_rows(z, h, m, rows, rank);
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
    switch (rank) {
    case 1:
        outer_rows(sum, g, h, rows, 1);
        break;
    case 2:
        outer_rows(sum, g, h, rows, 2);
        break;
    case 4:
        outer_rows(sum, g, h, rows, 4);
        break;
    case 8:
        outer_rows(sum, g, h, rows, 8);
        break;
    default:
        outer_rows(sum, g, h, rows, rank);
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
