/* 1. Factors are shared by all adapters of the bank; an adapter is its M, one a module.
 * 2. The gradient kept is that of M's cofactor, dM = (U^T dy) (V^T x)^T, a (rank, rank) matrix a
 * module: summed in double over the rows of a sequence in order, then over sequences in order.
 * Small ones in `partial`, so that spans may be computed side by side, and over sequences by `end`;
 * large ones (`ordered`) in the backward itself, whose threads share the columns: the same sums.
 * 3. Rows may be computed by any thread, beside any others: nothing of a row enters another row's
 * numbers. */
#include "adapters/middle.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/outer.h"
#include "adapters/rows.h"
#include "adapters/thin.h"
#include "core/parallel.h"

enum {
    TILE_FLOATS = 16384, /* of U^T dy kept at a time in the backward */
    BLOCK_FLOATS = 2048, /* of V^T x kept on the stack in the forward */
    SMALL_RANK = 16      /* up to which dM of every span is kept */
};

static size_t square(const Middle *m)
{
    return (size_t)m->rank * m->rank;
}

/* Index of (adapter, slot) in core, active and sum; adapters count from 1. */
static size_t place(const Middle *m, int adapter, int slot)
{
    assert(adapter >= 1 && adapter <= m->n_adapters);
    return (size_t)(adapter - 1) * m->n_modules + slot;
}

static int saved_width(const void *context, int module)
{
    const Middle *m = context;
    return m->slot[module] < 0 ? 0 : m->rank;
}

/* y += U M V^T x of rows under one adapter. h_saved: (n_rows, rank) or NULL. */
static void forward_rows(const Middle *m, int slot, const float *x, float *y, float *h_saved,
                         int adapter, int n_rows)
{
    const Factors *f = &m->factors[slot];
    int rank = f->rank, block = BLOCK_FLOATS / rank;
    size_t at = place(m, adapter, slot);
    const float *turned = m->turned + at * square(m);
    float h_block[BLOCK_FLOATS], z[BLOCK_FLOATS];
    if (!m->active[at] && h_saved == NULL) {
        return;
    }
    for (int first = 0; first < n_rows; first += block) {
        int rows = n_rows - first < block ? n_rows - first : block;
        /* cppcheck-suppress legacyUninitvar ; h is what thin_project fills */
        float *h = h_saved ? h_saved + (size_t)first * rank : h_block;
        /* cppcheck-suppress legacyUninitvar ; as above */
        thin_project(h, x + (size_t)first * f->n_in, f->v, rows, f->n_in, rank);
        if (!m->active[at]) {
            continue; /* M = 0: y keeps its bits */
        }
        thin_mix(z, h, turned, rows, rank);
        thin_expand(y + (size_t)first * f->n_out, z, f->u, rows, f->n_out, rank);
    }
}

static int share_count(const Middle *m, int slot, int n_rows, int n_threads)
{
    const Factors *f = &m->factors[slot];
    return rows_threads(n_rows, f->rank, f->n_in, f->n_out, n_threads);
}

/* A call of the hook, cut into shares of its rows. */
typedef struct {
    const Middle *m;
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
    const Factors *f = &w->m->factors[w->slot];
    int first, last;
    rows_share(&first, &last, w->n_rows, share, w->n_shares);
    for (int i = 0, start = 0; i < w->n_spans; start += w->spans[i].n_rows, i++) {
        RowSpan span = w->spans[i];
        if (span.adapter == 0 || !rows_clip(&span, start, first, last)) {
            continue;
        }
        const HookForward *call = w->forward;
        size_t row = (size_t)span.first_row;
        forward_rows(w->m, w->slot, call->x + row * f->n_in, call->y + row * f->n_out,
                     call->saved ? call->saved + row * f->rank : NULL, span.adapter, span.n_rows);
    }
}

