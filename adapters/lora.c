/* LoRA (Hu et al. 2021): y += s B A drop(x), A (rank, n_in) and B (n_out, rank) of each module
 * trained.
 * 1. The input x is handed in again by the engine (needs_input); only A drop(x), rank numbers a
 * row, is kept for the backward. Masks of dropout are drawn again.
 * 2. A gradient is summed in double over the rows of a sequence in order, from 0, then over
 * sequences in order: threads share the columns of a matrix, never its rows of data.
 * 3. B is kept transposed, (rank, n_out), so that both matrices are thin (thin.h). */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/method.h"
#include "adapters/outer.h"
#include "adapters/rows.h"
#include "adapters/thin.h"
#include "core/parallel.h"
#include "core/random.h"

enum {
    FORWARD_FLOATS = 2048, /* of A x on the stack in the forward */
    MASKED_ROWS = 4,
    MASKED_COLUMNS = 1024 /* of x under dropout on the stack, MASKED_ROWS rows each */
};

typedef struct {
    int id; /* layer * N_ROLES + role */
    int n_in, n_out;
    size_t a, b; /* where A and B start among an adapter's parameters */
} Part;

typedef struct {
    int rank, n_adapters, n_modules, n_layers;
    size_t n; /* parameters of an adapter */
    float scale;
    Dropout dropout;
    Module *modules; /* (n_modules) */
    Part *parts;     /* (n_modules) */
    int *slot;       /* (n_layers * N_ROLES) index in modules, or -1 */
    float *values;   /* (n_adapters, n): A, then B^T, of each module */
    bool *active;    /* (n_adapters, n_modules): B has a nonzero */
    double *sum;     /* d values, s apart: (n_adapters, n) */
    float *g;        /* B^T dy of all rows of a backward: (rows, rank) */
    size_t n_g;      /* floats it can hold */
} Lora;

static float *values_of(const Lora *l, int adapter)
{
    assert(adapter >= 1 && adapter <= l->n_adapters);
    return l->values + (size_t)(adapter - 1) * l->n;
}

static bool is_active(const Lora *l, int adapter, int slot)
{
    return adapter > 0 && l->active[(size_t)(adapter - 1) * l->n_modules + slot];
}

static int saved_width(const void *context, int module)
{
    const Lora *l = context;
    return l->slot[module] < 0 ? 0 : l->rank;
}

/* A call of the hook, cut into shares of its rows, or of the columns of a gradient. */
typedef struct {
    Lora *l;
    int slot, n_rows, n_shares;
    const HookForward *forward;
    const HookBackward *backward;
    const RowSpan *spans;
    int n_spans;
} Work;

static bool drops(const Lora *l, const RowSpan *span)
{
    return span->key != 0 && l->dropout.threshold > 0;
}

/* ---- forward ---- */

/* h = A drop(x). position: of the first row in its sequence. */
static void project(const Lora *l, const Part *part, float *h, const float *x, const float *a,
                    const RowSpan *span, int position, int rows)
{
    float masked[MASKED_ROWS * MASKED_COLUMNS];
    if (!drops(l, span)) {
        thin_project(h, x, a, rows, part->n_in, l->rank);
        return;
    }
    memset(h, 0, (size_t)rows * l->rank * sizeof *h);
    for (int t = 0; t < rows; t += MASKED_ROWS) {
        int some = rows - t < MASKED_ROWS ? rows - t : MASKED_ROWS;
        for (int i = 0; i < part->n_in; i += MASKED_COLUMNS) {
            int n = part->n_in - i < MASKED_COLUMNS ? part->n_in - i : MASKED_COLUMNS;
            dropout_columns(masked, x + (size_t)t * part->n_in + i, part->n_in, &l->dropout,
                            span->key, part->id, position + t, some, i, n);
            thin_project_columns(h + (size_t)t * l->rank, masked, n, a + i, part->n_in, some, n,
                                 l->rank);
        }
    }
}

static void scale_into(float *out, const float *in, float scale, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = scale * in[i];
    }
}

