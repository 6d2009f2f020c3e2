/* Batches in, log-probabilities and gradients out: trees of sequences (arrange.c) in chunks of
 * bounded memory, the vocabulary projection on scored positions only (score.c). */
#include "core/engine_state.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/chunk.h"
#include "core/parallel.h"

enum { LARGEST_CHUNK = 2048, LOGITS_FLOATS = 40 << 20, TWINS_SHARE = 4 };
#define ACTIVATION_BYTES ((size_t)720 << 20)

/* Rows of `limit` at most that fit ACTIVATION_BYTES, whatever a batch keeps of them: full training
 * sums up over the rows of a chunk. */
static int rows_that_fit(const Model *model, int keep, int limit)
{
    const Pass pass = {.model = model, .n_rows = 1024, .n_spans = 1, .keep = keep};
    size_t row = workspace_pass_bytes(&pass, 0) / 1024;
    size_t rows = ACTIVATION_BYTES / row;
    return rows > (size_t)limit ? limit : rows < 64 ? 64 : (int)rows;
}

Status engine_new(Engine **out, const Model *model, int n_threads, int max_tokens, Error *error)
{
    Engine *engine = calloc(1, sizeof *engine);
    if (!engine) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    int given = max_tokens > 0;
    *engine = (Engine){.model = model,
                       .kernels = kernels_best(),
                       .n_threads = n_threads > 0 ? n_threads : 1,
                       .max_tokens = given ? max_tokens : rows_that_fit(model, 1, LARGEST_CHUNK),
                       .max_active = given ? max_tokens : rows_that_fit(model, 0, LARGEST_CHUNK),
                       .max_rows = given ? TWINS_SHARE * max_tokens
                                         : rows_that_fit(model, 0, TWINS_SHARE * LARGEST_CHUNK)};
    engine->arrangement = (Arrangement){
        .model = model, .n_layers = model->config.n_layers, .n_threads = engine->n_threads};
    *out = engine;
    return STATUS_OK;
}

void engine_free(Engine *engine)
{
    if (engine) {
        arrangement_release(&engine->arrangement);
        workspace_release(&engine->workspace);
        free(engine->rope.table);
        free(engine);
    }
}

const Model *engine_model(const Engine *engine)
{
    return engine->model;
}

int engine_threads(const Engine *engine)
{
    return engine->n_threads;
}

/* ---- checking ---- */

static int same_tokens(const Sequence *a, const Sequence *b)
{
    return a->n_tokens == b->n_tokens &&
           (a->tokens == b->tokens ||
            memcmp(a->tokens, b->tokens, (size_t)a->n_tokens * sizeof *a->tokens) == 0);
}

/* Whether sequence `other` is an earlier one of the same text, both with a parent or both without.
 */
static int same_text(const Batch *batch, int i, int other)
{
    if (other < 0 || other >= i) {
        return 0;
    }
    const Sequence *a = &batch->sequences[i], *b = &batch->sequences[other];
    if ((a->parent >= 0) != (b->parent >= 0) || !same_tokens(a, b)) {
        return 0;
    }
    return a->parent < 0 || same_tokens(&batch->sequences[a->parent], &batch->sequences[b->parent]);
}

static int same_scores(const Sequence *a, const Sequence *b)
{
    int n = a->n_tokens;
    if (engine_inverse_temperature(a->temperature) != engine_inverse_temperature(b->temperature)) {
        return 0;
    }
    for (int t = 0; t < n && a->scored != b->scored; t++) {
        if ((a->scored && a->scored[t]) != (b->scored && b->scored[t])) {
            return 0;
        }
    }
    return 1;
}

/* The rules of twin and reference. */
static Status check_sharing(const Engine *engine, const Batch *batch, int i, Error *error)
{
    const Sequence *s = &batch->sequences[i];
    int n_layers = engine->model->config.n_layers;
    if (s->twin_layers < 0 || s->twin_layers > n_layers) {
        return error_set(error, STATUS_USAGE,
                         "sequence %d: shares %d layers with its twin, the model has %d", i,
                         s->twin_layers, n_layers);
    }
    if (s->twin_layers > 0 && !same_text(batch, i, s->twin)) {
        return error_set(error, STATUS_USAGE,
                         "sequence %d: its twin %d is not an earlier sequence of the same text", i,
                         s->twin);
    }
    if (!s->kl) {
        return STATUS_OK;
    }
    if (batch->weigh) {
        return error_set(error, STATUS_USAGE, "sequence %d: kl in a pass with gradients", i);
    }
    if (!same_text(batch, i, s->reference) || !same_scores(s, &batch->sequences[s->reference]) ||
        batch->sequences[s->reference].kl) {
        return error_set(error, STATUS_USAGE,
                         "sequence %d: its reference %d is not an earlier sequence of the same "
                         "text, scored tokens and temperature, and without a reference itself",
                         i, s->reference);
    }
    return STATUS_OK;
}

