/* TinyLoRA: y += s U S R V^T x with R = sum_i v_i P_i, v shared by the modules of a tie group.
 *
 * 1. Factors and P are shared by all adapters of the bank; an adapter is its v, kept as M = S R a
 * module.
 * 2. The gradient kept is that of M's cofactor, dR = (U^T dy) (V^T x)^T, a (rank, rank) matrix a
 * module: summed in double over the rows of a sequence in order (`partial`, so that spans may be
 * computed side by side), then over sequences in order by `end`. v's gradient is read from it.
 * 3. Rows may be computed by any thread, beside any others: nothing of a row enters another row's
 * numbers. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/factors.h"
#include "adapters/method.h"
#include "adapters/thin.h"
#include "core/parallel.h"
#include "core/random.h"

enum {
    TILE_FLOATS = 16384,   /* of U^T dy kept at a time in the backward */
    BLOCK_FLOATS = 2048,   /* of V^T x kept on the stack in the forward */
    ROW_BLOCK = 4,         /* threads get whole blocks of rows */
    PARALLEL_WORK = 200000 /* multiply-adds below which threads cost more than they give */
};

typedef struct {
    Plan plan;
    float scale;
    int n_adapters, n_modules, n_slots;
    Module *modules;   /* (n_modules) */
    int *slot;         /* (n_slots = n_layers * N_ROLES) index in modules, or -1 */
    int *group;        /* (n_modules) */
    Factors *factors;  /* (n_modules) */
    float *projection; /* P: (n_modules, u, rank, rank) */
    float *core;       /* M = S R: (n_adapters, n_modules, rank, rank) */
    float *turned;     /* M^T, the same shape */
    bool *active;      /* (n_adapters, n_modules): M has a nonzero */
    double *sum;       /* dR over sequences: (n_adapters, n_modules, rank, rank) */
    double *partial;   /* dR of each span of a backward: (n_spans, n_modules, rank, rank) */
    size_t n_partial;  /* doubles it can hold */
} TinyLora;

static size_t square(const TinyLora *t)
{
    return (size_t)t->plan.rank * t->plan.rank;
}

/* Index of (adapter, slot) in core, active and sum; adapters count from 1. */
static size_t place(const TinyLora *t, int adapter, int slot)
{
    assert(adapter >= 1 && adapter <= t->n_adapters);
    return (size_t)(adapter - 1) * t->n_modules + slot;
}

/* -- the hook --------------------------------------------------------------------------------- */

static int saved_width(const void *context, int module)
{
    const TinyLora *t = context;
    return t->slot[module] < 0 ? 0 : t->plan.rank;
}

/* The rows [first, last) that are one share of n_rows, counted over the spans of a call. */
static void share_of_rows(int *first, int *last, int n_rows, int share, int n_shares)
{
    int blocks = (n_rows + ROW_BLOCK - 1) / ROW_BLOCK;
    *first = (int)((long)blocks * share / n_shares) * ROW_BLOCK;
    *last = (int)((long)blocks * (share + 1) / n_shares) * ROW_BLOCK;
    *last = *last < n_rows ? *last : n_rows;
}

/* Clip a span that starts at count `start` of the call's rows to [first, last); false when nothing
 * is left. */
static bool clip(RowSpan *span, int start, int first, int last)
{
    int from = first > start ? first - start : 0;
    int to = last - start < span->n_rows ? last - start : span->n_rows;
    span->first_row += from;
    span->n_rows = to - from;
    return to > from;
}

/* y += U M V^T x of rows under one adapter. h_saved: (n_rows, rank) or NULL. */
static void forward_rows(const TinyLora *t, int slot, const float *x, float *y, float *h_saved,
                         int adapter, int n_rows)
{
    const Factors *f = &t->factors[slot];
    int rank = f->rank, block = BLOCK_FLOATS / rank;
    size_t at = place(t, adapter, slot);
    const float *turned = t->turned + at * square(t);
    float h_block[BLOCK_FLOATS], z[BLOCK_FLOATS];
    if (!t->active[at] && h_saved == NULL) {
        return;
    }
    for (int first = 0; first < n_rows; first += block) {
        int rows = n_rows - first < block ? n_rows - first : block;
        float *h = h_saved ? h_saved + (size_t)first * rank : h_block;
        thin_project(h, x + (size_t)first * f->n_in, f->v, rows, f->n_in, rank);
        if (!t->active[at]) {
            continue; /* M = 0: y keeps its bits */
        }
        thin_mix(z, h, turned, rows, rank);
        thin_expand(y + (size_t)first * f->n_out, z, f->u, rows, f->n_out, rank);
    }
}

