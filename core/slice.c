/* Two ways to use several threads, which the law makes the same numbers. Large weights: every
 * product is split by columns, so that the threads read the weights once between them. Small
 * weights (they fit in the cache): the rows are cut into slices of whole trees, each run from end
 * to end by one thread, and nobody waits between the layers. */
#include "core/pass.h"

#include "core/parallel.h"

enum { SMALL_SLICE = 64 };
#define CACHED_WEIGHT_BYTES ((size_t)24 << 20)
#define WORTH_A_THREAD 8e6 /* multiply-adds of a pass: waking a thread may cost 50 microseconds */

static size_t layer_elements(const Model *model)
{
    size_t elements = 0;
    for (int role = 0; role < N_ROLES; role++) {
        const Matrix *w = &model->layers[0].weight[role];
        elements += (size_t)w->n_out * (size_t)w->n_in;
    }
    return elements * (size_t)model->config.n_layers;
}

static int is_small(const Model *model)
{
    size_t size = model->layers[0].weight[ROLE_Q].type == TENSOR_F32 ? 4 : 2;
    return layer_elements(model) * size <= CACHED_WEIGHT_BYTES;
}

/* So little work that one thread is done with it before another is awake. */
static int is_tiny(const Model *model, int n_rows)
{
    return is_small(model) && (double)n_rows * (double)layer_elements(model) < WORTH_A_THREAD;
}

int pass_slice_rows(const Model *model, int n_rows, int n_threads)
{
    if (n_threads == 1 || !is_small(model) || is_tiny(model, n_rows)) {
        return 0;
    }
    int target = n_rows / (4 * n_threads);
    if (target < SMALL_SLICE) {
        target = (n_rows + n_threads - 1) / n_threads;
        target = target < SMALL_SLICE ? target : SMALL_SLICE;
    }
    return target;
}

static float *at_row(float *rows, int first, int width)
{
    return rows ? rows + (size_t)first * (size_t)width : NULL;
}

/* The spans [first, last) of pass as a pass of their own; the buffers are its rows of the same
 * buffers. */
static void cut_slice(Pass *slice, const Pass *pass, int first, int last, Span *spans,
                      RowSpan *hook_spans)
{
    const ModelConfig *c = &pass->model->config;
    LayerRows *layers = slice->layers;
    int row = pass->spans[first].first_row;
    int end = last < pass->n_spans ? pass->spans[last].first_row : pass->n_rows;
    int D = c->width, Q = c->n_heads * c->head_dim, KV = c->n_kv_heads * c->head_dim;
    int FF = c->ff_width;
    *slice = *pass;
    slice->layers = layers;
    slice->spans = spans + first;
    slice->hook_spans = hook_spans + first;
    slice->n_threads = 1;
    slice->tokens += row;
    slice->n_rows = end - row;
    slice->n_spans = last - first;
    for (int s = first; s < last; s++) {
        spans[s] = pass->spans[s];
        spans[s].first_row -= row;
        spans[s].source_row -= row;
        spans[s].parent -= spans[s].parent >= 0 ? first : 0;
        hook_spans[s] = pass->hook_spans[s];
        hook_spans[s].first_row -= row;
    }
    for (int l = 0; l < c->n_layers; l++) {
        const LayerRows *all = &pass->layers[l];
        layers[l] = (LayerRows){0};
        for (int b = 0; b < N_ROW_BUFFERS; b++) {
            size_t first_element = (size_t)row * (size_t)pass_row_width(pass, b);
            layers[l].rows[b] = all->rows[b] ? all->rows[b] + first_element : NULL;
            layers[l].rounded[b] = all->rounded[b] ? all->rounded[b] + first_element : NULL;
        }
        if (all->q_in == all->q) {
            layers[l].q_in = layers[l].q;
        }
        for (int role = 0; role < N_ROLES; role++) {
            if (all->saved[role]) {
                int width = pass->hook->saved_width(pass->hook->context, l * N_ROLES + role);
                layers[l].saved[role] = at_row(all->saved[role], row, width);
            }
        }
    }
    slice->x_out = at_row(pass->x_out, row, D);
    slice->normed = at_row(pass->normed, row, D);
    slice->wide = at_row(pass->wide, row, FF);
    slice->keys_new = at_row(pass->keys_new, row, KV);
    slice->values_new = at_row(pass->values_new, row, KV);
    slice->projected = at_row(pass->projected, row, D);
    slice->dx = at_row(pass->dx, row, D);
    slice->dx_rounded = pass->dx_rounded ? pass->dx_rounded + (size_t)row * (size_t)D : NULL;
    slice->dnormed = at_row(pass->dnormed, row, D);
    slice->dwide = at_row(pass->dwide, row, FF);
    slice->dup = at_row(pass->dup, row, FF);
    slice->dq = at_row(pass->dq, row, Q);
    slice->dk = at_row(pass->dk, row, KV);
    slice->dv = at_row(pass->dv, row, KV);
    slice->dattention = at_row(pass->dattention, row, Q);
    slice->roots = pass->roots ? pass->roots + first : NULL;
}

