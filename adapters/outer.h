/* Gradients of an adapter's matrices: sums of outer products over the rows of a sequence. Threads
 * share the columns, so that every element is summed row after row. Inside this folder only. */
#pragma once
#include <stddef.h>

#include "adapters/dropout.h"
#include "core/hook.h"

/* x as dropout left it, drawn again; dropout NULL: x as it is. */
typedef struct {
    const Dropout *dropout;
    int module; /* layer * N_ROLES + role */
} OuterMask;

/* Columns that one task sums, a multiple of 8, and how many tasks cover a width. rank <= 256 */
int outer_columns(int rank);
int outer_tasks(int rank, int width);

/* Task `task` of sum[j][i] += (sum over the span's rows of g[t][j] x[t][i]), the inner sum from 0
 * in double.
 * sum: (rank, width)   g: (rows of the call, rank)   x: (rows of the call, width) */
void outer_add(double *sum, const float *g, int rank, const float *x, int width, OuterMask mask,
               const RowSpan *span, int task);