static int count_rows(const RowSpan *spans, int n_spans)
{
    int n_rows = 0;
    for (int i = 0; i < n_spans; i++) {
        n_rows += spans[i].n_rows;
    }
    return n_rows;
}

static bool worth_threads(const Factors *f, int n_rows)
{
    return (double)n_rows * f->rank * (f->n_in + f->n_out) > PARALLEL_WORK;
}

/* A call of the hook, cut into shares of its rows. */
typedef struct {
    const TinyLora *t;
    int slot, n_shares;
    const HookForward *forward;
    const HookBackward *backward;
    const RowSpan *spans;
    int n_spans;
    int first, n_rows; /* of the rows counted over the spans: all, or one tile of them */
    float *g;          /* backward: (n_rows, rank) U^T dy */
} Work;

static void forward_share(void *context, int share, int thread)
{
    (void)thread;
    const Work *w = context;
    const Factors *f = &w->t->factors[w->slot];
    int first, last;
    share_of_rows(&first, &last, w->n_rows, share, w->n_shares);
    for (int i = 0, start = 0; i < w->n_spans; start += w->spans[i].n_rows, i++) {
        RowSpan span = w->spans[i];
        if (span.adapter == 0 || !clip(&span, start, first, last)) {
            continue;
        }
        const HookForward *call = w->forward;
        size_t row = (size_t)span.first_row;
        forward_rows(w->t, w->slot, call->x + row * f->n_in, call->y + row * f->n_out,
                     call->saved ? call->saved + row * f->rank : NULL, span.adapter, span.n_rows);
    }
}

static void forward(void *context, int module, const HookForward *call, const RowSpan *spans,
                    int n_spans, int n_threads)
{
    const TinyLora *t = context;
    int slot = t->slot[module];
    if (slot < 0) {
        return;
    }
    int n_rows = count_rows(spans, n_spans);
    Work work = {.t = t,
                 .slot = slot,
                 .n_shares = worth_threads(&t->factors[slot], n_rows) ? n_threads : 1,
                 .forward = call,
                 .spans = spans,
                 .n_spans = n_spans,
                 .n_rows = n_rows};
    parallel_for(work.n_shares, n_threads, forward_share, &work);
}

/* g = U^T dy, and dx += V M^T g, of rows under one adapter. g: (n_rows, rank) out; dx may be NULL.
 */
static void backward_rows(const TinyLora *t, int slot, float *g, float *dx, const float *dy,
                          int adapter, int n_rows)
{
    const Factors *f = &t->factors[slot];
    int rank = f->rank, block = BLOCK_FLOATS / rank;
    size_t at = place(t, adapter, slot);
    const float *core = t->core + at * square(t);
    float c[BLOCK_FLOATS];
    for (int first = 0; first < n_rows; first += block) {
        int rows = n_rows - first < block ? n_rows - first : block;
        float *g_block = g + (size_t)first * rank;
        thin_project(g_block, dy + (size_t)first * f->n_out, f->u, rows, f->n_out, rank);
        if (dx == NULL || !t->active[at]) {
            continue;
        }
        thin_mix(c, g_block, core, rows, rank);
        thin_expand(dx + (size_t)first * f->n_in, c, f->v, rows, f->n_in, rank);
    }
}

static Status begin(void *context, const RowSpan *spans, int n_spans, Error *error)
{
    (void)spans;
    TinyLora *t = context;
    size_t n = (size_t)n_spans * (size_t)t->n_modules * square(t);
    if (n > t->n_partial) {
        free(t->partial);
        t->partial = malloc(n * sizeof *t->partial);
        t->n_partial = t->partial ? n : 0;
        if (!t->partial) {
            return error_set(error, STATUS_FAILED,
                             "no memory for the adapter's gradients: %.1f GiB",
                             (double)n * sizeof(double) / 0x1p30);
        }
    }
    memset(t->partial, 0, n * sizeof *t->partial);
    return STATUS_OK;
}

