/* The inner loops of the engine, compiled once per CPU family from kernels_impl.h and chosen at run
 * time. All families give the same bits (core/simd.h). One thread; callers split the work. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "core/safetensors.h"

/* A weight matrix as core/matrix packs it: panels of 32 outputs, packed[panel][k][32]; bf16 panels
 * interleave columns j and j + 16 in one 32-bit word. A panel of a quantised matrix is groups of 32
 * steps k (Q6_K: 16), each 32 f32 scales, 32 f32 offsets (Q4_K alone), and codes: bytes [k][32], or
 * halves of bytes [k / 2][32] (Q4_0, Q4_K), the even step in the low half; w = scale * code - offset
 * (Q4_0: code - 8). */
typedef struct {
    const void *packed;
    TensorType type;
    int n_out, n_in;
} PackedMatrix;

/* floats of scratch that matmul calls need per thread: widened weights, packed rows */
#define KERNEL_SCRATCH (256 * 32 + 144 * 1024 + 16)

typedef struct Kernels {
    const char *name; /* "avx512", "avx2", "portable" */

    /* y[t, columns of panels first..last-1] = x[t] W^T + bias, for rows few enough to stream the
     * weights once. */
    void (*matmul_few)(float *y, size_t ldy, const float *x, size_t ldx, const PackedMatrix *w,
                       const float *bias, int rows, int first_panel, int last_panel);
    /* The same numbers for many rows: panels are widened to f32 in scratch and reused. */
    void (*matmul_many)(float *y, size_t ldy, const float *x, size_t ldx, const PackedMatrix *w,
                        const float *bias, int rows, int first_panel, int last_panel,
                        float *scratch);
    /* dx[t, 32-column blocks first..last-1 of n_in] (+)= dy[t] W */
    void (*matmul_transposed)(float *dx, size_t ldx, const float *dy, size_t ldy,
                              const PackedMatrix *w, int rows, int accumulate, int first_block,
                              int last_block, float *scratch);
    int few_rows; /* up to this many rows matmul_few is the faster one */

    /* y = g * x * rstd, returns rstd = 1 / sqrt(mean(x^2) + eps) */
    float (*rmsnorm)(float *y, const float *x, const float *g, int n, float eps);
    /* dx += d/dx of the above; dg += likewise unless NULL */
    void (*rmsnorm_backward)(float *dx, double *dg, const float *dy, const float *x, const float *g,
                             int n, float eps);
    void (*add)(float *y, const float *a, const float *b, int n); /* y = a + b */
    /* act = gate * sigmoid(gate) * up */
    void (*swiglu)(float *act, const float *gate, const float *up, int n);
    /* dact is overwritten by dgate; dup is written */
    void (*swiglu_backward)(float *dact_dgate, float *dup, const float *gate, const float *up,
                            int n);

    /* Softmax over scaled logits l = logits * inverse_temperature: *largest = max l, *sum = sum
     * exp(l - max) and, unless NULL, *weighted = sum exp(l - max) (l - max). */
    void (*softmax_stats)(float *largest, double *sum, double *weighted, const float *logits, int n,
                          float inverse_temperature);
    /* e = exp(l - largest), (n) */
    void (*softmax_terms)(float *e, const float *logits, int n, float inverse_temperature,
                          float largest);
    /* The sum of x (n), in f32 within blocks of 1024, in double over them. */
    double (*sum)(const float *x, int n);
    /* sum p (log p - log q) over the vocabulary, p and q the softmax of logits and of reference,
     * both (n) and with the statistics of softmax_stats. Computed as sum p (d + exp(-d) - 1), d =
     * log p - log q, whose terms are all >= 0: nothing cancels, and p = q gives 0. */
    double (*softmax_kl)(const float *logits, float largest, double sum, const float *reference,
                         float reference_largest, double reference_sum, int n,
                         float inverse_temperature);
    /* In place, logits become their own gradient: inverse_temperature * p * (a + b * (l -
     * largest)), where p is the softmax; the caller subtracts the one-hot part. */
    void (*softmax_backward)(float *logits, int n, float inverse_temperature, float largest,
                             double sum, double a, double b);

    /* Attention of `n_queries` query vectors (each head_dim, at q + i * ldq) on one key/value head.
     * Query i sees positions 0 .. limits[i]-1. keys: (head_dim, capacity) transposed; values:
     * (capacity, head_dim). out + i * ldo: (head_dim). scratch: 4 * capacity floats; capacity is a
     * multiple of 16. */
    void (*attention)(float *const *out, const float *const *q, const int *limits, int n_queries,
                      const float *keys, const float *values, int capacity, int head_dim,
                      float scale, float *scratch);
    /* dq[i] written; dkeys, dvalues (capacity, head_dim) row-major, added to, queries in order.
     * keys_rows: (capacity, head_dim); values_columns: (head_dim, capacity). scratch: 8 * capacity
     * floats. */
    void (*attention_backward)(float *const *dq, float *dkeys, float *dvalues,
                               const float *const *dout, const float *const *out,
                               const float *const *q, const int *limits, int n_queries,
                               const float *keys, const float *keys_rows,
                               const float *values_columns, int capacity, int head_dim, float scale,
                               float *scratch);
} Kernels;

/* The best family of this CPU. */
const Kernels *kernels_best(void);
/* By name; NULL when this CPU or build has it not. For tests. */
const Kernels *kernels_find(const char *name);
