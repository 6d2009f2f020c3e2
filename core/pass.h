/* One run of the transformer over rows of tokens (private to the engine: evaluate.c, generate.c;
 * forward.c and backward.c fill it in). The same forward serves prefill, decoding and training, so
 * their numbers are the same.
 *
 * Invariants
 * 1. Rows of a span are consecutive tokens of one sequence, at positions `position`, `position` +
 * 1, ...
 * 2. Keys and values of positions below `position` are in the span's own buffers before attention
 * runs: they were there (decoding) or are copied from the parent span, layer by layer (training).
 * 3. Spans are in the order of their rows and of the layer they come in at, so that the rows of a
 * layer are the first ones. A span that comes in later starts from the rows of a span that is
 * already there and has run the same layers for both.
 * 4. A pass without backward has one set of buffers for all layers. With one, each layer has its own
 * of those that are kept exactly; see keep.c for the others. */
#pragma once
#include <stdint.h>

#include "core/engine.h"
#include "core/kernels.h"
#include "core/model.h"

typedef struct {
    int sequence, adapter;
    int first_row, n_rows;
    int position;  /* of the first row */
    int parent;    /* index of the span whose positions 0 .. position-1 come before, or -1 */
    int capacity;  /* positions that keys and values hold, a multiple of 16 */
    float *keys;   /* layer l at keys + l * layer_stride: (n_kv_heads, head_dim, capacity) */
    float *values; /* likewise: (n_kv_heads, capacity, head_dim) */
    size_t layer_stride;
    uint16_t *rounded; /* keys and values of all layers as they wait, (n_layers, 2 n); or NULL */
    int layer;      /* the first one that is computed for these rows; 0 when a backward follows */
    int source_row; /* with layer > 0: the rows whose residual stream it starts from */
    int joined;     /* to the span before it: one slice holds both */
} Span;

typedef enum {
    ROW_X_IN,
    ROW_X_MID,
    ROW_Q,
    ROW_Q_IN,
    ROW_K_IN,
    ROW_ATTENTION,
    ROW_GATE,
    ROW_UP,
    N_ROW_BUFFERS
} RowBuffer;

/* Rows of one layer. */
typedef struct {
    union {
        struct {
            float *x_in;      /* (rows, D) residual before the layer */
            float *x_mid;     /* (rows, D) after attention */
            float *q;         /* (rows, n_heads * head_dim), rotated */
            float *q_in;      /* likewise as projected, before its norm, where a norm's backward wants
                               * it; else q */
            float *k_in;      /* the same of keys, (rows, n_kv_heads * head_dim); else NULL, and it is
                               * in keys_new */
            float *attention; /* (rows, n_heads * head_dim) */
            float *gate, *up; /* (rows, ff) */
        };
        float *rows[N_ROW_BUFFERS];
    };
    uint16_t *rounded[N_ROW_BUFFERS]; /* the same as they wait for the backward; NULL: not rounded */
    float *saved[N_ROLES];            /* what the hook keeps */
} LayerRows;

/* How a buffer of a layer waits for the backward. */
typedef enum {
    KEPT_EXACT,   /* in f32, a buffer for each layer */
    KEPT_ROUNDED, /* in 16 bits */
    KEPT_NOT      /* computed again */
} Kept;

typedef struct Pass {
    const Model *model;
    const Kernels *kernels;
    const float *rope; /* (positions, head_dim): cos of head_dim / 2 angles, then sin */
    const LinearHook *hook;
    int n_threads;
    int keep; /* a backward follows */
    Checkpointing checkpointing;
    TensorType precision;

    const int32_t *tokens; /* (n_rows) */
    int n_rows;
    Span *spans;
    RowSpan *hook_spans; /* the same spans as the hook wants them */
    int n_spans;
    int n_pieces; /* runs of joined spans that slices must follow; 0: slices are cut by size */

    LayerRows *layers;            /* (n_layers); all the same buffers when !keep */
    float *x_out;                 /* (rows, D) residual after the last layer */
    float *normed;                /* (rows, D) */
    float *wide;                  /* (rows, ff): the activation of the MLP */
    float *keys_new, *values_new; /* (rows, n_kv_heads * head_dim) */
    float *projected;             /* (rows, D) */
    float *attention_scratch;     /* (n_threads, scratch_stride) */
    size_t scratch_stride;

    /* backward only */
    float *dx;              /* (rows, D); is `projected` where dx_rounded is */
    uint16_t *dx_rounded;   /* the same between layers, or NULL */
    float *dnormed;         /* (rows, D) */
    float *dwide, *dup;     /* (rows, ff) */
    float *dq;              /* (rows, n_heads * head_dim) */
    float *dk, *dv;         /* (rows, n_kv_heads * head_dim) */
    float *dattention;      /* (rows, n_heads * head_dim) */
    float *weight_gradient; /* (n_parameters), or NULL */
    struct Pass
        *slices; /* (PASS_SLICES) see slice.c; each with its own layers, spans, hook_spans */
    double *norm_gradient; /* (D or head_dim, the larger) scratch for weight gradients, ... */
    float *norm_unused;    /* ... and for a dx that nobody wants */
    int *roots;            /* (n_spans) scratch */
} Pass;

/* Fill x_out from tokens. */
void pass_forward(Pass *pass);
/* From dx = gradient by x_out, down to the lowest adapted layer; calls the hook's begin and end
 * around it. */
Status pass_backward(Pass *pass, Error *error);

/* The same for the rows of one pass, layer by layer on pass->n_threads. */
void pass_forward_rows(Pass *pass);
void pass_backward_rows(Pass *pass, int lowest_layer);
/* What a layer's backward reads and is KEPT_NOT, again. */
void pass_recompute_layer(Pass *pass, int layer);

/* keep.c: a layer's buffers, as computed, are put away, and taken back in time for its backward;
 * so is dx between the layers. */
int pass_row_width(const Pass *pass, RowBuffer buffer); /* floats; 0: not there */
Kept pass_kept(const Pass *pass, RowBuffer buffer);
Kept pass_kept_keys(const Pass *pass); /* and values */
void pass_put_layer(Pass *pass, int layer);
void pass_take_layer(Pass *pass, int layer);
void pass_put_gradient(Pass *pass);
void pass_take_gradient(Pass *pass);

enum { PASS_SLICES = 32 };

/* Rows that one slice of a pass should have; 0: the pass is better run as a whole. */
int pass_slice_rows(const Model *model, int n_rows, int n_threads);

/* Floats of scratch a thread needs for trees of these capacities: (parent, longest child). */
size_t pass_forward_scratch(size_t capacity);
size_t pass_backward_scratch(const ModelConfig *config, size_t parent, size_t child);

/* gradient += dy^T x, by OpenBLAS.  gradient: (n_out, n_in)  dy: (rows, ld_dy)  x: (rows, n_in) */
void pass_weight_gradient(const Pass *pass, float *gradient, const float *dy, int ld_dy,
                          const float *x, int n_out, int n_in, int rows);

/* dg of a normalisation, added at `offset` of the weight gradient. dy, x: (rows, D)  g: (D) */
void pass_norm_gradient(Pass *pass, size_t offset, const float *dy, const float *x, const float *g,
                        int rows, int D);