static void end(void *context, const RowSpan *spans, int n_spans)
{
    TinyLora *t = context;
    size_t n = (size_t)t->n_modules * square(t);
    for (int i = 0; i < n_spans; i++) {
        if (spans[i].adapter == 0) {
            continue;
        }
        double *sum = t->sum + place(t, spans[i].adapter, 0) * square(t);
        const double *partial = t->partial + (size_t)spans[i].index * n;
        for (size_t k = 0; k < n; k++) {
            sum[k] += partial[k];
        }
    }
}

static void backward_share(void *context, int share, int thread)
{
    (void)thread;
    const Work *w = context;
    const Factors *f = &w->t->factors[w->slot];
    int first, last;
    share_of_rows(&first, &last, w->n_rows, share, w->n_shares);
    for (int i = 0, start = -w->first; i < w->n_spans; start += w->spans[i].n_rows, i++) {
        RowSpan span = w->spans[i];
        if (span.adapter == 0 || !clip(&span, start, first, last)) {
            continue;
        }
        const HookBackward *call = w->backward;
        size_t row = (size_t)span.first_row;
        int at = start + span.first_row - w->spans[i].first_row; /* in g */
        backward_rows(w->t, w->slot, w->g + (size_t)at * f->rank,
                      call->dx ? call->dx + row * f->n_in : NULL, call->dy + row * f->n_out,
                      span.adapter, span.n_rows);
    }
}

/* Add the tile's rows to the sums of their spans. */
static void sum_tile(TinyLora *t, const Work *w)
{
    int rank = t->plan.rank;
    for (int i = 0, start = -w->first; i < w->n_spans; start += w->spans[i].n_rows, i++) {
        RowSpan span = w->spans[i];
        if (span.adapter == 0 || !clip(&span, start, 0, w->n_rows)) {
            continue;
        }
        int at = start + span.first_row - w->spans[i].first_row;
        size_t cell = (size_t)span.index * (size_t)t->n_modules + (size_t)w->slot;
        thin_outer(t->partial + cell * square(t), w->g + (size_t)at * rank,
                   w->backward->saved + (size_t)span.first_row * rank, span.n_rows, rank);
    }
}

static void backward(void *context, int module, const HookBackward *call, const RowSpan *spans,
                     int n_spans, int n_threads)
{
    TinyLora *t = context;
    int slot = t->slot[module];
    if (slot < 0) {
        return;
    }
    int n_rows = count_rows(spans, n_spans), tile = TILE_FLOATS / t->plan.rank;
    float g[TILE_FLOATS];
    Work work = {
        .t = t, .slot = slot, .backward = call, .spans = spans, .n_spans = n_spans, .g = g};
    for (; work.first < n_rows; work.first += tile) {
        work.n_rows = n_rows - work.first < tile ? n_rows - work.first : tile;
        work.n_shares = worth_threads(&t->factors[slot], work.n_rows) ? n_threads : 1;
        parallel_for(work.n_shares, n_threads, backward_share, &work);
        sum_tile(t, &work);
    }
}

/* -- the method ------------------------------------------------------------------------------- */

static void close_tinylora(AdapterBank *bank)
{
    TinyLora *t = bank->state;
    if (t == NULL) {
        return;
    }
    for (int i = 0; t->factors && i < t->n_modules; i++) {
        factors_release(&t->factors[i]);
    }
    free(t->modules);
    free(t->slot);
    free(t->group);
    free(t->factors);
    free(t->projection);
    free(t->core);
    free(t->turned);
    free(t->active);
    free(t->sum);
    free(t->partial);
    free(t);
    bank->state = NULL;
}