static void forward_share(void *context, int share, int thread)
{
    (void)thread;
    const Work *w = context;
    const Lora *l = w->l;
    const Part *part = &l->parts[w->slot];
    const HookForward *call = w->forward;
    int first, last, block = FORWARD_FLOATS / l->rank;
    rows_share(&first, &last, w->n_rows, share, w->n_shares);
    for (int i = 0, start = 0; i < w->n_spans; start += w->spans[i].n_rows, i++) {
        RowSpan span = w->spans[i];
        bool active = is_active(l, span.adapter, w->slot);
        if (span.adapter == 0 || !(active || call->saved) ||
            !rows_clip(&span, start, first, last)) {
            continue;
        }
        const float *a = values_of(l, span.adapter) + part->a;
        const float *b = values_of(l, span.adapter) + part->b;
        for (int t = 0; t < span.n_rows; t += block) {
            int rows = span.n_rows - t < block ? span.n_rows - t : block;
            size_t row = (size_t)span.first_row + t;
            float h_block[FORWARD_FLOATS], z[FORWARD_FLOATS];
            float *h = call->saved ? call->saved + row * l->rank : h_block;
            project(l, part, h, call->x + row * part->n_in, a, &span,
                    (int)row - w->spans[i].first_row, rows);
            if (active) { /* B = 0: y keeps its bits */
                scale_into(z, h, l->scale, rows * l->rank);
                thin_expand(call->y + row * part->n_out, z, b, rows, part->n_out, l->rank);
            }
        }
    }
}

static int share_count(const Lora *l, int slot, int n_rows, int n_threads)
{
    return rows_threads(n_rows, l->rank, l->parts[slot].n_in, l->parts[slot].n_out, n_threads);
}

static void forward(void *context, int module, const HookForward *call, const RowSpan *spans,
                    int n_spans, int n_threads)
{
    Lora *l = context;
    int slot = l->slot[module], n_rows = rows_count(spans, n_spans);
    if (slot < 0) {
        return;
    }
    Work work = {.l = l,
                 .slot = slot,
                 .n_rows = n_rows,
                 .n_shares = share_count(l, slot, n_rows, n_threads),
                 .forward = call,
                 .spans = spans,
                 .n_spans = n_spans};
    parallel_for(work.n_shares, n_threads, forward_share, &work);
}

/* ---- backward ---- */

/* dx += drop(A^T z) */
static void expand(const Lora *l, const Part *part, float *dx, const float *z, const float *a,
                   const RowSpan *span, int position, int rows)
{
    float part_of_dx[MASKED_ROWS * MASKED_COLUMNS];
    if (!drops(l, span)) {
        thin_expand(dx, z, a, rows, part->n_in, l->rank);
        return;
    }
    for (int t = 0; t < rows; t += MASKED_ROWS) {
        int some = rows - t < MASKED_ROWS ? rows - t : MASKED_ROWS;
        for (int i = 0; i < part->n_in; i += MASKED_COLUMNS) {
            int n = part->n_in - i < MASKED_COLUMNS ? part->n_in - i : MASKED_COLUMNS;
            thin_expand_columns(part_of_dx, z + (size_t)t * l->rank, a + i, part->n_in, some, n,
                                l->rank);
            dropout_columns(part_of_dx, part_of_dx, n, &l->dropout, span->key, part->id,
                            position + t, some, i, n);
            for (int e = 0; e < some * n; e++) {
                dx[(size_t)(t + e / n) * part->n_in + i + e % n] += part_of_dx[e];
            }
        }
    }
}

