/* A frozen weight matrix packed for core/matmul, and the products by the one law: the sum over k of one output element
 * runs sequentially in k with fused multiply-adds, whatever the number of rows, threads, or the CPU's kernels. */
#pragma once
#include <stddef.h>

#include "core/safetensors.h"
#include "core/status.h"

#define MATRIX_PANEL 32 /* output columns per panel */

/* W of shape (n_out, n_in); storage: panels of 32 outputs, packed[panel][k][32], the last panel zero-padded. */
typedef struct {
    int n_out, n_in;
    TensorType type;
    void *packed; /* 64-byte aligned, n_panels * n_in * 32 elements of type; core/kernels.h has quantised ones */
} Matrix;

size_t matrix_bytes(const Matrix *matrix); /* of packed */

/* Memory for a matrix of that shape, none of it resident before it is filled. */
Status matrix_reserve(Matrix *matrix, TensorType type, int n_out, int n_in, Error *error);
/* The rows of a tensor of that type and shape into it, in order; a quantised one stays so, and is dequantised where it
 * is multiplied. */
void matrix_fill(Matrix *matrix, const Tensor *tensor, int n_threads);
/* Both. data: (n_out, n_in) row-major of the given type, any alignment. */
Status matrix_pack(Matrix *matrix, const void *data, TensorType type, int n_out, int n_in, int n_threads,
                   Error *error);
/* Overwrite the packed values (same shape, f32 matrices): full-parameter training. */
void matrix_repack(Matrix *matrix, const float *data, int n_threads);
void matrix_release(Matrix *matrix);

/* y[t] = x[t] W^T (+ bias):  y: (rows, ldy >= n_out)  x: (rows, ldx >= n_in)  bias: (n_out) or NULL. */
void matrix_forward(float *y, int ldy, const float *x, int ldx, const Matrix *w, const float *bias, int rows,
                    int n_threads);
/* dx[t] (+)= dy[t] W:  dx: (rows, ldx)  dy: (rows, ldy). accumulate: add to dx instead of overwriting. */
void matrix_backward(float *dx, int ldx, const float *dy, int ldy, const Matrix *w, int rows, int accumulate,
                     int n_threads);