/* Every target must be able to give `rank` singular triplets. */
static Status check_rank(const TinyLora *t, const ModelConfig *config, Error *error)
{
    for (int i = 0; i < t->n_modules; i++) {
        int out, in;
        role_shape(config, t->modules[i].role, &out, &in);
        int most = out < in ? out : in;
        if (t->plan.rank > most) {
            char name[96];
            module_name(name, t->modules[i].layer, t->modules[i].role);
            return error_set(error, STATUS_USAGE, "module \"%s\" (%d x %d): rank %d, at most %d",
                             name, out, in, t->plan.rank, most);
        }
    }
    return STATUS_OK;
}

static void fill_projection(TinyLora *t, uint64_t seed)
{
    int rank = t->plan.rank;
    double deviation = 1 / sqrt((double)rank);
    float *p = t->projection;
    for (int m = 0; m < t->n_modules; m++) {
        char name[96];
        module_name(name, t->modules[m].layer, t->modules[m].role);
        RandomKey key = {random_seed_for(seed, name), RANDOM_PROJECTION};
        for (int i = 0; i < t->plan.u; i++) {
            for (int j = 0; j < rank; j++) {
                for (int k = 0; k < rank; k++) {
                    *p++ = (float)(random_normal(key, (uint32_t)i, (uint32_t)j, (uint32_t)k, 0) *
                                   deviation);
                }
            }
        }
    }
}

static Status allocate(TinyLora *t, const ModelConfig *config, int n_adapters, Error *error)
{
    size_t n = (size_t)t->n_modules, cores = (size_t)n_adapters * n * square(t);
    size_t numbers = n * (size_t)t->plan.u * square(t);
    t->n_adapters = n_adapters;
    t->n_slots = config->n_layers * N_ROLES;
    t->slot = malloc((size_t)t->n_slots * sizeof *t->slot);
    t->group = malloc(n * sizeof *t->group);
    t->factors = calloc(n, sizeof *t->factors);
    t->projection = malloc(numbers * sizeof *t->projection);
    t->core = calloc(cores, sizeof *t->core);
    t->turned = calloc(cores, sizeof *t->turned);
    t->active = calloc((size_t)n_adapters * n, sizeof *t->active);
    t->sum = calloc(cores, sizeof *t->sum);
    if (!t->slot || !t->group || !t->factors || !t->projection || !t->core || !t->active ||
        !t->sum) {
        double bytes =
            (double)numbers * sizeof(float) + (double)cores * (2 * sizeof(float) + sizeof(double));
        return error_set(error, STATUS_FAILED, "no memory for the projections: %.1f GiB",
                         bytes / 0x1p30);
    }
    return STATUS_OK;
}