/* g = B^T dy, and dx += s A^T g, of a share of the rows. */
static void backward_share(void *context, int share, int thread)
{
    (void)thread;
    const Work *w = context;
    const Lora *l = w->l;
    const Part *part = &l->parts[w->slot];
    const HookBackward *call = w->backward;
    int first, last, block = FORWARD_FLOATS / l->rank;
    rows_share(&first, &last, w->n_rows, share, w->n_shares);
    for (int i = 0, start = 0; i < w->n_spans; start += w->spans[i].n_rows, i++) {
        RowSpan span = w->spans[i];
        if (!is_active(l, span.adapter, w->slot) || !rows_clip(&span, start, first, last)) {
            continue;
        }
        const float *a = values_of(l, span.adapter) + part->a;
        const float *b = values_of(l, span.adapter) + part->b;
        for (int t = 0; t < span.n_rows; t += block) {
            int rows = span.n_rows - t < block ? span.n_rows - t : block;
            size_t row = (size_t)span.first_row + t;
            float z[FORWARD_FLOATS], *g = l->g + row * l->rank;
            thin_project(g, call->dy + row * part->n_out, b, rows, part->n_out, l->rank);
            if (call->dx) {
                scale_into(z, g, l->scale, rows * l->rank);
                expand(l, part, call->dx + row * part->n_in, z, a, &span,
                       (int)row - w->spans[i].first_row, rows);
            }
        }
    }
}

/* dA = sum g x^T, then dB^T = sum h dy^T, some columns a task. */
static void sum_columns(void *context, int task, int thread)
{
    (void)thread;
    const Work *w = context;
    Lora *l = w->l;
    const Part *part = &l->parts[w->slot];
    const HookBackward *call = w->backward;
    int tasks_a = outer_tasks(l->rank, part->n_in);
    for (int i = 0; i < w->n_spans; i++) {
        const RowSpan *span = &w->spans[i];
        if (span->adapter == 0) {
            continue;
        }
        double *sum = l->sum + (size_t)(span->adapter - 1) * l->n;
        if (task >= tasks_a) {
            outer_add(sum + part->b, call->saved, l->rank, call->dy, part->n_out, (OuterMask){0},
                      span, task - tasks_a);
        } else if (is_active(l, span->adapter, w->slot)) { /* with B = 0, dA is 0 */
            OuterMask mask = {drops(l, span) ? &l->dropout : NULL, part->id};
            outer_add(sum + part->a, l->g, l->rank, call->x, part->n_in, mask, span, task);
        }
    }
}

static void backward(void *context, int module, const HookBackward *call, const RowSpan *spans,
                     int n_spans, int n_threads)
{
    Lora *l = context;
    int slot = l->slot[module], n_rows = rows_count(spans, n_spans);
    if (slot < 0) {
        return;
    }
    const Part *part = &l->parts[slot];
    Work work = {.l = l,
                 .slot = slot,
                 .n_rows = n_rows,
                 .n_shares = share_count(l, slot, n_rows, n_threads),
                 .backward = call,
                 .spans = spans,
                 .n_spans = n_spans};
    parallel_for(work.n_shares, n_threads, backward_share, &work);
    parallel_for(outer_tasks(l->rank, part->n_in) + outer_tasks(l->rank, part->n_out),
                 work.n_shares == 1 ? 1 : n_threads, sum_columns, &work);
}

static Status begin(void *context, const RowSpan *spans, int n_spans, Error *error)
{
    Lora *l = context;
    size_t n = (size_t)rows_count(spans, n_spans) * l->rank;
    if (n > l->n_g) {
        free(l->g);
        l->g = malloc(n * sizeof *l->g);
        l->n_g = l->g ? n : 0;
        if (!l->g) {
            return error_set(error, STATUS_FAILED,
                             "no memory for the adapter's gradients: %.1f GiB",
                             (double)n * sizeof(float) / 0x1p30);
        }
    }
    return STATUS_OK;
}

/* ---- the method ---- */

static void close_lora(AdapterBank *bank)
{
    Lora *l = bank->state;
    if (l == NULL) {
        return;
    }
    free(l->modules);
    free(l->parts);
    free(l->slot);
    free(l->values);
    free(l->active);
    free(l->sum);
    free(l->g);
    free(l);
    bank->state = NULL;
}

