/* The transformer backward. Only what a frozen model needs: gradients by activations, and what the
 * hook takes from them; for full training also the weights' own, by OpenBLAS. Inputs of linear
 * layers are recomputed, not stored; what else is, keep.c says. */
#include "core/pass.h"

#include <string.h>

#include "core/blas.h"
#include "core/parallel.h"

enum { ROWS_PER_TASK = 16, WEIGHT_ROWS_PER_TASK = 64 };

/* ---- weight gradients (full training only) ---- */

typedef struct {
    float *gradient; /* (n_out, n_in) */
    const float *dy, *x;
    int n_out, n_in, ld_dy, rows;
} WeightJob;

/* One fixed block of output rows: a single-threaded product, so the thread count cannot show. */
static void weight_block(void *context, int i, int thread)
{
    (void)thread;
    const WeightJob *job = context;
    int first = i * WEIGHT_ROWS_PER_TASK;
    int n = job->n_out - first < WEIGHT_ROWS_PER_TASK ? job->n_out - first : WEIGHT_ROWS_PER_TASK;
    /* gradient (n, n_in) += dy^T x; row-major, so its transpose is what BLAS sees */
    blas_gemm(false, true, job->n_in, n, job->rows, 1, job->x, job->n_in, job->dy + first,
              job->ld_dy, 1, job->gradient + (size_t)first * (size_t)job->n_in, job->n_in);
}

void pass_weight_gradient(const Pass *pass, float *gradient, const float *dy, int ld_dy,
                          const float *x, int n_out, int n_in, int rows)
{
    WeightJob job = {gradient, dy, x, n_out, n_in, ld_dy, rows};
    parallel_for((n_out + WEIGHT_ROWS_PER_TASK - 1) / WEIGHT_ROWS_PER_TASK, pass->n_threads,
                 weight_block, &job);
}

static void bias_gradient(float *gradient, const float *dy, int rows, int n)
{
    for (int j = 0; j < n; j++) {
        double sum = 0;
        for (int r = 0; r < rows; r++) {
            sum += (double)dy[(size_t)r * (size_t)n + (size_t)j];
        }
        gradient[j] += (float)sum;
    }
}

/* dx (+)= dy W and the adapter's part; x is what went in (for weight gradients and hooks that want
 * it); dx may be NULL. */
static void pass_linear_backward(Pass *pass, int layer, Role role, float *dx, int accumulate,
                                 const float *dy, const float *x)
{
    const Layer *weights = &pass->model->layers[layer];
    const Matrix *w = &weights->weight[role];
    if (dx) {
        matrix_backward(dx, w->n_in, dy, w->n_out, w, pass->n_rows, accumulate, pass->n_threads);
    }
    int module = layer * N_ROLES + (int)role;
    if (pass->hook && pass->hook->saved_width(pass->hook->context, module) > 0) {
        HookBackward call = {dx, dy, pass->hook->needs_input ? x : NULL,
                             pass->layers[layer].saved[role]};
        pass->hook->backward(pass->hook->context, module, &call, pass->hook_spans, pass->n_spans,
                             pass->n_threads);
    }
    if (pass->weight_gradient) {
        const Model *model = pass->model;
        pass_weight_gradient(pass,
                             pass->weight_gradient + model_offset(model, PART_WEIGHT, layer, role),
                             dy, w->n_out, x, w->n_out, w->n_in, pass->n_rows);
        if (weights->bias[role]) {
            bias_gradient(pass->weight_gradient + model_offset(model, PART_BIAS, layer, role), dy,
                          pass->n_rows, w->n_out);
        }
    }
}

/* ---- rows ---- */

typedef struct {
    Pass *pass;
    int layer;
    const float *x, *g, *dy; /* normalisation */
} RowJob;

static int last_row(const Pass *pass, int i)
{
    int last = (i + 1) * ROWS_PER_TASK;
    return last < pass->n_rows ? last : pass->n_rows;
}

