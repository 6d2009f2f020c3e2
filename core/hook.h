/* What an adapter is to the engine: something added to the output of each linear layer, and its backward.
 * core knows nothing of adapters; adapters/ fills this in. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* Rows of one sequence inside the rows of a call: contiguous, one adapter. */
typedef struct {
    int sequence;  /* index of the sequence in the batch */
    int adapter;   /* 0: the base model, nothing is added */
    int first_row; /* in x, y, saved */
    int n_rows;
    int index;     /* among the spans of the whole backward: those that begin is told of */
    uint64_t key;  /* the sequence's, of dropout; 0: none */
} RowSpan;

typedef struct {
    const float *x; /* (rows, n_in) input of the linear layer */
    float *y;       /* (rows, n_out) its output, already W x + bias */
    float *saved;   /* (rows, saved_width(module)) kept for the backward; NULL when no backward follows */
} HookForward;

typedef struct {
    float *dx;          /* (rows, n_in) add the adapter's part of the input gradient here; NULL: not needed */
    const float *dy;    /* (rows, n_out) */
    const float *x;     /* (rows, n_in) the layer's input; NULL unless needs_input */
    const float *saved; /* (rows, saved_width) */
} HookBackward;

/* module = layer * N_ROLES + role. All calls obey the law: a row's numbers depend on that row alone, and a sequence's
 * gradient is summed over its rows in order, then over sequences in the order of their index. forward and backward may
 * run at the same moment on different spans. */
typedef struct {
    void *context;
    bool needs_input;
    bool ordered; /* backward wants all spans of a module in one call, so that it can add up sequences itself */
    int lowest_layer; /* the backward stops below this layer */
    int (*saved_width)(const void *context, int module); /* floats kept a row; 0 when the module is not adapted */
    void (*forward)(void *context, int module, const HookForward *call, const RowSpan *spans, int n_spans,
                    int n_threads);
    void (*backward)(void *context, int module, const HookBackward *call, const RowSpan *spans, int n_spans,
                     int n_threads);
    /* Around a backward: all its spans, in order of sequence. end adds the per-sequence sums to the adapters'
     * gradients, sequence by sequence, in double. Either may be NULL. */
    Status (*begin)(void *context, const RowSpan *spans, int n_spans, Error *error);
    void (*end)(void *context, const RowSpan *spans, int n_spans);
} LinearHook;