/* Where the modules' matrices lie, and which is adapted. */
static Status lay_out(Lora *l, const ModelConfig *config, unsigned targets, Error *error)
{
    size_t n = (size_t)config->n_layers * N_ROLES;
    l->modules = malloc(n * sizeof *l->modules);
    l->parts = malloc(n * sizeof *l->parts);
    l->slot = malloc(n * sizeof *l->slot);
    if (!l->modules || !l->parts || !l->slot) {
        return error_set(error, STATUS_FAILED, "no memory for an adapter");
    }
    l->n_modules = plan_modules(l->modules, config, targets);
    if (l->n_modules == 0) {
        return error_set(error, STATUS_USAGE, "no linear layer is adapted: name some as targets");
    }
    for (size_t i = 0; i < n; i++) {
        l->slot[i] = -1;
    }
    for (int m = 0; m < l->n_modules; m++) {
        Part *part = &l->parts[m];
        part->id = l->modules[m].layer * N_ROLES + (int)l->modules[m].role;
        role_shape(config, l->modules[m].role, &part->n_out, &part->n_in);
        part->a = l->n;
        part->b = part->a + (size_t)l->rank * part->n_in;
        l->n = part->b + (size_t)l->rank * part->n_out;
        l->slot[part->id] = m;
    }
    return STATUS_OK;
}

static Status check_spec(const AdapterSpec *spec, Error *error)
{
    if (!isfinite(spec->scale)) {
        return error_set(error, STATUS_USAGE, "scale is not a finite number");
    }
    if (!(spec->dropout >= 0 && spec->dropout < 1)) {
        return error_set(error, STATUS_USAGE, "dropout: %g is not in 0 (in) to 1 (out)",
                         spec->dropout);
    }
    if (spec->plan.rank < 1 || spec->plan.rank > PLAN_MAX_RANK) {
        return error_set(error, STATUS_USAGE, "rank: %d is not in 1 to %d", spec->plan.rank,
                         PLAN_MAX_RANK);
    }
    return STATUS_OK;
}

static Status open_lora(AdapterBank *bank, const AdapterSetup *setup, Error *error)
{
    (void)setup;
    const AdapterSpec *spec = &bank->spec;
    const ModelConfig *config = &bank->model->config;
    Lora *l = calloc(1, sizeof *l);
    bank->state = l;
    if (l == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for an adapter");
    }
    Status status = check_spec(spec, error);
    l->rank = spec->plan.rank;
    l->n_adapters = bank->n_adapters;
    l->n_layers = config->n_layers;
    l->scale = spec->scale;
    l->dropout = dropout_of(status ? 0 : spec->dropout);
    status = status ? status : lay_out(l, config, spec->targets, error);
    if (status) {
        return status;
    }
    size_t all = (size_t)l->n_adapters * l->n;
    l->values = calloc(all, sizeof *l->values);
    l->sum = calloc(all, sizeof *l->sum);
    l->active = calloc((size_t)l->n_adapters * l->n_modules, sizeof *l->active);
    if (!l->values || !l->sum || !l->active) {
        return error_set(error, STATUS_FAILED, "no memory for the adapters' matrices: %.1f GiB",
                         (double)all * (sizeof(float) + sizeof(double)) / 0x1p30);
    }
    bank->n_parameters = l->n;
    bank->hook = (LinearHook){.context = l,
                              .needs_input = true,
                              .ordered = true,
                              .lowest_layer = l->modules[0].layer,
                              .saved_width = saved_width,
                              .forward = forward,
                              .backward = backward,
                              .begin = begin};
    return STATUS_OK;
}

static int64_t count_lora(const AdapterSpec *spec, const ModelConfig *config)
{
    int64_t sum = 0;
    for (int role = 0; role < N_ROLES; role++) {
        int n_out, n_in;
        role_shape(config, (Role)role, &n_out, &n_in);
        sum += spec->targets >> role & 1 ? (int64_t)spec->plan.rank * (n_in + n_out) : 0;
    }
    return sum * config->n_layers;
}

static void initial_lora(const AdapterBank *bank, float *v)
{
    const Lora *l = bank->state;
    memset(v, 0, l->n * sizeof *v);
    for (int m = 0; m < l->n_modules; m++) {
        const Part *part = &l->parts[m];
        char name[96];
        module_name(name, l->modules[m].layer, l->modules[m].role);
        RandomKey key = {random_seed_for(bank->spec.seed, name), RANDOM_INIT};
        double bound = 1 / sqrt((double)part->n_in);
        for (int j = 0; j < l->rank; j++) {
            for (int i = 0; i < part->n_in; i++) {
                double u = random_uniform(key, (uint32_t)j, (uint32_t)i, 0, 0);
                v[part->a + (size_t)j * part->n_in + i] = (float)((2 * u - 1) * bound);
            }
        }
    }
}

