#include "adapters/rows.h"

enum {
    ROW_BLOCK = 4,
    PARALLEL_WORK = 200000 /* multiply-adds below which threads cost more than they give */
};

int rows_count(const RowSpan *spans, int n_spans)
{
    int n_rows = 0;
    for (int i = 0; i < n_spans; i++) {
        n_rows += spans[i].n_rows;
    }
    return n_rows;
}

void rows_share(int *first, int *last, int n_rows, int share, int n_shares)
{
    int blocks = (n_rows + ROW_BLOCK - 1) / ROW_BLOCK;
    *first = (int)((long)blocks * share / n_shares) * ROW_BLOCK;
    *last = (int)((long)blocks * (share + 1) / n_shares) * ROW_BLOCK;
    *last = *last < n_rows ? *last : n_rows;
}

bool rows_clip(RowSpan *span, int start, int first, int last)
{
    int from = first > start ? first - start : 0;
    int to = last - start < span->n_rows ? last - start : span->n_rows;
    span->first_row += from;
    span->n_rows = to - from;
    return to > from;
}

int rows_threads(int n_rows, int rank, int n_in, int n_out, int n_threads)
{
    return (double)n_rows * rank * ((double)n_in + n_out) > PARALLEL_WORK ? n_threads : 1;
}
