/* What waits for the backward, and how: in f32, rounded to 16 bits, or not at all. Two rules make
 * one gradient of every checkpointing. The forward goes on from what it computed, never from what
 * was rounded; what is computed again starts from buffers that were kept exactly, and is rounded
 * then. */
#include "core/pass.h"

#include "core/parallel.h"
#include "core/safetensors.h"

enum { ROWS_PER_TASK = 16, AT_ONCE = 256 };

int pass_row_width(const Pass *pass, RowBuffer buffer)
{
    const ModelConfig *c = &pass->model->config;
    bool norm = c->qk_norm && pass->keep;
    switch (buffer) {
    case ROW_X_IN:
    case ROW_X_MID:
        return c->width;
    case ROW_Q:
    case ROW_ATTENTION:
        return c->n_heads * c->head_dim;
    case ROW_Q_IN:
        return norm ? c->n_heads * c->head_dim : 0;
    case ROW_K_IN:
        return norm ? c->n_kv_heads * c->head_dim : 0;
    default:
        return c->ff_width;
    }
}

Kept pass_kept(const Pass *pass, RowBuffer buffer)
{
    Kept kept = pass->precision == TENSOR_F32 ? KEPT_EXACT : KEPT_ROUNDED;
    switch (pass->checkpointing) {
    case CHECKPOINTING_SELECTIVE: /* gate and up start from x_mid */
        return buffer == ROW_GATE || buffer == ROW_UP ? KEPT_NOT
               : buffer == ROW_X_MID                  ? KEPT_EXACT
                                                      : kept;
    case CHECKPOINTING_FULL:
        return buffer == ROW_X_IN ? KEPT_EXACT : KEPT_NOT;
    case CHECKPOINTING_NONE:
        break;
    }
    return kept;
}

Kept pass_kept_keys(const Pass *pass)
{
    return pass_kept(pass, ROW_Q);
}

typedef struct {
    Pass *pass;
    int layer;
    int put;
} KeepJob;

static void round_in_place(float *rows, TensorType type, size_t n)
{
    uint16_t some[AT_ONCE];
    for (size_t i = 0; i < n; i += AT_ONCE) {
        size_t m = n - i < AT_ONCE ? n - i : AT_ONCE;
        tensor_from_f32(some, rows + i, type, m);
        tensor_to_f32(rows + i, some, type, m);
    }
}

/* Away, or back: rows that do not wait in 16 bits are rounded only then. */
static void keep(float *rows, uint16_t *rounded, TensorType type, int put, size_t n)
{
    if (put && rounded) {
        tensor_from_f32(rounded, rows, type, n);
    } else if (!put && rounded) {
        tensor_to_f32(rows, rounded, type, n);
    } else if (!put) {
        round_in_place(rows, type, n);
    }
}

static void keep_rows(void *context, int i, int thread)
{
    (void)thread;
    const KeepJob *job = context;
    Pass *pass = job->pass;
    LayerRows *layer = &pass->layers[job->layer];
    int rows = pass->n_rows - i * ROWS_PER_TASK;
    rows = rows < ROWS_PER_TASK ? rows : ROWS_PER_TASK;
    for (int b = 0; b < N_ROW_BUFFERS; b++) {
        size_t width = (size_t)pass_row_width(pass, b);
        size_t first = (size_t)i * ROWS_PER_TASK * width;
        if (width > 0) {
            keep(layer->rows[b] + first, layer->rounded[b] ? layer->rounded[b] + first : NULL,
                 pass->precision, job->put, (size_t)rows * width);
        }
    }
}

static void keep_keys(void *context, int i, int thread)
{
    (void)thread;
    const KeepJob *job = context;
    const ModelConfig *c = &job->pass->model->config;
    const Span *span = &job->pass->spans[i];
    size_t n = 2 * (size_t)c->n_kv_heads * (size_t)c->head_dim * (size_t)span->capacity;
    size_t l = (size_t)job->layer;
    keep(span->keys + l * span->layer_stride, span->rounded ? span->rounded + l * n : NULL,
         job->pass->precision, job->put, n);
}

static int row_tasks(const Pass *pass)
{
    return (pass->n_rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
}

static void keep_layer(Pass *pass, int layer, int put)
{
    KeepJob job = {pass, layer, put};
    if (pass->precision != TENSOR_F32) {
        parallel_for(row_tasks(pass), pass->n_threads, keep_rows, &job);
        parallel_for(pass->n_spans, pass->n_threads, keep_keys, &job);
    }
}

void pass_put_layer(Pass *pass, int layer)
{
    keep_layer(pass, layer, 1);
}

void pass_take_layer(Pass *pass, int layer)
{
    if (layer + 1 < pass->model->config.n_layers) { /* the last one's are still there */
        pass_recompute_layer(pass, layer);
    }
    keep_layer(pass, layer, 0);
}

static void keep_gradient(void *context, int i, int thread)
{
    (void)thread;
    const KeepJob *job = context;
    Pass *pass = job->pass;
    size_t D = (size_t)pass->model->config.width, first = (size_t)i * ROWS_PER_TASK * D;
    int rows = pass->n_rows - i * ROWS_PER_TASK;
    rows = rows < ROWS_PER_TASK ? rows : ROWS_PER_TASK;
    keep(pass->dx + first, pass->dx_rounded + first, pass->precision, job->put, (size_t)rows * D);
}

void pass_put_gradient(Pass *pass)
{
    KeepJob job = {pass, 0, 1};
    parallel_for(pass->dx_rounded ? row_tasks(pass) : 0, pass->n_threads, keep_gradient, &job);
}

void pass_take_gradient(Pass *pass)
{
    KeepJob job = {pass, 0, 0};
    parallel_for(pass->dx_rounded ? row_tasks(pass) : 0, pass->n_threads, keep_gradient, &job);
}
