#include "adapters/outer.h"

#include <string.h>

#include "adapters/thin.h"

enum {
    SUM_DOUBLES = 4096, /* of a sum on the stack: all ranks of some columns */
    MOST_COLUMNS = 256,
    MOST_ROWS = 64 /* that go into it at a time */
};

int outer_columns(int rank)
{
    int n = SUM_DOUBLES / rank / 8 * 8;
    return n > MOST_COLUMNS ? MOST_COLUMNS : n;
}

int outer_tasks(int rank, int width)
{
    int columns = outer_columns(rank);
    return (width + columns - 1) / columns;
}

void outer_add(double *sum, const float *g, int rank, const float *x, int width, OuterMask mask,
               const RowSpan *span, int task)
{
    double total[SUM_DOUBLES], wide[SUM_DOUBLES];
    float strip[MOST_ROWS * MOST_COLUMNS];
    int first = task * outer_columns(rank);
    int n = width - first < outer_columns(rank) ? width - first : outer_columns(rank);
    int block = SUM_DOUBLES / rank < MOST_ROWS ? SUM_DOUBLES / rank : MOST_ROWS;
    memset(total, 0, (size_t)rank * n * sizeof *total);
    for (int t = 0; t < span->n_rows; t += block) {
        int rows = span->n_rows - t < block ? span->n_rows - t : block, ld = width;
        size_t row = (size_t)span->first_row + t;
        const float *columns = x + row * width + first;
        for (int e = 0; e < rows * rank; e++) {
            wide[e] = (double)g[row * rank + e];
        }
        if (mask.dropout) {
            dropout_columns(strip, columns, width, mask.dropout, span->key, mask.module, t, rows,
                            first, n);
            columns = strip;
            ld = n;
        }
        thin_outer_columns(total, wide, columns, ld, rows, n, rank);
    }
    for (int j = 0; j < rank; j++) {
        for (int c = 0; c < n; c++) {
            sum[(size_t)j * width + first + c] += total[(size_t)j * n + c];
        }
    }
}
