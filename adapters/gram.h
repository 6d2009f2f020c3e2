/* The product with W^T W that the SVD of a large weight is made of: W is read once, row by row,
 * from where it lies (the mapped file), in its own type, for several vectors at a time. Plain
 * multiply and add in one fixed order: the same bits on every CPU. One thread. */
#pragma once
#include "core/safetensors.h"

enum { GRAM_VECTORS = 8, GRAM_ROWS = 8 };

/* W as it lies in its file: row-major (n_out, n_in), any alignment. */
typedef struct {
    const void *data;
    TensorType type;
    int n_out, n_in;
} Weight;

/* z = W^T (W x)   y = W x, kept; the vectors of a group lie side by side
 * z, x: (n_groups, n_in, 8)   y: (n_groups, n_out, 8)   scratch: (8, n_in) */
void gram_apply(float *z, float *y, const float *x, const Weight *w, int n_groups, float *scratch);