static Status open_tinylora(AdapterBank *bank, const AdapterSetup *setup, Error *error)
{
    const ModelConfig *config = &bank->model->config;
    TinyLora *t = calloc(1, sizeof *t);
    bank->state = t;
    if (t != NULL) {
        t->modules = malloc((size_t)config->n_layers * N_ROLES * sizeof *t->modules);
    }
    if (t == NULL || t->modules == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for an adapter");
    }
    if (!isfinite(bank->spec.scale)) {
        return error_set(error, STATUS_USAGE, "scale is not a finite number");
    }
    t->n_modules = plan_modules(t->modules, config, bank->spec.targets);
    t->scale = bank->spec.scale;
    Status status = plan_complete(&bank->spec.plan, t->modules, t->n_modules, error);
    t->plan = bank->spec.plan;
    if (status == STATUS_OK) {
        status = check_rank(t, config, error);
    }
    if (status == STATUS_OK) {
        status = allocate(t, config, bank->n_adapters, error);
    }
    if (status == STATUS_OK) {
        status = plan_groups(t->group, &t->plan, t->modules, error);
    }
    if (status == STATUS_OK) {
        status = factors_open(t->factors, bank->model, t->modules, t->n_modules, t->plan.rank,
                              setup->n_threads, setup->cache_directory, setup->progress,
                              setup->progress_context, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    for (int i = 0; i < t->n_slots; i++) {
        t->slot[i] = -1;
    }
    int lowest = config->n_layers;
    for (int i = 0; i < t->n_modules; i++) {
        t->slot[t->modules[i].layer * N_ROLES + (int)t->modules[i].role] = i;
        lowest = t->modules[i].layer < lowest ? t->modules[i].layer : lowest;
    }
    fill_projection(t, bank->spec.seed);
    bank->n_parameters = (size_t)t->plan.parameters;
    bank->hook = (LinearHook){.context = t,
                              .lowest_layer = lowest,
                              .saved_width = saved_width,
                              .forward = forward,
                              .backward = backward,
                              .begin = begin,
                              .end = end};
    return STATUS_OK;
}

static void initial_tinylora(const AdapterBank *bank, float *v)
{
    for (size_t i = 0; i < bank->n_parameters; i++) {
        v[i] = 0;
    }
}

static void set_tinylora(AdapterBank *bank, int adapter, const float *v, int n_threads)
{
    (void)n_threads;
    parallel_float_mode();
    TinyLora *t = bank->state;
    int u = t->plan.u, rank = t->plan.rank;
    for (int m = 0; m < t->n_modules; m++) {
        size_t at = place(t, adapter, m);
        float *core = t->core + at * square(t), *turned = t->turned + at * square(t);
        const float *p = t->projection + (size_t)m * u * square(t);
        const float *v_group = v + (size_t)t->group[m] * u;
        bool active = false;
        for (size_t e = 0; e < square(t); e++) {
            float sum = 0;
            for (int i = 0; i < u; i++) {
                sum += v_group[i] * p[(size_t)i * square(t) + e];
            }
            size_t j = e / (size_t)rank, k = e % (size_t)rank;
            core[e] = t->factors[m].s[j] * (t->scale * sum);
            turned[k * (size_t)rank + j] = core[e];
            active |= core[e] != 0; /* true for NaN: a diverged v must show */
        }
        t->active[at] = active;
    }
}

/* Both add nothing, or the same M. */
static bool is_same(const TinyLora *t, int a, int b, int slot)
{
    bool active_a = a > 0 && t->active[place(t, a, slot)];
    bool active_b = b > 0 && t->active[place(t, b, slot)];
    if (!active_a || !active_b) {
        return active_a == active_b;
    }
    return memcmp(t->core + place(t, a, slot) * square(t), t->core + place(t, b, slot) * square(t),
                  square(t) * sizeof *t->core) == 0;
}

static int shared_layers_tinylora(const AdapterBank *bank, int a, int b)
{
    const TinyLora *t = bank->state;
    int shared = bank->model->config.n_layers;
    for (int m = 0; m < t->n_modules; m++) {
        if (t->modules[m].layer < shared && !is_same(t, a, b, m)) {
            shared = t->modules[m].layer;
        }
    }
    return shared;
}

static void use_base_tinylora(AdapterBank *bank, bool base, int n_threads)
{
    (void)bank; /* adapter 0 is the base at any time */
    (void)base;
    (void)n_threads;
}

static void clear_tinylora(AdapterBank *bank)
{
    TinyLora *t = bank->state;
    memset(t->sum, 0, (size_t)bank->n_adapters * t->n_modules * square(t) * sizeof *t->sum);
}

/* dv_i = s sum over the group's modules of <P_i, S dR>. */
static void gradient_tinylora(const AdapterBank *bank, int adapter, double *gradient)
{
    const TinyLora *t = bank->state;
    int u = t->plan.u, rank = t->plan.rank;
    memset(gradient, 0, bank->n_parameters * sizeof *gradient);
    for (int m = 0; m < t->n_modules; m++) {
        const double *sum = t->sum + place(t, adapter, m) * square(t);
        const float *p = t->projection + (size_t)m * u * square(t);
        for (int i = 0; i < u; i++) {
            double product = 0;
            for (size_t e = 0; e < square(t); e++) {
                double s = (double)t->factors[m].s[e / (size_t)rank];
                product += (double)p[(size_t)i * square(t) + e] * (s * sum[e]);
            }
            gradient[(size_t)t->group[m] * u + i] += (double)t->scale * product;
        }
    }
}

const AdapterMethod adapter_method_tinylora = {
    .name = "tinylora",
    .open = open_tinylora,
    .close = close_tinylora,
    .initial = initial_tinylora,
    .set = set_tinylora,
    .shared_layers = shared_layers_tinylora,
    .use_base = use_base_tinylora,
    .clear = clear_tinylora,
    .gradient = gradient_tinylora,
};