static void swiglu_rows(void *context, int i, int thread)
{
    (void)thread;
    const RowJob *job = context;
    Pass *pass = job->pass;
    size_t ff = (size_t)pass->model->config.ff_width;
    const LayerRows *rows = &pass->layers[job->layer];
    for (int r = i * ROWS_PER_TASK; r < last_row(pass, i); r++) {
        size_t at = (size_t)r * ff;
        pass->kernels->swiglu_backward(pass->dwide + at, pass->dup + at, rows->gate + at,
                                       rows->up + at, (int)ff);
    }
}

/* The activation again, from what was kept. */
static void activation_rows(void *context, int i, int thread)
{
    (void)thread;
    const RowJob *job = context;
    Pass *pass = job->pass;
    size_t ff = (size_t)pass->model->config.ff_width;
    const LayerRows *rows = &pass->layers[job->layer];
    for (int r = i * ROWS_PER_TASK; r < last_row(pass, i); r++) {
        size_t at = (size_t)r * ff;
        pass->kernels->swiglu(pass->wide + at, rows->gate + at, rows->up + at, (int)ff);
    }
}

static void norm_rows(void *context, int i, int thread)
{
    (void)thread;
    const RowJob *job = context;
    Pass *pass = job->pass;
    int D = pass->model->config.width;
    float eps = (float)pass->model->config.rms_eps;
    for (int r = i * ROWS_PER_TASK; r < last_row(pass, i); r++) {
        size_t at = (size_t)r * (size_t)D;
        pass->kernels->rmsnorm(pass->normed + at, job->x + at, job->g, D, eps);
    }
}

static void norm_backward_rows(void *context, int i, int thread)
{
    (void)thread;
    const RowJob *job = context;
    Pass *pass = job->pass;
    int D = pass->model->config.width;
    float eps = (float)pass->model->config.rms_eps;
    for (int r = i * ROWS_PER_TASK; r < last_row(pass, i); r++) {
        size_t at = (size_t)r * (size_t)D;
        pass->kernels->rmsnorm_backward(pass->dx + at, NULL, job->dy + at, job->x + at, job->g, D,
                                        eps);
    }
}

static void run(Pass *pass, void (*task)(void *, int, int), RowJob *job)
{
    job->pass = pass;
    parallel_for((pass->n_rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, pass->n_threads, task, job);
}

void pass_norm_gradient(Pass *pass, size_t offset, const float *dy, const float *x, const float *g,
                        int rows, int D)
{
    float eps = (float)pass->model->config.rms_eps;
    memset(pass->norm_gradient, 0, (size_t)D * sizeof(double));
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * (size_t)D;
        /* its dx is wanted elsewhere */
        pass->kernels->rmsnorm_backward(pass->norm_unused, pass->norm_gradient, dy + at, x + at, g,
                                        D, eps);
    }
    for (int d = 0; d < D; d++) {
        pass->weight_gradient[offset + (size_t)d] += (float)pass->norm_gradient[d];
    }
}

/* dx += gradient through a normalisation whose output's gradient is dnormed. */
static void norm_backward(Pass *pass, int layer, ModelPart part, const float *dnormed,
                          const float *x, const float *g)
{
    RowJob job = {.layer = layer, .x = x, .g = g, .dy = dnormed};
    if (pass->weight_gradient) {
        pass_norm_gradient(pass, model_offset(pass->model, part, layer, ROLE_Q), dnormed, x, g,
                           pass->n_rows, pass->model->config.width);
    }
    run(pass, norm_backward_rows, &job);
}

/* ---- attention ---- */

enum { QUERIES_AT_ONCE = 64 };

/* One head of one tree: the parent first, then its children in order, whose gradients by the shared
 * keys and values are added to the parent's in that order. */
typedef struct {
    Pass *pass;
    int layer;
    int *roots; /* spans without parent */
} AttentionJob;

