/* Causal attention on one key/value head, forward and backward, over core/simd.h (part of
 * kernels_impl.h). Positions are summed in order from 0, lanes are anchored at absolute positions,
 * so a query's numbers do not depend on how many queries come with it or whether the keys came from
 * a cache. */
#pragma once
#include "core/simd.h"

#define QUERY_BLOCK 4

/* The loops below work on n queries (a constant where they are inlined) and two vectors at a time, or one where there
 * are registers for no more, so that the chains of multiply-adds in flight hide their latency. Each chain is the same
 * whatever n is. */
#define VECTORS_OF(n) (TILE_VECTORS == 2 || (n) <= 2 ? 2 : 1)
#define EACH_QUERY UNROLL for (int j = 0; j < n; j++)
#define WITH_CONSTANT_N(n, call)                                                                   \
    switch (n) {                                                                                   \
    case 1:                                                                                        \
        call(1);                                                                                   \
        break;                                                                                     \
    case 2:                                                                                        \
        call(2);                                                                                   \
        break;                                                                                     \
    case 3:                                                                                        \
        call(3);                                                                                   \
        break;                                                                                     \
    default:                                                                                       \
        call(4);                                                                                   \
        break;                                                                                     \
    }

SIMD_INLINE V16 load_part(const float *p, int m)
{
    return m >= LANES ? v16_load(p) : m > 0 ? v16_load_n(p, m, 0.0f) : v16_zero();
}

SIMD_INLINE void store_part(float *p, V16 a, int m)
{
    if (m >= LANES) {
        v16_store(p, a);
    } else if (m > 0) {
        v16_store_n(p, a, m);
    }
}

/* scores[j][s] = scale * q_j . k_s for whole vectors of s up to the largest limit. */
SIMD_INLINE void scores_of(float *scores, const float *const *q, int n, int end, const float *keys,
                           int capacity, int head_dim, float scale)
{
    V16 factor = v16_set(scale);
    for (int s = 0; s < end; s += VECTORS_OF(n) * LANES) {
        /* the capacity is a multiple of LANES, not of two */
        int second = VECTORS_OF(n) == 2 && s + LANES < end;
        V16 acc[QUERY_BLOCK][2];
        EACH_QUERY {
            acc[j][0] = acc[j][1] = v16_zero();
        }
        const float *k = keys + s;
        if (second) {
            for (int d = 0; d < head_dim; d++, k += capacity) {
                V16 k0 = v16_load(k), k1 = v16_load(k + LANES);
                EACH_QUERY {
                    V16 a = v16_set(q[j][d]);
                    acc[j][0] = v16_fma(a, k0, acc[j][0]);
                    acc[j][1] = v16_fma(a, k1, acc[j][1]);
                }
            }
        } else {
            for (int d = 0; d < head_dim; d++, k += capacity) {
                V16 k0 = v16_load(k);
                EACH_QUERY {
                    acc[j][0] = v16_fma(v16_set(q[j][d]), k0, acc[j][0]);
                }
            }
        }
        EACH_QUERY {
            float *out = scores + (size_t)j * (size_t)capacity + s;
            v16_store(out, v16_mul(acc[j][0], factor));
            if (second) {
                v16_store(out + LANES, v16_mul(acc[j][1], factor));
            }
        }
    }
}

SIMD_INLINE void attention_scores(float *scores, const float *const *q, int n, int end,
                                  const float *keys, int capacity, int head_dim, float scale)
{
#define CALL(N) scores_of(scores, q, N, end, keys, capacity, head_dim, scale)
    WITH_CONSTANT_N(n, CALL)
#undef CALL
}

/* scores become softmax terms exp(score - max), zero past the limit; returns 1 / their sum. */
SIMD_INLINE float softmax_row(float *scores, int limit)
{
    V16 most = v16_set(-INFINITY);
    for (int s = 0; s < limit; s += LANES) {
        V16 a = limit - s >= LANES ? v16_load(scores + s)
                                   : v16_load_n(scores + s, limit - s, -INFINITY);
        most = v16_max(a, most);
    }
    V16 offset = v16_set(v16_largest(most)), total = v16_zero();
    for (int s = 0; s < limit; s += LANES) {
        V16 a = limit - s >= LANES ? v16_load(scores + s)
                                   : v16_load_n(scores + s, limit - s, -INFINITY);
        V16 e = v16_exp(v16_sub(a, offset));
        v16_store(scores + s, e);
        total = v16_add(total, e);
    }
    return 1.0f / v16_sum(total);
}

SIMD_INLINE int largest_limit(const int *limits, int n)
{
    int end = 0;
    for (int j = 0; j < n; j++) {
        end = limits[j] > end ? limits[j] : end;
    }
    return end;
}