static void forward(void *context, int module, const HookForward *call, const RowSpan *spans,
                    int n_spans, int n_threads)
{
    const Middle *m = context;
    int slot = m->slot[module];
    if (slot < 0) {
        return;
    }
    int n_rows = rows_count(spans, n_spans);
    Work work = {.m = m,
                 .slot = slot,
                 .n_shares = share_count(m, slot, n_rows, n_threads),
                 .forward = call,
                 .spans = spans,
                 .n_spans = n_spans,
                 .n_rows = n_rows};
    parallel_for(work.n_shares, n_threads, forward_share, &work);
}

/* g = U^T dy, and dx += V M^T g, of rows under one adapter. g: (n_rows, rank) out; dx may be NULL.
 */
static void backward_rows(const Middle *m, int slot, float *g, float *dx, const float *dy,
                          int adapter, int n_rows)
{
    const Factors *f = &m->factors[slot];
    int rank = f->rank, block = BLOCK_FLOATS / rank;
    size_t at = place(m, adapter, slot);
    const float *core = m->core + at * square(m);
    float c[BLOCK_FLOATS];
    for (int first = 0; first < n_rows; first += block) {
        int rows = n_rows - first < block ? n_rows - first : block;
        float *g_block = g + (size_t)first * rank;
        thin_project(g_block, dy + (size_t)first * f->n_out, f->u, rows, f->n_out, rank);
        if (dx == NULL || !m->active[at]) {
            continue;
        }
        thin_mix(c, g_block, core, rows, rank);
        thin_expand(dx + (size_t)first * f->n_in, c, f->v, rows, f->n_in, rank);
    }
}

static Status no_memory(double bytes, Error *error)
{
    return error_set(error, STATUS_FAILED, "no memory for the adapter's gradients: %.1f GiB",
                     bytes / 0x1p30);
}

static Status begin_ordered(Middle *m, const RowSpan *spans, int n_spans, Error *error)
{
    size_t n = (size_t)rows_count(spans, n_spans) * (size_t)m->rank;
    if (n > m->n_rows) {
        free(m->rows);
        m->rows = malloc(n * sizeof *m->rows);
        m->n_rows = m->rows ? n : 0;
    }
    return n > m->n_rows ? no_memory((double)n * sizeof(float), error) : STATUS_OK;
}

static Status begin(void *context, const RowSpan *spans, int n_spans, Error *error)
{
    Middle *m = context;
    if (m->ordered) {
        return begin_ordered(m, spans, n_spans, error);
    }
    size_t n = (size_t)n_spans * (size_t)m->n_modules * square(m);
    if (n > m->n_partial) {
        free(m->partial);
        m->partial = malloc(n * sizeof *m->partial);
        m->n_partial = m->partial ? n : 0;
        if (!m->partial) {
            return no_memory((double)n * sizeof(double), error);
        }
    }
    memset(m->partial, 0, n * sizeof *m->partial);
    return STATUS_OK;
}

static void end(void *context, const RowSpan *spans, int n_spans)
{
    Middle *m = context;
    size_t n = (size_t)m->n_modules * square(m);
    for (int i = 0; i < n_spans && !m->ordered; i++) {
        if (spans[i].adapter == 0) {
            continue;
        }
        double *sum = m->sum + place(m, spans[i].adapter, 0) * square(m);
        const double *partial = m->partial + (size_t)spans[i].index * n;
        for (size_t k = 0; k < n; k++) {
            sum[k] += partial[k];
        }
    }
}

static void backward_share(void *context, int share, int thread)
{
    (void)thread;
    const Work *w = context;
    const Factors *f = &w->m->factors[w->slot];
    int first, last;
    rows_share(&first, &last, w->n_rows, share, w->n_shares);
    for (int i = 0, start = -w->first; i < w->n_spans; start += w->spans[i].n_rows, i++) {
        RowSpan span = w->spans[i];
        if (span.adapter == 0 || !rows_clip(&span, start, first, last)) {
            continue;
        }
        const HookBackward *call = w->backward;
        size_t row = (size_t)span.first_row;
        int at = start + span.first_row - w->spans[i].first_row; /* in g */
        backward_rows(w->m, w->slot, w->g + (size_t)at * f->rank,
                      call->dx ? call->dx + row * f->n_in : NULL, call->dy + row * f->n_out,
                      span.adapter, span.n_rows);
    }
}