static void transpose(float *out, const float *in, int rows, int columns, int ld_in)
{
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < columns; c++) {
            out[(size_t)c * rows + r] = in[(size_t)r * ld_in + c];
        }
    }
}

static void attention_span(Pass *pass, int layer, const Span *span, int head, float *scratch,
                           float *dkeys, float *dvalues)
{
    const ModelConfig *c = &pass->model->config;
    int hd = c->head_dim, group = c->n_heads / c->n_kv_heads, capacity = span->capacity;
    size_t at_layer = (size_t)layer * span->layer_stride + (size_t)head * hd * capacity;
    const float *keys = span->keys + at_layer, *values = span->values + at_layer;
    float *keys_rows = scratch, *values_columns = keys_rows + (size_t)hd * capacity;
    float *work = values_columns + (size_t)hd * capacity;
    int used = span->position + span->n_rows;
    transpose(keys_rows, keys, hd, used, capacity);
    for (int s = 0; s < used; s++) {
        for (int d = 0; d < hd; d++) {
            values_columns[(size_t)d * capacity + s] = values[(size_t)s * hd + d];
        }
    }
    float *dq[QUERIES_AT_ONCE];
    const float *dout[QUERIES_AT_ONCE], *out[QUERIES_AT_ONCE], *q[QUERIES_AT_ONCE];
    int limits[QUERIES_AT_ONCE], n = 0;
    for (int r = 0; r < span->n_rows; r++) {
        int position = span->position + r, start = window_start(c, layer, position);
        int last = r == span->n_rows - 1 || window_start(c, layer, position + 1) != start;
        size_t skipped = (size_t)start * hd;
        for (int g = 0; g < group; g++) {
            size_t at = (size_t)(span->first_row + r) * (size_t)(c->n_heads * hd) +
                        (size_t)((head * group + g) * hd);
            q[n] = pass->layers[layer].q + at;
            out[n] = pass->layers[layer].attention + at;
            dout[n] = pass->dattention + at;
            dq[n] = pass->dq + at;
            limits[n] = position + 1 - start;
            if (++n == QUERIES_AT_ONCE || (last && g == group - 1)) {
                pass->kernels->attention_backward(dq, dkeys + skipped, dvalues + skipped, dout, out,
                                                  q, limits, n, keys + start, keys_rows + skipped,
                                                  values_columns + start, capacity, hd,
                                                  1.0f / __builtin_sqrtf((float)hd), work);
                n = 0;
            }
        }
    }
}

/* Gradients by rows of keys and values, from (position, head_dim) into the rows of the pass. */
static void put_rows(Pass *pass, const Span *span, int head, const float *dkeys,
                     const float *dvalues)
{
    const ModelConfig *c = &pass->model->config;
    int hd = c->head_dim, half = hd / 2;
    for (int r = 0; r < span->n_rows; r++) {
        size_t row = (size_t)span->first_row + (size_t)r;
        size_t position = (size_t)span->position + (size_t)r;
        size_t at = row * (size_t)(c->n_kv_heads * hd) + (size_t)(head * hd);
        const float *rope = pass->rope + position * (size_t)hd;
        const float *dk = dkeys + position * (size_t)hd;
        for (int i = 0; i < half; i++) { /* rotate back */
            float a = dk[i], b = dk[i + half];
            pass->dk[at + (size_t)i] = a * rope[i] + b * rope[i + half];
            pass->dk[at + (size_t)(i + half)] = b * rope[i] - a * rope[i + half];
        }
        memcpy(pass->dv + at, dvalues + position * (size_t)hd, (size_t)hd * sizeof(float));
    }
}