/* m columns of weighted_sums, at rows; the first `whole` rows may be read to the ends of the vectors. */
SIMD_INLINE void weighted_columns(float *const *out, int column, const float *weights,
                                  const int *limits, int n, const float *rows, int capacity,
                                  int head_dim, int m, int vectors, int shared, int whole,
                                  const float *final_scale)
{
    V16 acc[QUERY_BLOCK][2];
    EACH_QUERY {
        acc[j][0] = acc[j][1] = v16_zero();
    }
    const float *row = rows;
    for (int s = 0; s < whole; s++, row += head_dim) {
        V16 r0 = v16_load(row), r1 = vectors == 2 ? v16_load(row + LANES) : v16_zero();
        EACH_QUERY {
            V16 w = v16_set(weights[(size_t)j * (size_t)capacity + s]);
            acc[j][0] = v16_fma(w, r0, acc[j][0]);
            acc[j][1] = vectors == 2 ? v16_fma(w, r1, acc[j][1]) : acc[j][1];
        }
    }
    for (int s = whole; s < shared; s++, row += head_dim) {
        V16 r0 = load_part(row, m), r1 = load_part(row + LANES, m - LANES);
        EACH_QUERY {
            V16 w = v16_set(weights[(size_t)j * (size_t)capacity + s]);
            acc[j][0] = v16_fma(w, r0, acc[j][0]);
            acc[j][1] = vectors == 2 ? v16_fma(w, r1, acc[j][1]) : acc[j][1];
        }
    }
    EACH_QUERY {
        for (int s = shared; s < limits[j]; s++) {
            row = rows + (size_t)s * (size_t)head_dim;
            V16 w = v16_set(weights[(size_t)j * (size_t)capacity + s]);
            acc[j][0] = v16_fma(w, load_part(row, m), acc[j][0]);
            acc[j][1] = vectors == 2 ? v16_fma(w, load_part(row + LANES, m - LANES), acc[j][1])
                                     : acc[j][1];
        }
        V16 scale = v16_set(final_scale[j]);
        store_part(out[j] + column, v16_mul(acc[j][0], scale), m);
        if (vectors == 2) {
            store_part(out[j] + column + LANES, v16_mul(acc[j][1], scale), m - LANES);
        }
    }
}

/* out_j[d] = sum_s weight_j[s] * rows[s][d], s in order; the first `shared` positions for all queries at once. */
SIMD_INLINE void weighted_sums(float *const *out, const float *weights, const int *limits, int n,
                               const float *rows, int capacity, int head_dim,
                               const float *final_scale)
{
    int end = largest_limit(limits, n), shared = end;
    EACH_QUERY {
        shared = limits[j] < shared ? limits[j] : shared;
    }
    for (int d = 0; d < head_dim; d += VECTORS_OF(n) * LANES) {
        int m = head_dim - d, wide = VECTORS_OF(n) == 2 && m > LANES;
        m = m < VECTORS_OF(n) * LANES ? m : VECTORS_OF(n) * LANES;
        /* Behind a row lies the next one, but for the last ones there is nothing. */
        int room = end * head_dim - d - (wide ? 2 : 1) * LANES;
        int whole = m % LANES == 0 ? shared : room < 0 ? 0 : room / head_dim + 1;
        whole = whole < shared ? whole : shared;
        if (wide) {
            weighted_columns(out, d, weights, limits, n, rows + d, capacity, head_dim, m, 2, shared,
                             whole, final_scale);
        } else {
            weighted_columns(out, d, weights, limits, n, rows + d, capacity, head_dim, m, 1, shared,
                             whole, final_scale);
        }
    }
}

SIMD_INLINE void weighted_rows(float *const *out, const float *weights, const int *limits, int n,
                               const float *rows, int capacity, int head_dim,
                               const float *final_scale)
{
#define CALL(N) weighted_sums(out, weights, limits, N, rows, capacity, head_dim, final_scale)
    WITH_CONSTANT_N(n, CALL)
#undef CALL
}

static void attention(float *const *out, const float *const *q, const int *limits, int n_queries,
                      const float *keys, const float *values, int capacity, int head_dim,
                      float scale, float *scratch)
{
    for (int i = 0; i < n_queries; i += QUERY_BLOCK) {
        int n = n_queries - i < QUERY_BLOCK ? n_queries - i : QUERY_BLOCK;
        attention_scores(scratch, q + i, n, largest_limit(limits + i, n), keys, capacity, head_dim,
                         scale);
        float inverse[QUERY_BLOCK];
        for (int j = 0; j < n; j++) {
            inverse[j] = softmax_row(scratch + (size_t)j * (size_t)capacity, limits[i + j]);
        }
        weighted_rows(out + i, scratch, limits + i, n, values, capacity, head_dim, inverse);
    }
}

