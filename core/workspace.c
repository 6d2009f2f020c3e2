/* The buffers of a pass, and the table of rotary angles. */
#include "core/workspace.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/block.h"

enum { ALIGNMENT = 64 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void workspace_release(Workspace *workspace)
{
    free(workspace->block);
    *workspace = (Workspace){0};
}

Status workspace_reset(Workspace *workspace, size_t bytes, Error *error)
{
    workspace->used = 0;
    if (bytes <= workspace->capacity) {
        return STATUS_OK;
    }
    workspace_release(workspace);
    workspace->block = block_new(bytes);
    if (!workspace->block) {
        return error_set(error, STATUS_FAILED, "out of memory: a batch wants %.2f GiB",
                         (double)bytes / 0x1p30);
    }
    workspace->capacity = bytes;
    return STATUS_OK;
}

void *workspace_take(Workspace *workspace, size_t bytes)
{
    void *place = workspace->block + workspace->used;
    workspace->used += aligned(bytes);
    assert(workspace->used <= workspace->capacity);
    return place;
}

/* With block NULL only the bytes are counted, so that counting and cutting cannot drift apart. */
static float *take(Workspace *workspace, size_t floats)
{
    if (!workspace->block) {
        workspace->used += aligned(floats * sizeof(float));
        return NULL;
    }
    return workspace_take(workspace, floats * sizeof(float));
}

static uint16_t *take_rounded(Workspace *workspace, size_t n)
{
    return (uint16_t *)(void *)take(workspace, (n + 1) / 2);
}

/* Buffers that are not the layer's own are those of the first layer. */
static void cut_layer(Workspace *workspace, LayerRows *rows, const Pass *pass, int layer)
{
    for (int b = 0; b < N_ROW_BUFFERS; b++) {
        size_t n = (size_t)pass->n_rows * (size_t)pass_row_width(pass, b);
        Kept kept = pass_kept(pass, b);
        if (layer == 0 || n == 0 || (pass->keep && kept == KEPT_EXACT)) {
            rows->rows[b] = n > 0 ? take(workspace, n) : NULL;
        }
        if (n > 0 && pass->keep && kept == KEPT_ROUNDED) {
            rows->rounded[b] = take_rounded(workspace, n);
        }
    }
    rows->q_in = rows->q_in ? rows->q_in : rows->q;
    for (int role = 0; role < N_ROLES && pass->keep; role++) {
        rows->saved[role] = NULL;
        if (pass->hook) {
            size_t T = (size_t)pass->n_rows;
            int width = pass->hook->saved_width(pass->hook->context, layer * N_ROLES + role);
            rows->saved[role] = width > 0 ? take(workspace, T * (size_t)width) : NULL;
        }
    }
}

static void cut(Workspace *workspace, Pass *pass, LayerRows *layers, int weights)
{
    const ModelConfig *c = &pass->model->config;
    size_t T = (size_t)pass->n_rows, D = (size_t)c->width, FF = (size_t)c->ff_width;
    size_t Q = (size_t)c->n_heads * (size_t)c->head_dim;
    size_t KV = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    LayerRows first = {0};
    for (int l = 0; l < c->n_layers; l++) {
        LayerRows rows = first;
        cut_layer(workspace, &rows, pass, l);
        first = l == 0 ? rows : first;
        if (layers) {
            layers[l] = rows;
        }
    }
    bool own = pass->keep && pass_kept(pass, ROW_X_IN) == KEPT_EXACT;
    pass->x_out = own ? take(workspace, T * D) : first.x_in;
    pass->normed = take(workspace, T * D);
    pass->wide = take(workspace, T * FF);
    pass->keys_new = take(workspace, T * KV);
    pass->values_new = take(workspace, T * KV);
    pass->projected = take(workspace, T * D);
    if (pass->keep) {
        bool rounded = pass->precision != TENSOR_F32;
        pass->dx_rounded = rounded ? take_rounded(workspace, T * D) : NULL;
        pass->dx = rounded ? pass->projected : take(workspace, T * D);
        pass->dnormed = take(workspace, T * D);
        pass->dwide = take(workspace, T * FF);
        pass->dup = take(workspace, T * FF);
        pass->dq = take(workspace, T * Q);
        pass->dk = take(workspace, T * KV);
        pass->dv = take(workspace, T * KV);
        pass->dattention = take(workspace, T * Q);
        pass->roots = (int *)(void *)take(workspace, (size_t)pass->n_spans);
    }
    if (weights) {
        size_t widest = c->head_dim > c->width ? (size_t)c->head_dim : D;
        pass->norm_gradient = (double *)(void *)take(workspace, 2 * widest);
        pass->norm_unused = take(workspace, widest);
    }
}

size_t workspace_pass_bytes(const Pass *pass, int weights)
{
    Workspace counter = {0};
    Pass copy = *pass;
    cut(&counter, &copy, NULL, weights);
    size_t layers =
        (PASS_SLICES + 1) * aligned((size_t)pass->model->config.n_layers * sizeof(LayerRows));
    size_t n = (size_t)pass->n_spans;
    size_t spans = aligned(n * sizeof(Span)) + aligned(n * sizeof(RowSpan));
    return counter.used + layers + spans + aligned(PASS_SLICES * sizeof(Pass));
}

static size_t keys_floats(const Pass *pass, int capacity)
{
    const ModelConfig *c = &pass->model->config;
    return (size_t)c->n_kv_heads * (size_t)c->head_dim * (size_t)capacity;
}

static void cut_keys(Workspace *workspace, const Pass *pass, Span *span)
{
    size_t n = keys_floats(pass, span->capacity), layers = (size_t)pass->model->config.n_layers;
    Kept kept = pass->keep ? pass_kept_keys(pass) : KEPT_NOT;
    span->layer_stride = kept == KEPT_EXACT ? 2 * n : 0;
    span->keys = take(workspace, 2 * n * (kept == KEPT_EXACT ? layers : 1));
    span->values = span->keys ? span->keys + n : NULL;
    span->rounded = kept == KEPT_ROUNDED ? take_rounded(workspace, 2 * n * layers) : NULL;
}

size_t workspace_keys_bytes(const Pass *pass, int capacity)
{
    Workspace counter = {0};
    cut_keys(&counter, pass, &(Span){.capacity = capacity});
    return counter.used;
}

void workspace_cut_keys(Workspace *workspace, const Pass *pass, Span *span)
{
    cut_keys(workspace, pass, span);
}

void workspace_cut_pass(Workspace *workspace, Pass *pass, int weights)
{
    size_t layers = (size_t)pass->model->config.n_layers * sizeof(LayerRows);
    pass->layers = workspace_take(workspace, layers);
    cut(workspace, pass, pass->layers, weights);
    pass->slices = workspace_take(workspace, PASS_SLICES * sizeof *pass->slices);
    Span *spans = workspace_take(workspace, (size_t)pass->n_spans * sizeof *spans);
    RowSpan *hook_spans = workspace_take(workspace, (size_t)pass->n_spans * sizeof *hook_spans);
    for (int i = 0; i < PASS_SLICES; i++) {
        pass->slices[i] = (Pass){.layers = workspace_take(workspace, layers)};
    }
    pass->slices[0].spans = spans; /* shared out anew by each run */
    pass->slices[0].hook_spans = hook_spans;
}

Status rope_grow(Rope *rope, const ModelConfig *config, int n, Error *error)
{
    size_t hd = (size_t)config->head_dim, half = hd / 2;
    if (n <= rope->n) {
        return STATUS_OK;
    }
    n = n > 2 * rope->n ? n : 2 * rope->n; /* so that one more and one more is linear */
    float *table = realloc(rope->table, (size_t)n * hd * sizeof *table);
    rope->table = table ? table : rope->table;
    double *frequencies = malloc(half * sizeof *frequencies);
    if (!table || !frequencies) {
        free(frequencies);
        return error_set(error, STATUS_FAILED, "out of memory: %d positions of rotary angles", n);
    }
    double scale = rope_frequencies(frequencies, config);
    for (int p = rope->n; p < n; p++) {
        for (size_t i = 0; i < half; i++) {
            table[(size_t)p * hd + i] = (float)(scale * cos(p * frequencies[i]));
            table[(size_t)p * hd + half + i] = (float)(scale * sin(p * frequencies[i]));
        }
    }
    rope->n = n;
    free(frequencies);
    return STATUS_OK;
}