static void attention_tree(void *context, int i, int thread)
{
    const AttentionJob *job = context;
    Pass *pass = job->pass;
    int n_kv = pass->model->config.n_kv_heads, hd = pass->model->config.head_dim;
    int root = job->roots[i / n_kv], head = i % n_kv;
    const Span *parent = &pass->spans[root];
    float *scratch = pass->attention_scratch + (size_t)thread * pass->scratch_stride;
    size_t longest = (size_t)parent->capacity;
    for (int s = root + 1; s < pass->n_spans && pass->spans[s].parent == root; s++) {
        longest =
            (size_t)pass->spans[s].capacity > longest ? (size_t)pass->spans[s].capacity : longest;
    }
    size_t n = (size_t)parent->capacity * (size_t)hd, m = longest * (size_t)hd;
    float *parent_dk = scratch, *parent_dv = parent_dk + n;
    float *child_dk = parent_dv + n, *child_dv = child_dk + m, *rest = child_dv + m;
    memset(parent_dk, 0, 2 * n * sizeof(float));
    attention_span(pass, job->layer, parent, head, rest, parent_dk, parent_dv);
    for (int s = root + 1; s < pass->n_spans && pass->spans[s].parent == root; s++) {
        const Span *child = &pass->spans[s];
        memset(child_dk, 0, 2 * m * sizeof(float));
        attention_span(pass, job->layer, child, head, rest, child_dk, child_dv);
        size_t shared = (size_t)child->position * (size_t)hd;
        for (size_t k = 0; k < shared; k++) {
            parent_dk[k] += child_dk[k];
            parent_dv[k] += child_dv[k];
        }
        put_rows(pass, child, head, child_dk, child_dv);
    }
    put_rows(pass, parent, head, parent_dk, parent_dv);
}

static void unrotate_queries(void *context, int i, int thread)
{
    (void)thread;
    const AttentionJob *job = context;
    Pass *pass = job->pass;
    const ModelConfig *c = &pass->model->config;
    const Span *span = &pass->spans[i];
    int hd = c->head_dim, half = hd / 2;
    for (int r = 0; r < span->n_rows; r++) {
        const float *rope = pass->rope + (size_t)(span->position + r) * (size_t)hd;
        float *row = pass->dq + (size_t)(span->first_row + r) * (size_t)(c->n_heads * hd);
        for (int h = 0; h < c->n_heads; h++) {
            float *d = row + h * hd;
            for (int k = 0; k < half; k++) {
                float a = d[k], b = d[k + half];
                d[k] = a * rope[k] + b * rope[k + half];
                d[k + half] = b * rope[k] - a * rope[k + half];
            }
        }
    }
}

size_t pass_backward_scratch(const ModelConfig *config, size_t parent, size_t child)
{
    size_t longest = parent > child ? parent : child;
    return ((size_t)config->head_dim * (2 * parent + 2 * longest + 2 * longest)) + 8 * longest;
}

typedef struct {
    Pass *pass;
    float *dy;      /* (rows, heads * head_dim), becomes dx */
    const float *x; /* likewise, before the norm */
    const float *g;
    int heads;
} HeadNormJob;

static void head_norm_rows(void *context, int i, int thread)
{
    (void)thread;
    const HeadNormJob *job = context;
    int hd = job->pass->model->config.head_dim;
    float dy[MAX_HEAD_DIM], eps = (float)job->pass->model->config.rms_eps;
    for (int r = i * ROWS_PER_TASK; r < last_row(job->pass, i); r++) {
        for (int h = 0; h < job->heads; h++) {
            size_t at = ((size_t)r * (size_t)job->heads + (size_t)h) * (size_t)hd;
            memcpy(dy, job->dy + at, (size_t)hd * sizeof *dy);
            memset(job->dy + at, 0, (size_t)hd * sizeof *dy);
            job->pass->kernels->rmsnorm_backward(job->dy + at, NULL, dy, job->x + at, job->g, hd,
                                                 eps);
        }
    }
}

