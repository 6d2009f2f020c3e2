/* Eight rows of W at a time stay in the cache while they are used twice: y = W x of these rows,
 * then z += W^T y. */
#include "adapters/gram.h"

#include <stdint.h>
#include <string.h>

enum { PIECE = 512 }; /* a sum over n_in goes in pieces: shorter sums round less */
typedef float Lanes __attribute__((vector_size(GRAM_VECTORS * sizeof(float))));
typedef float LooseLanes
    __attribute__((vector_size(GRAM_VECTORS * sizeof(float)), aligned(4), may_alias));

/* One body, compiled for each family of CPUs; without contraction all compute the same bits. v4,
 * not avx512f: eight lanes with an operand that is one number repeated. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

/* y[r] = sum_k w[r][k] x[k]   y: (8, 8)   w: (8, n)   x: (n, 8) */
FOR_EACH_CPU
static void multiply_rows(float *y, const float *w, const float *x, int n)
{
    Lanes sum[GRAM_ROWS] = {{0}};
    for (int start = 0; start < n; start += PIECE) {
        int end = n - start < PIECE ? n : start + PIECE;
        Lanes part[GRAM_ROWS] = {{0}};
        for (int k = start; k < end; k++) {
            Lanes at = *(const LooseLanes *)(x + (size_t)k * GRAM_VECTORS);
#pragma GCC unroll 8
            for (int r = 0; r < GRAM_ROWS; r++) {
                part[r] += w[(size_t)r * n + k] * at;
            }
        }
        for (int r = 0; r < GRAM_ROWS; r++) {
            sum[r] += part[r];
        }
    }
    memcpy(y, sum, sizeof sum);
}

/* z[k] += sum_r w[r][k] y[r]   z: (n, 8)   w: (8, n)   y: (8, 8) */
FOR_EACH_CPU
static void add_columns(float *z, const float *w, const float *y, int n)
{
    Lanes row[GRAM_ROWS];
    memcpy(row, y, sizeof row);
    for (int k = 0; k < n; k++) {
        LooseLanes *to = (LooseLanes *)(z + (size_t)k * GRAM_VECTORS);
        Lanes even = w[k] * row[0], odd = w[n + k] * row[1]; /* two chains: neither waits */
#pragma GCC unroll 4
        for (int r = 2; r < GRAM_ROWS; r += 2) {
            even += w[(size_t)r * n + k] * row[r];
            odd += w[(size_t)(r + 1) * n + k] * row[r + 1];
        }
        *to += even + odd;
    }
}

/* Eight rows from `first` on as f32, where they lie if they can be read there; rows beyond the last
 * are zero. */
static const float *rows_at(const Weight *w, int first, int n_rows, float *scratch)
{
    size_t n_in = (size_t)w->n_in, size = tensor_type_size(w->type), n = (size_t)n_rows * n_in;
    const char *data = (const char *)w->data + (size_t)first * n_in * size;
    if (w->type == TENSOR_F32 && n_rows == GRAM_ROWS && (uintptr_t)data % _Alignof(float) == 0) {
        return (const float *)(const void *)data;
    }
    tensor_to_f32(scratch, data, w->type, n);
    memset(scratch + n, 0, (GRAM_ROWS * n_in - n) * sizeof *scratch);
    return scratch;
}

void gram_apply(float *z, float *y, const float *x, const Weight *w, int n_groups, float *scratch)
{
    size_t n_out = (size_t)w->n_out, n_in = (size_t)w->n_in;
    memset(z, 0, (size_t)n_groups * n_in * GRAM_VECTORS * sizeof *z);
    for (int first = 0; first < w->n_out; first += GRAM_ROWS) {
        int n_rows = w->n_out - first < GRAM_ROWS ? w->n_out - first : GRAM_ROWS;
        const float *rows = rows_at(w, first, n_rows, scratch);
        for (size_t g = 0; g < (size_t)n_groups; g++) {
            float products[GRAM_ROWS * GRAM_VECTORS];
            multiply_rows(products, rows, x + g * n_in * GRAM_VECTORS, w->n_in);
            add_columns(z + g * n_in * GRAM_VECTORS, rows, products, w->n_in);
            memcpy(y + (g * n_out + (size_t)first) * GRAM_VECTORS, products,
                   (size_t)n_rows * GRAM_VECTORS * sizeof *y);
        }
    }
}