/* Add the tile's rows to the sums of their spans. */
static void sum_tile(Middle *m, const Work *w)
{
    int rank = m->rank;
    for (int i = 0, start = -w->first; i < w->n_spans; start += w->spans[i].n_rows, i++) {
        RowSpan span = w->spans[i];
        if (span.adapter == 0 || !rows_clip(&span, start, 0, w->n_rows)) {
            continue;
        }
        int at = start + span.first_row - w->spans[i].first_row;
        size_t cell = (size_t)span.index * (size_t)m->n_modules + (size_t)w->slot;
        thin_outer(m->partial + cell * square(m), w->g + (size_t)at * rank,
                   w->backward->saved + (size_t)span.first_row * rank, span.n_rows, rank);
    }
}

static void sum_columns(void *context, int task, int thread)
{
    (void)thread;
    const Work *w = context;
    const Middle *m = w->m;
    for (int i = 0; i < w->n_spans; i++) {
        const RowSpan *span = &w->spans[i];
        if (span->adapter > 0) {
            outer_add(m->sum + place(m, span->adapter, w->slot) * square(m), m->rows, m->rank,
                      w->backward->saved, m->rank, (OuterMask){0}, span, task);
        }
    }
}

/* All spans at once. */
static void backward_ordered(Work *work, int n_threads)
{
    const Middle *m = work->m;
    work->g = m->rows;
    work->n_rows = rows_count(work->spans, work->n_spans);
    work->n_shares = share_count(m, work->slot, work->n_rows, n_threads);
    parallel_for(work->n_shares, n_threads, backward_share, work);
    parallel_for(outer_tasks(m->rank, m->rank), work->n_shares == 1 ? 1 : n_threads, sum_columns,
                 work);
}

static void backward(void *context, int module, const HookBackward *call, const RowSpan *spans,
                     int n_spans, int n_threads)
{
    Middle *m = context;
    int slot = m->slot[module];
    if (slot < 0) {
        return;
    }
    int n_rows = rows_count(spans, n_spans), tile = TILE_FLOATS / m->rank;
    float g[TILE_FLOATS];
    Work work = {
        .m = m, .slot = slot, .backward = call, .spans = spans, .n_spans = n_spans, .g = g};
    if (m->ordered) {
        backward_ordered(&work, n_threads);
        return;
    }
    for (; work.first < n_rows; work.first += tile) {
        work.n_rows = n_rows - work.first < tile ? n_rows - work.first : tile;
        work.n_shares = share_count(m, slot, work.n_rows, n_threads);
        parallel_for(work.n_shares, n_threads, backward_share, &work);
        sum_tile(m, &work);
    }
}

/* -- what the methods call -------------------------------------------------------------------- */

void middle_release(Middle *m)
{
    for (int i = 0; m->factors && i < m->n_modules; i++) {
        factors_release(&m->factors[i]);
    }
    free(m->slot);
    free(m->factors);
    free(m->core);
    free(m->turned);
    free(m->active);
    free(m->sum);
    free(m->partial);
    free(m->rows);
    *m = (Middle){0};
}

static Status allocate(Middle *m, Error *error)
{
    size_t n = (size_t)m->n_modules, cores = (size_t)m->n_adapters * n * square(m);
    m->slot = malloc((size_t)m->n_slots * sizeof *m->slot);
    m->factors = calloc(n, sizeof *m->factors);
    m->core = calloc(cores, sizeof *m->core);
    m->turned = calloc(cores, sizeof *m->turned);
    m->active = calloc((size_t)m->n_adapters * n, sizeof *m->active);
    m->sum = calloc(cores, sizeof *m->sum);
    if (!m->slot || !m->factors || !m->core || !m->turned || !m->active || !m->sum) {
        return error_set(error, STATUS_FAILED, "no memory for the adapters' matrices: %.1f GiB",
                         (double)cores * (2 * sizeof(float) + sizeof(double)) / 0x1p30);
    }
    return STATUS_OK;
}

