/* The buffers of a pass, and the table of rotary angles. */
#include "core/workspace.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

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
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    workspace->block = aligned_alloc(alignment, bytes);
    if (workspace->block && alignment == HUGE_PAGE) {
        madvise(workspace->block, bytes, MADV_HUGEPAGE); /* fewer page faults and misses */
    }
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

static void cut_layer(Workspace *workspace, LayerRows *rows, const Pass *pass, int layer)
{
    const ModelConfig *c = &pass->model->config;
    size_t T = (size_t)pass->n_rows, D = (size_t)c->width, FF = (size_t)c->ff_width;
    size_t Q = (size_t)c->n_heads * (size_t)c->head_dim;
    rows->x_in = take(workspace, T * D);
    rows->x_mid = take(workspace, T * D);
    rows->q = rows->q_in = take(workspace, T * Q);
    rows->k_in = NULL;
    if (c->qk_norm && pass->keep) {
        rows->q_in = take(workspace, T * Q);
        rows->k_in = take(workspace, T * (size_t)c->n_kv_heads * (size_t)c->head_dim);
    }
    rows->attention = take(workspace, T * Q);
    rows->gate = take(workspace, T * FF);
    rows->up = take(workspace, T * FF);
    for (int role = 0; role < N_ROLES; role++) {
        rows->saved[role] = NULL;
        if (pass->hook && pass->keep) {
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
        if (l == 0 || pass->keep) {
            cut_layer(workspace, &rows, pass, l);
            first = l == 0 ? rows : first;
        }
        if (layers) {
            layers[l] = rows;
        }
    }
    pass->x_out = pass->keep ? take(workspace, T * D) : first.x_in;
    pass->normed = take(workspace, T * D);
    pass->wide = take(workspace, T * FF);
    pass->keys_new = take(workspace, T * KV);
    pass->values_new = take(workspace, T * KV);
    pass->projected = take(workspace, T * D);
    if (pass->keep) {
        pass->dx = take(workspace, T * D);
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

size_t workspace_pass_bytes(const Model *model, const LinearHook *hook, int n_rows, int n_spans,
                            int keep, int weights)
{
    Workspace counter = {0};
    Pass pass = {.model = model, .hook = hook, .n_rows = n_rows, .n_spans = n_spans, .keep = keep};
    cut(&counter, &pass, NULL, weights);
    size_t layers = (PASS_SLICES + 1) * aligned((size_t)model->config.n_layers * sizeof(LayerRows));
    size_t spans = aligned((size_t)n_spans * sizeof(Span)) + aligned((size_t)n_spans * sizeof(RowSpan));
    return counter.used + layers + spans + aligned(PASS_SLICES * sizeof(Pass));
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

float *rope_table(const ModelConfig *config)
{
    int hd = config->head_dim, half = hd / 2;
    float *table = malloc((size_t)config->max_positions * (size_t)hd * sizeof *table);
    double *frequencies = malloc((size_t)half * sizeof *frequencies);
    if (!table || !frequencies) {
        free(table);
        free(frequencies);
        return NULL;
    }
    double scale = rope_frequencies(frequencies, config);
    for (int i = 0; i < half; i++) {
        double frequency = frequencies[i];
        for (int p = 0; p < config->max_positions; p++) {
            table[(size_t)p * (size_t)hd + (size_t)i] = (float)(scale * cos(p * frequency));
            table[(size_t)p * (size_t)hd + (size_t)(i + half)] = (float)(scale * sin(p * frequency));
        }
    }
    free(frequencies);
    return table;
}