/* How many slices, 1 when the pass is better run as a whole. */
static int cut_slices(Pass *pass)
{
    int target = pass_slice_rows(pass->model, pass->n_rows, pass->n_threads);
    if (pass->n_pieces == 1 ||
        (pass->n_pieces == 0 && (target == 0 || pass->weight_gradient || pass->n_spans == 1))) {
        return 1;
    }
    Span *spans = pass->slices[0].spans;
    RowSpan *hook_spans = pass->slices[0].hook_spans;
    int n = 0, first = 0, rows = 0;
    for (int s = 0; s < pass->n_spans; s++) {
        int enough = pass->n_pieces > 0 || (rows >= target && n < PASS_SLICES - 1);
        if (s > first && !pass->spans[s].joined && enough) {
            cut_slice(&pass->slices[n++], pass, first, s, spans, hook_spans);
            first = s;
            rows = 0;
        }
        rows += pass->spans[s].n_rows;
    }
    cut_slice(&pass->slices[n++], pass, first, pass->n_spans, spans, hook_spans);
    pass->slices[0].spans = spans;
    pass->slices[0].hook_spans = hook_spans;
    return n;
}

typedef struct {
    Pass *pass;
    int lowest_layer; /* of the backward */
} SliceJob;

static Pass *slice_on(const SliceJob *job, int i, int thread)
{
    Pass *slice = &job->pass->slices[i];
    slice->attention_scratch =
        job->pass->attention_scratch + (size_t)thread * job->pass->scratch_stride;
    return slice;
}

static void run_forward(void *context, int i, int thread)
{
    pass_forward_rows(slice_on(context, i, thread));
}

static void run_backward(void *context, int i, int thread)
{
    const SliceJob *job = context;
    pass_backward_rows(slice_on(job, i, thread), job->lowest_layer);
}

void pass_forward(Pass *pass)
{
    SliceJob job = {.pass = pass};
    int n = cut_slices(pass);
    if (n == 1) {
        int n_threads = pass->n_threads;
        pass->n_threads = is_tiny(pass->model, pass->n_rows) ? 1 : n_threads;
        pass_forward_rows(pass);
        pass->n_threads = n_threads;
    } else {
        parallel_for(n, pass->n_threads, run_forward, &job);
    }
}

Status pass_backward(Pass *pass, Error *error)
{
    const LinearHook *hook = pass->hook;
    SliceJob job = {.pass = pass,
                    .lowest_layer = pass->weight_gradient ? 0
                                    : hook                ? hook->lowest_layer
                                                          : pass->model->config.n_layers};
    if (hook && hook->begin) {
        Status status = hook->begin(hook->context, pass->hook_spans, pass->n_spans, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    int n = hook && hook->ordered ? 1 : cut_slices(pass);
    if (n == 1) {
        int n_threads = pass->n_threads;
        pass->n_threads = is_tiny(pass->model, pass->n_rows) ? 1 : n_threads;
        pass_backward_rows(pass, job.lowest_layer);
        pass->n_threads = n_threads;
    } else {
        parallel_for(n, pass->n_threads, run_backward, &job);
    }
    if (hook && hook->end) {
        hook->end(hook->context, pass->hook_spans, pass->n_spans);
    }
    return STATUS_OK;
}