/* B (n_out, rank) of the parameters to B^T or back. */
static void transpose(float *out, const float *in, int rows, int columns)
{
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < columns; c++) {
            out[(size_t)c * rows + r] = in[(size_t)r * columns + c];
        }
    }
}

static void set_lora(AdapterBank *bank, int adapter, const float *v, int n_threads)
{
    (void)n_threads;
    Lora *l = bank->state;
    float *values = values_of(l, adapter);
    for (int m = 0; m < l->n_modules; m++) {
        const Part *part = &l->parts[m];
        size_t n_b = (size_t)part->n_out * l->rank;
        bool active = false;
        memcpy(values + part->a, v + part->a, (part->b - part->a) * sizeof *v);
        transpose(values + part->b, v + part->b, part->n_out, l->rank);
        for (size_t i = 0; i < n_b; i++) {
            active |= v[part->b + i] != 0; /* true for NaN: a diverged B must show */
        }
        l->active[(size_t)(adapter - 1) * l->n_modules + m] = active;
    }
}

/* Both add nothing, or the same matrices. */
static bool is_same(const Lora *l, int a, int b, int slot)
{
    const Part *part = &l->parts[slot];
    size_t n = part->b - part->a + (size_t)part->n_out * l->rank;
    if (!is_active(l, a, slot) || !is_active(l, b, slot)) {
        return is_active(l, a, slot) == is_active(l, b, slot);
    }
    return memcmp(values_of(l, a) + part->a, values_of(l, b) + part->a, n * sizeof(float)) == 0;
}

static int shared_layers_lora(const AdapterBank *bank, int a, int b)
{
    const Lora *l = bank->state;
    for (int m = 0; m < l->n_modules; m++) {
        if (!is_same(l, a, b, m)) {
            return l->modules[m].layer; /* modules come layer by layer */
        }
    }
    return l->n_layers;
}

static void clear_lora(AdapterBank *bank)
{
    Lora *l = bank->state;
    memset(l->sum, 0, (size_t)l->n_adapters * l->n * sizeof *l->sum);
}

static void gradient_lora(const AdapterBank *bank, int adapter, double *gradient)
{
    const Lora *l = bank->state;
    const double *sum = l->sum + (size_t)(adapter - 1) * l->n;
    for (int m = 0; m < l->n_modules; m++) {
        const Part *part = &l->parts[m];
        for (size_t i = part->a; i < part->b; i++) {
            gradient[i] = (double)l->scale * sum[i];
        }
        for (int o = 0; o < part->n_out; o++) {
            for (int j = 0; j < l->rank; j++) {
                gradient[part->b + (size_t)o * l->rank + j] =
                    (double)l->scale * sum[part->b + (size_t)j * part->n_out + o];
            }
        }
    }
}

static const Module *modules_lora(const AdapterBank *bank, int *n)
{
    const Lora *l = bank->state;
    *n = l->n_modules;
    return l->modules;
}

static void product_lora(const AdapterBank *bank, int adapter, int module, float *a, float *b)
{
    const Lora *l = bank->state;
    const Part *part = &l->parts[module];
    const float *values = values_of(l, adapter);
    memcpy(a, values + part->a, (part->b - part->a) * sizeof *a);
    transpose(b, values + part->b, l->rank, part->n_out);
    for (size_t i = 0; i < (size_t)part->n_out * l->rank; i++) {
        b[i] *= l->scale;
    }
}

const AdapterMethod adapter_method_lora = {
    .name = "lora",
    .open = open_lora,
    .close = close_lora,
    .count = count_lora,
    .initial = initial_lora,
    .set = set_lora,
    .shared_layers = shared_layers_lora,
    .clear = clear_lora,
    .gradient = gradient_lora,
    .modules = modules_lora,
    .product = product_lora,
};