static Status check_sequence(const Engine *engine, const Batch *batch, int i, Error *error)
{
    const ModelConfig *c = &engine->model->config;
    const Sequence *s = &batch->sequences[i];
    int before = 0;
    if (s->parent >= 0) {
        if (s->parent >= i || batch->sequences[s->parent].parent >= 0 ||
            batch->sequences[s->parent].adapter != s->adapter ||
            (s->parent != i - 1 && batch->sequences[i - 1].parent != s->parent)) {
            return error_set(error, STATUS_USAGE, "sequence %d: parent %d is not right before it",
                             i, s->parent);
        }
        before = batch->sequences[s->parent].n_tokens;
    }
    if (s->n_tokens < 1) {
        return error_set(error, STATUS_USAGE, "sequence %d: empty", i);
    }
    if (before + s->n_tokens > c->max_positions) {
        return error_set(error, STATUS_USAGE, "sequence %d: %d tokens, the model's context is %d",
                         i, before + s->n_tokens, c->max_positions);
    }
    for (int t = 0; t < s->n_tokens; t++) {
        if (s->tokens[t] < 0 || s->tokens[t] >= c->vocab_size) {
            return error_set(error, STATUS_USAGE,
                             "sequence %d: token id %d at %d, the vocabulary has %d", i,
                             (int)s->tokens[t], t, c->vocab_size);
        }
    }
    return check_sharing(engine, batch, i, error);
}

/* ---- chunks ---- */

static int sequence_position(const Batch *batch, int i)
{
    int parent = batch->sequences[i].parent;
    return parent >= 0 ? batch->sequences[parent].n_tokens : 0;
}

static int capacity_of(const Batch *batch, int i)
{
    return (sequence_position(batch, i) + batch->sequences[i].n_tokens + 15) / 16 * 16;
}

/* Spans in the order of their rows; items without rows of their own point at others'. */
static void cut_spans(Chunk *chunk, Workspace *w, const Arrangement *a, int32_t *tokens)
{
    const ModelConfig *c = &chunk->engine->model->config;
    const Batch *batch = chunk->batch;
    Pass *pass = &chunk->pass;
    int row = 0;
    for (int k = 0; k < a->n_items; k++) {
        int i = a->rank[k];
        const Item *item = &a->items[i];
        const Sequence *s = &batch->sequences[item->sequence];
        const Item *before = k > 0 ? &a->items[a->rank[k - 1]] : NULL;
        Span *span = &pass->spans[k];
        chunk->span_of[i] = k;
        *span = (Span){.sequence = item->sequence,
                       .adapter = s->adapter,
                       .first_row = row,
                       .n_rows = s->n_tokens,
                       .position = sequence_position(batch, item->sequence),
                       .parent = item->root != i ? chunk->span_of[item->root] : -1,
                       .capacity = capacity_of(batch, item->sequence),
                       .layer = item->layer,
                       .joined = item->root != i ||
                                 (a->n_pieces > 0 && before && before->piece == item->piece)};
        if (item->layer > 0) {
            span->source_row = pass->spans[chunk->span_of[item->source]].first_row;
        }
        if (item->layer == c->n_layers) {
            span->first_row = span->source_row;
            continue;
        }
        workspace_cut_keys(w, pass, span);
        pass->hook_spans[k] = (RowSpan){.sequence = item->sequence,
                                        .adapter = s->adapter,
                                        .first_row = row,
                                        .n_rows = s->n_tokens,
                                        .index = k,
                                        .key = s->key};
        memcpy(tokens + row, s->tokens, (size_t)s->n_tokens * sizeof *tokens);
        row += s->n_tokens;
    }
}