/* m columns of outer_sums, at target. */
SIMD_INLINE void outer_columns(float *target, int column, const float *weights,
                               const float *const *vectors, const int *limits, int n, int capacity,
                               int head_dim, int m, int n_vectors, int shared, int end)
{
    V16 vector[QUERY_BLOCK][2];
    EACH_QUERY {
        vector[j][0] = load_part(vectors[j] + column, m);
        vector[j][1] = n_vectors == 2 ? load_part(vectors[j] + column + LANES, m - LANES) : v16_zero();
    }
    float *p = target + column;
    for (int s = 0; s < end; s++, p += head_dim) {
        V16 acc0 = load_part(p, m);
        V16 acc1 = n_vectors == 2 ? load_part(p + LANES, m - LANES) : v16_zero();
        EACH_QUERY {
            if (s < shared || s < limits[j]) {
                V16 w = v16_set(weights[(size_t)j * (size_t)capacity + s]);
                acc0 = v16_fma(w, vector[j][0], acc0);
                acc1 = n_vectors == 2 ? v16_fma(w, vector[j][1], acc1) : acc1;
            }
        }
        store_part(p, acc0, m);
        if (n_vectors == 2) {
            store_part(p + LANES, acc1, m - LANES);
        }
    }
}

/* target[s][d] += sum_j weight_j[s] * vector_j[d], j in order, for s below each query's limit. */
SIMD_INLINE void outer_sums(float *target, const float *weights, const float *const *vectors,
                            const int *limits, int n, int capacity, int head_dim)
{
    int end = largest_limit(limits, n), shared = end;
    EACH_QUERY {
        shared = limits[j] < shared ? limits[j] : shared;
    }
    for (int d = 0; d < head_dim; d += VECTORS_OF(n) * LANES) {
        int m = head_dim - d;
        m = m < VECTORS_OF(n) * LANES ? m : VECTORS_OF(n) * LANES;
        if (VECTORS_OF(n) == 2 && m > LANES) {
            outer_columns(target, d, weights, vectors, limits, n, capacity, head_dim, m, 2, shared, end);
        } else {
            outer_columns(target, d, weights, vectors, limits, n, capacity, head_dim, m, 1, shared, end);
        }
    }
}

SIMD_INLINE void outer_rows(float *target, const float *weights, const float *const *vectors,
                            const int *limits, int n, int capacity, int head_dim)
{
#define CALL(N) outer_sums(target, weights, vectors, limits, N, capacity, head_dim)
    WITH_CONSTANT_N(n, CALL)
#undef CALL
}

static void attention_backward(float *const *dq, float *dkeys, float *dvalues,
                               const float *const *dout, const float *const *out,
                               const float *const *q, const int *limits, int n_queries,
                               const float *keys, const float *keys_rows,
                               const float *values_columns, int capacity, int head_dim, float scale,
                               float *scratch)
{
    float *p = scratch, *dp = scratch + (size_t)QUERY_BLOCK * (size_t)capacity;
    for (int i = 0; i < n_queries; i += QUERY_BLOCK) {
        int n = n_queries - i < QUERY_BLOCK ? n_queries - i : QUERY_BLOCK;
        int end = largest_limit(limits + i, n);
        attention_scores(p, q + i, n, end, keys, capacity, head_dim, scale);
        attention_scores(dp, dout + i, n, end, values_columns, capacity, head_dim, 1.0f);
        for (int j = 0; j < n; j++) {
            float *pj = p + (size_t)j * (size_t)capacity, *dpj = dp + (size_t)j * (size_t)capacity;
            int limit = limits[i + j];
            V16 inverse = v16_set(softmax_row(pj, limit)), dots = v16_zero();
            for (int d = 0; d < head_dim; d += LANES) {
                int m = head_dim - d < LANES ? head_dim - d : LANES;
                dots = v16_fma(v16_load_n(dout[i + j] + d, m, 0.0f),
                               v16_load_n(out[i + j] + d, m, 0.0f), dots);
            }
            V16 delta = v16_set(v16_sum(dots)), factor = v16_set(scale);
            for (int s = 0; s < limit; s += LANES) {
                V16 probability = v16_mul(v16_load(pj + s), inverse);
                V16 d = v16_mul(probability, v16_sub(v16_load(dpj + s), delta));
                v16_store(pj + s, probability);
                v16_store(dpj + s, v16_mul(d, factor));
            }
        }
        float ones[QUERY_BLOCK] = {1.0f, 1.0f, 1.0f, 1.0f};
        weighted_rows(dq + i, dp, limits + i, n, keys_rows, capacity, head_dim, ones);
        outer_rows(dkeys, dp, q + i, limits + i, n, capacity, head_dim);
        outer_rows(dvalues, p, dout + i, limits + i, n, capacity, head_dim);
    }
}
