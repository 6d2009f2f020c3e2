/* A hook call's rows, divided among threads. Inside this folder only. */
#pragma once
#include <stdbool.h>

#include "core/hook.h"

int rows_count(const RowSpan *spans, int n_spans);

/* The rows [first, last) that are one share of n_rows, counted over the spans of a call: threads
 * get whole blocks of four. */
void rows_share(int *first, int *last, int n_rows, int share, int n_shares);

/* Clip a span that starts at count `start` of the call's rows to [first, last); false when nothing
 * is left. */
bool rows_clip(RowSpan *span, int start, int first, int last);

/* How many shares of n_rows rows of a layer are worth a thread each: 1 or n_threads. */
int rows_threads(int n_rows, int rank, int n_in, int n_out, int n_threads);