/* Back through the norm of the heads of q or k, in place. */
static void head_norm_backward(Pass *pass, int layer, ModelPart part, float *dy, const float *x,
                               const float *g, int heads)
{
    HeadNormJob job = {pass, dy, x, g, heads};
    if (!g) {
        return;
    }
    if (pass->weight_gradient) {
        pass_norm_gradient(pass, model_offset(pass->model, part, layer, ROLE_Q), dy, x, g,
                           pass->n_rows * heads, pass->model->config.head_dim);
    }
    parallel_for((pass->n_rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, pass->n_threads,
                 head_norm_rows, &job);
}

static void backward_layer(Pass *pass, int l, int *roots, int n_roots, int need_dx)
{
    const ModelConfig *c = &pass->model->config;
    const Layer *weights = &pass->model->layers[l];
    LayerRows *rows = &pass->layers[l];
    int need_x = pass->weight_gradient || (pass->hook && pass->hook->needs_input);
    RowJob job = {.layer = l};
    AttentionJob attention = {pass, l, roots};

    if (need_x) {
        run(pass, activation_rows, &job);
    }
    pass_linear_backward(pass, l, ROLE_DOWN, pass->dwide, 0, pass->dx, pass->wide);
    run(pass, swiglu_rows, &job); /* dwide is now the gradient by gate */
    if (need_x) {
        job.x = rows->x_mid;
        job.g = weights->norm_mlp;
        run(pass, norm_rows, &job);
    }
    pass_linear_backward(pass, l, ROLE_GATE, pass->dnormed, 0, pass->dwide, pass->normed);
    pass_linear_backward(pass, l, ROLE_UP, pass->dnormed, 1, pass->dup, pass->normed);
    norm_backward(pass, l, PART_NORM_MLP, pass->dnormed, rows->x_mid, weights->norm_mlp);

    pass_linear_backward(pass, l, ROLE_O, pass->dattention, 0, pass->dx, rows->attention);
    parallel_for(n_roots * c->n_kv_heads, pass->n_threads, attention_tree, &attention);
    parallel_for(pass->n_spans, pass->n_threads, unrotate_queries, &attention);
    head_norm_backward(pass, l, PART_NORM_Q, pass->dq, rows->q_in, weights->norm_q, c->n_heads);
    head_norm_backward(pass, l, PART_NORM_K, pass->dk, rows->k_in, weights->norm_k, c->n_kv_heads);
    if (need_x) {
        job.x = rows->x_in;
        job.g = weights->norm_attention;
        run(pass, norm_rows, &job);
    }
    float *dnormed = need_dx ? pass->dnormed : NULL;
    pass_linear_backward(pass, l, ROLE_Q, dnormed, 0, pass->dq, pass->normed);
    pass_linear_backward(pass, l, ROLE_K, dnormed, 1, pass->dk, pass->normed);
    pass_linear_backward(pass, l, ROLE_V, dnormed, 1, pass->dv, pass->normed);
    if (need_dx) {
        norm_backward(pass, l, PART_NORM_ATTENTION, dnormed, rows->x_in, weights->norm_attention);
    }
}

static void embedding_gradient(Pass *pass)
{
    size_t D = (size_t)pass->model->config.width;
    float *gradient = pass->weight_gradient + model_offset(pass->model, PART_EMBEDDING, 0, ROLE_Q);
    for (int r = 0; r < pass->n_rows; r++) {
        float *row = gradient + (size_t)pass->tokens[r] * D;
        pass->kernels->add(row, row, pass->dx + (size_t)r * D, (int)D);
    }
}

void pass_backward_rows(Pass *pass, int lowest_layer)
{
    int *roots = pass->roots, n_roots = 0;
    for (int s = 0; s < pass->n_spans; s++) {
        if (pass->spans[s].parent < 0) {
            roots[n_roots++] = s;
        }
    }
    for (int l = pass->model->config.n_layers - 1; l >= lowest_layer; l--) {
        pass_put_gradient(pass);
        pass_take_layer(pass, l);
        pass_take_gradient(pass);
        backward_layer(pass, l, roots, n_roots, l > lowest_layer || pass->weight_gradient != NULL);
    }
    if (pass->weight_gradient) {
        embedding_gradient(pass);
    }
}