Status middle_open(Middle *m, LinearHook *hook, const Model *model, const Module *modules,
                   int n_modules, int rank, int n_adapters, const AdapterSetup *setup, Error *error)
{
    const ModelConfig *config = &model->config;
    *m = (Middle){.rank = rank,
                  .n_adapters = n_adapters,
                  .n_modules = n_modules,
                  .n_slots = config->n_layers * N_ROLES,
                  .n_layers = config->n_layers,
                  .modules = modules,
                  .ordered = rank > SMALL_RANK};
    Status status = allocate(m, error);
    if (status == STATUS_OK) {
        status =
            factors_open(m->factors, model, modules, n_modules, rank, setup->n_threads,
                         setup->cache_directory, setup->progress, setup->progress_context, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    for (int i = 0; i < m->n_slots; i++) {
        m->slot[i] = -1;
    }
    int lowest = config->n_layers;
    for (int i = 0; i < n_modules; i++) {
        m->slot[modules[i].layer * N_ROLES + (int)modules[i].role] = i;
        lowest = modules[i].layer < lowest ? modules[i].layer : lowest;
    }
    *hook = (LinearHook){.context = m,
                         .ordered = m->ordered,
                         .lowest_layer = lowest,
                         .saved_width = saved_width,
                         .forward = forward,
                         .backward = backward,
                         .begin = begin,
                         .end = end};
    return STATUS_OK;
}

void middle_set(Middle *m, int adapter, int slot, const float *values)
{
    size_t at = place(m, adapter, slot), rank = (size_t)m->rank;
    float *core = m->core + at * square(m), *turned = m->turned + at * square(m);
    bool active = false;
    for (size_t e = 0; e < square(m); e++) {
        core[e] = values[e];
        turned[e % rank * rank + e / rank] = values[e];
        active |= values[e] != 0; /* true for NaN: a diverged v must show */
    }
    m->active[at] = active;
}

void middle_product(const Middle *m, int adapter, int slot, float *a, float *b)
{
    const Factors *f = &m->factors[slot];
    const float *core = m->core + place(m, adapter, slot) * square(m);
    size_t rank = (size_t)m->rank, n_out = (size_t)f->n_out;
    memcpy(a, f->v, rank * f->n_in * sizeof *a);
    for (size_t o = 0; o < n_out; o++) {
        for (size_t k = 0; k < rank; k++) {
            double sum = 0;
            for (size_t j = 0; j < rank; j++) {
                sum += (double)f->u[j * n_out + o] * (double)core[j * rank + k];
            }
            b[o * rank + k] = (float)sum;
        }
    }
}

const double *middle_gradient(const Middle *m, int adapter, int slot)
{
    return m->sum + place(m, adapter, slot) * square(m);
}

void middle_clear(Middle *m)
{
    memset(m->sum, 0, (size_t)m->n_adapters * m->n_modules * square(m) * sizeof *m->sum);
}

/* Both add nothing, or the same M. */
static bool is_same(const Middle *m, int a, int b, int slot)
{
    bool active_a = a > 0 && m->active[place(m, a, slot)];
    bool active_b = b > 0 && m->active[place(m, b, slot)];
    if (!active_a || !active_b) {
        return active_a == active_b;
    }
    return memcmp(m->core + place(m, a, slot) * square(m), m->core + place(m, b, slot) * square(m),
                  square(m) * sizeof *m->core) == 0;
}

int middle_shared_layers(const Middle *m, int a, int b)
{
    int shared = m->n_layers;
    for (int i = 0; i < m->n_modules; i++) {
        if (m->modules[i].layer < shared && !is_same(m, a, b, i)) {
            shared = m->modules[i].layer;
        }
    }
    return shared;
}