static Status evaluate_chunk(Engine *engine, const Arrangement *a, int keep, Error *error)
{
    const Model *model = engine->model;
    const ModelConfig *c = &model->config;
    const Batch *batch = a->batch;
    int n_rows = 0, n_scores = 0, n_items = a->n_items, n_spans = 0, longest = 0, weights = 0;
    size_t kv_bytes = 0;
    Chunk chunk = {.engine = engine,
                   .batch = batch,
                   .pass = {.model = model,
                            .kernels = engine->kernels,
                            .rope = engine->rope.table,
                            .hook = batch->hook,
                            .n_threads = engine->n_threads,
                            .keep = keep,
                            .checkpointing = batch->checkpointing,
                            .precision = batch->precision,
                            .n_pieces = a->n_pieces},
                   .arrangement = a};
    Pass *pass = &chunk.pass;
    for (int i = 0; i < n_items; i++) {
        const Sequence *s = &batch->sequences[a->items[i].sequence];
        n_scores += chunk_count_scores(s);
        if (a->items[i].layer < c->n_layers) {
            int capacity = capacity_of(batch, a->items[i].sequence);
            n_spans++;
            n_rows += s->n_tokens;
            longest = capacity > longest ? capacity : longest;
            kv_bytes += workspace_keys_bytes(pass, capacity);
        }
    }
    weights = keep && batch->weight_gradients;
    size_t stride = engine_logits_stride(model), D = (size_t)c->width;
    int rows_at_once = (int)((size_t)LOGITS_FLOATS / stride);
    int most = engine->max_tokens < 1024 ? engine->max_tokens : 1024;
    rows_at_once = rows_at_once > most ? most : rows_at_once;
    rows_at_once = rows_at_once < 32 ? 32 : rows_at_once;
    rows_at_once = rows_at_once > n_scores ? n_scores : rows_at_once;
    size_t scratch = keep ? pass_backward_scratch(c, (size_t)longest, (size_t)longest)
                          : pass_forward_scratch((size_t)longest);
    scratch = (scratch + 15) / 16 * 16;
    pass->n_rows = n_rows;
    pass->n_spans = n_items;
    pass->scratch_stride = scratch;
    pass->weight_gradient = weights ? batch->weight_gradients->gradient : NULL;
    chunk.rows_at_once = rows_at_once;
    chunk.stride = stride;
    size_t bytes = workspace_pass_bytes(pass, weights) + kv_bytes +
                   (size_t)n_items * (sizeof(Span) + sizeof(RowSpan) + sizeof(int)) +
                   (size_t)n_rows * sizeof(int32_t) + (size_t)n_scores * sizeof(Score) +
                   (size_t)engine->n_threads * scratch * sizeof(float) +
                   (size_t)rows_at_once * (2 * D + stride) * sizeof(float) + 16 * 64;
    Workspace *w = &engine->workspace;
    Status status = workspace_reset(w, bytes, error);
    if (status != STATUS_OK) {
        return status;
    }
    workspace_cut_pass(w, pass, weights);
    int32_t *tokens = workspace_take(w, (size_t)n_rows * sizeof *tokens);
    pass->tokens = tokens;
    pass->spans = workspace_take(w, (size_t)n_items * sizeof *pass->spans);
    pass->hook_spans = workspace_take(w, (size_t)n_items * sizeof *pass->hook_spans);
    chunk.span_of = workspace_take(w, (size_t)n_items * sizeof *chunk.span_of);
    cut_spans(&chunk, w, a, tokens);
    pass->n_spans = n_spans;
    pass->attention_scratch =
        workspace_take(w, (size_t)engine->n_threads * scratch * sizeof(float));
    chunk.scores = workspace_take(w, (size_t)n_scores * sizeof *chunk.scores);
    chunk.hidden = workspace_take(w, (size_t)rows_at_once * D * sizeof(float));
    chunk.dhidden = workspace_take(w, (size_t)rows_at_once * D * sizeof(float));
    chunk.logits = workspace_take(w, (size_t)rows_at_once * stride * sizeof(float));

    pass_forward(pass);
    chunk_list_scores(&chunk);
    if (keep) {
        memset(pass->dx, 0, (size_t)n_rows * D * sizeof(float));
    }
    int any = chunk_score(&chunk);
    return keep && any ? pass_backward(pass, error) : STATUS_OK;
}

Status engine_evaluate(Engine *engine, const Batch *batch, Error *error)
{
    parallel_float_mode();
    int longest = 0;
    for (int i = 0; i < batch->n_sequences; i++) {
        Status status = check_sequence(engine, batch, i, error);
        if (status != STATUS_OK) {
            return status;
        }
        int n = sequence_position(batch, i) + batch->sequences[i].n_tokens;
        longest = n > longest ? n : longest;
    }
    assert(!batch->weight_gradients || engine->model->trainable);
    Status status = model_pack(engine->model, error);
    status = status ? status : rope_grow(&engine->rope, &engine->model->config, longest, error);
    if (status != STATUS_OK) {
        return status;
    }
    Arrangement *a = &engine->arrangement;
    a->max_active = batch->weigh ? engine->max_tokens : engine->max_active;
    a->max_rows = batch->weigh ? engine->max_tokens : engine->max_rows;
    status = arrangement_begin(a, batch, error);
    while (status == STATUS_OK && arrangement_next(a)) {
        int frozen =
            !batch->weight_gradients && batch->sequences[a->items[0].sequence].adapter == 0;
        status = evaluate_chunk(engine, a, batch->weigh != NULL && !frozen, error);
    }
    return status;
}
