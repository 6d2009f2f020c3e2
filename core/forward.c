/* The transformer forward (Touvron et al. 2023: pre-norm, rotary positions, grouped-query
 * attention, SwiGLU). */
#include "core/pass.h"

#include <string.h>

#include "core/parallel.h"

enum { ROWS_PER_TASK = 16 };

static int n_row_tasks(const Pass *pass)
{
    return (pass->n_rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
}

static int last_row(const Pass *pass, int task)
{
    int last = (task + 1) * ROWS_PER_TASK;
    return last < pass->n_rows ? last : pass->n_rows;
}

/* y = W x + bias, and what the adapter adds. */
static void pass_linear(Pass *pass, int layer, Role role, float *y, const float *x)
{
    const Layer *weights = &pass->model->layers[layer];
    const Matrix *w = &weights->weight[role];
    matrix_forward(y, w->n_out, x, w->n_in, w, weights->bias[role], pass->n_rows, pass->n_threads);
    int module = layer * N_ROLES + (int)role;
    if (pass->hook && pass->hook->saved_width(pass->hook->context, module) > 0) {
        HookForward call = {x, y, pass->layers[layer].saved[role]};
        pass->hook->forward(pass->hook->context, module, &call, pass->hook_spans, pass->n_spans,
                            pass->n_threads);
    }
}

typedef struct {
    Pass *pass;
    int layer;
} LayerJob;

static void embed(void *context, int i, int thread)
{
    (void)thread;
    const Pass *pass = context;
    const Model *model = pass->model;
    size_t D = (size_t)model->config.width, bytes = tensor_type_bytes(model->embedding_type, D);
    for (int r = i * ROWS_PER_TASK; r < last_row(pass, i); r++) {
        const char *row = (const char *)model->embedding + (size_t)pass->tokens[r] * bytes;
        tensor_to_f32(pass->layers[0].x_in + (size_t)r * D, row, model->embedding_type, D);
    }
}

typedef struct {
    Pass *pass;
    float *out;
    const float *a, *b;
    int width; /* of a row */
    float eps;
    void (*row)(const Kernels *, float *out, const float *a, const float *b, int n, float eps);
} ElementJob;

static void run_elements(void *context, int i, int thread)
{
    (void)thread;
    const ElementJob *job = context;
    for (int r = i * ROWS_PER_TASK; r < last_row(job->pass, i); r++) {
        size_t at = (size_t)r * (size_t)job->width;
        job->row(job->pass->kernels, job->out + at, job->a + at, job->b + (job->eps > 0 ? 0 : at),
                 job->width, job->eps);
    }
}

static void elements(Pass *pass, float *out, const float *a, const float *b, int width, float eps,
                     void (*row)(const Kernels *, float *, const float *, const float *, int,
                                 float))
{
    ElementJob job = {pass, out, a, b, width, eps, row};
    parallel_for(n_row_tasks(pass), pass->n_threads, run_elements, &job);
}

static void norm_row(const Kernels *k, float *out, const float *x, const float *g, int n, float eps)
{
    k->rmsnorm(out, x, g, n, eps);
}

static void add_row(const Kernels *k, float *out, const float *a, const float *b, int n, float eps)
{
    (void)eps;
    k->add(out, a, b, n);
}

static void swiglu_row(const Kernels *k, float *out, const float *a, const float *b, int n,
                       float eps)
{
    (void)eps;
    k->swiglu(out, a, b, n);
}

/* Rotate pairs (i, i + half) of one head by the angle of a position. */
static void rotate(float *head, const float *rope, int head_dim)
{
    int half = head_dim / 2;
    for (int i = 0; i < half; i++) {
        float a = head[i], b = head[i + half], c = rope[i], s = rope[i + half];
        head[i] = a * c - b * s;
        head[i + half] = b * c + a * s;
    }
}

/* Turn a head that was projected, normalised first where the model does that. */
static void place_head(const Pass *pass, float *out, const float *in, const float *norm,
                       const float *rope)
{
    const ModelConfig *c = &pass->model->config;
    if (norm) {
        pass->kernels->rmsnorm(out, in, norm, c->head_dim, (float)c->rms_eps);
    }
    rotate(out, rope, c->head_dim);
}

/* Rotate the queries and put keys (rotated, transposed) and values where attention reads them. */
static void place_keys(void *context, int i, int thread)
{
    (void)thread;
    const LayerJob *job = context;
    Pass *pass = job->pass;
    const ModelConfig *c = &pass->model->config;
    const Layer *weights = &pass->model->layers[job->layer];
    const LayerRows *rows = &pass->layers[job->layer];
    const Span *span = &pass->spans[i];
    int hd = c->head_dim;
    float *keys = span->keys + (size_t)job->layer * span->layer_stride;
    float *values = span->values + (size_t)job->layer * span->layer_stride;
    for (int n = 0; n < span->n_rows; n++) {
        size_t row = (size_t)span->first_row + (size_t)n;
        size_t position = (size_t)span->position + (size_t)n;
        const float *rope = pass->rope + position * (size_t)hd;
        for (int h = 0; h < c->n_heads; h++) {
            size_t at = row * (size_t)(c->n_heads * hd) + (size_t)(h * hd);
            place_head(pass, rows->q + at, rows->q_in + at, weights->norm_q, rope);
        }
        for (int h = 0; h < c->n_kv_heads; h++) {
            size_t at = row * (size_t)(c->n_kv_heads * hd) + (size_t)(h * hd);
            float *k = pass->keys_new + at;
            place_head(pass, k, (rows->k_in ? rows->k_in : pass->keys_new) + at, weights->norm_k,
                       rope);
            for (int d = 0; d < hd; d++) {
                keys[((size_t)h * hd + d) * span->capacity + position] = k[d];
            }
            memcpy(values + ((size_t)h * span->capacity + position) * hd, pass->values_new + at,
                   (size_t)hd * sizeof(float));
        }
    }
}

static void copy_prefix(const Span *span, const Span *parent, int layer, int head, int head_dim)
{
    size_t own = (size_t)layer * span->layer_stride, from = (size_t)layer * parent->layer_stride;
    size_t n = (size_t)span->position * sizeof(float);
    for (int d = 0; d < head_dim; d++) {
        size_t at = (size_t)head * head_dim + d;
        memcpy(span->keys + own + at * span->capacity, parent->keys + from + at * parent->capacity,
               n);
    }
    memcpy(span->values + own + (size_t)head * span->capacity * head_dim,
           parent->values + from + (size_t)head * parent->capacity * head_dim,
           n * (size_t)head_dim);
}

size_t pass_forward_scratch(size_t capacity)
{
    return 4 * capacity;
}

enum { QUERIES_AT_ONCE = 64 };

static void attend(void *context, int i, int thread)
{
    const LayerJob *job = context;
    Pass *pass = job->pass;
    const ModelConfig *c = &pass->model->config;
    const Span *span = &pass->spans[i / c->n_kv_heads];
    int head = i % c->n_kv_heads, hd = c->head_dim, group = c->n_heads / c->n_kv_heads;
    if (span->parent >= 0) {
        copy_prefix(span, &pass->spans[span->parent], job->layer, head, hd);
    }
    const float *keys =
        span->keys + (size_t)job->layer * span->layer_stride + (size_t)head * hd * span->capacity;
    const float *values =
        span->values + (size_t)job->layer * span->layer_stride + (size_t)head * hd * span->capacity;
    float *out[QUERIES_AT_ONCE];
    const float *q[QUERIES_AT_ONCE];
    int limits[QUERIES_AT_ONCE], n = 0;
    for (int r = 0; r < span->n_rows; r++) {
        int position = span->position + r, start = window_start(c, job->layer, position);
        int last = r == span->n_rows - 1 || window_start(c, job->layer, position + 1) != start;
        for (int g = 0; g < group; g++) {
            size_t at = (size_t)(span->first_row + r) * (size_t)(c->n_heads * hd) +
                        (size_t)((head * group + g) * hd);
            q[n] = pass->layers[job->layer].q + at;
            out[n] = pass->layers[job->layer].attention + at;
            limits[n] = position + 1 - start;
            if (++n == QUERIES_AT_ONCE || (last && g == group - 1)) {
                pass->kernels->attention(
                    out, q, limits, n, keys + start, values + (size_t)start * hd, span->capacity,
                    hd, 1.0f / __builtin_sqrtf((float)hd),
                    pass->attention_scratch + (size_t)thread * pass->scratch_stride);
                n = 0;
            }
        }
    }
}

/* From x_in to x_mid. */
static void forward_attention(Pass *pass, int l)
{
    const ModelConfig *c = &pass->model->config;
    const Layer *weights = &pass->model->layers[l];
    LayerRows *rows = &pass->layers[l];
    float eps = (float)c->rms_eps;
    LayerJob job = {pass, l};

    elements(pass, pass->normed, rows->x_in, weights->norm_attention, c->width, eps, norm_row);
    pass_linear(pass, l, ROLE_Q, rows->q_in, pass->normed);
    pass_linear(pass, l, ROLE_K, rows->k_in ? rows->k_in : pass->keys_new, pass->normed);
    pass_linear(pass, l, ROLE_V, pass->values_new, pass->normed);
    parallel_for(pass->n_spans, pass->n_threads, place_keys, &job);
    parallel_for(pass->n_spans * c->n_kv_heads, pass->n_threads, attend, &job);
    pass_linear(pass, l, ROLE_O, pass->projected, rows->attention);
    elements(pass, rows->x_mid, rows->x_in, pass->projected, c->width, 0, add_row);
}

/* From x_mid to gate and up. */
static void forward_gate_and_up(Pass *pass, int l)
{
    const ModelConfig *c = &pass->model->config;
    LayerRows *rows = &pass->layers[l];
    elements(pass, pass->normed, rows->x_mid, pass->model->layers[l].norm_mlp, c->width,
             (float)c->rms_eps, norm_row);
    pass_linear(pass, l, ROLE_GATE, rows->gate, pass->normed);
    pass_linear(pass, l, ROLE_UP, rows->up, pass->normed);
}

static void forward_layer(Pass *pass, int l)
{
    const ModelConfig *c = &pass->model->config;
    LayerRows *rows = &pass->layers[l];
    float *x_next = l + 1 < c->n_layers ? pass->layers[l + 1].x_in : pass->x_out;

    forward_attention(pass, l);
    forward_gate_and_up(pass, l);
    elements(pass, pass->wide, rows->gate, rows->up, c->ff_width, 0, swiglu_row);
    pass_linear(pass, l, ROLE_DOWN, pass->projected, pass->wide);
    if (pass->keep) {
        pass_put_layer(pass, l);
    }
    elements(pass, x_next, rows->x_mid, pass->projected, c->width, 0, add_row);
}

void pass_recompute_layer(Pass *pass, int layer)
{
    if (pass_kept(pass, ROW_X_MID) == KEPT_NOT) {
        forward_attention(pass, layer);
    }
    if (pass_kept(pass, ROW_GATE) == KEPT_NOT) {
        forward_gate_and_up(pass, layer);
    }
}

/* The spans of layer l join the rows of the pass. */
static void enter(Pass *pass, int l, int n_spans)
{
    size_t D = (size_t)pass->model->config.width;
    float *x = pass->layers[l].x_in;
    for (; pass->n_spans < n_spans && pass->spans[pass->n_spans].layer <= l; pass->n_spans++) {
        const Span *span = &pass->spans[pass->n_spans];
        if (l > 0) {
            memcpy(x + (size_t)span->first_row * D, x + (size_t)span->source_row * D,
                   (size_t)span->n_rows * D * sizeof *x);
        }
        pass->n_rows += span->n_rows;
    }
}

void pass_forward_rows(Pass *pass)
{
    int n_spans = pass->n_spans;
    pass->n_spans = pass->n_rows = 0;
    enter(pass, 0, n_spans);
    parallel_for(n_row_tasks(pass), pass->n_threads, embed, pass);
    for (int l = 0; l < pass->model->config.n_layers; l++) {
        enter(pass, l, n_spans);
        forward_layer(pass, l);
    }
}
