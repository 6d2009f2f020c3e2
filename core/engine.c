/* Batches in, log-probabilities and gradients out: trees of sequences in chunks of bounded memory,
 * the vocabulary projection on scored positions only. */
#include "core/engine_state.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/parallel.h"

enum { LARGEST_CHUNK = 2048, LOGITS_FLOATS = 40 << 20 };
#define ACTIVATION_BYTES ((size_t)720 << 20)

Status engine_new(Engine **out, const Model *model, int n_threads, int max_tokens, Error *error)
{
    Engine *engine = calloc(1, sizeof *engine);
    float *rope = rope_table(&model->config);
    if (!engine || !rope) {
        free(engine);
        free(rope);
        return error_set(error, STATUS_FAILED, "out of memory: %d positions of rotary angles",
                         model->config.max_positions);
    }
    if (max_tokens <= 0) {
        size_t row = workspace_pass_bytes(model, NULL, 1024, 1, 1, 0) / 1024;
        size_t rows = ACTIVATION_BYTES / row;
        max_tokens = rows > LARGEST_CHUNK ? LARGEST_CHUNK : rows < 64 ? 64 : (int)rows;
    }
    *engine = (Engine){.model = model,
                       .kernels = kernels_best(),
                       .rope = rope,
                       .n_threads = n_threads > 0 ? n_threads : 1,
                       .max_tokens = max_tokens};
    *out = engine;
    return STATUS_OK;
}

void engine_free(Engine *engine)
{
    if (engine) {
        workspace_release(&engine->workspace);
        free(engine->rope);
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
    return STATUS_OK;
}

/* ---- scored positions ---- */

typedef struct {
    int sequence, position; /* of the token that is predicted */
    int row;                /* of the hidden state that predicts it */
    int32_t token;
    float inverse_temperature;
    float largest;
    double sum, logprob, entropy;
    TokenWeight weight;
} Score;

typedef struct {
    Engine *engine;
    const Batch *batch;
    Pass pass;
    int first, last; /* sequences of the chunk */
    Score *scores;
    int n_scores, rows_at_once;
    float *hidden; /* (rows_at_once, D) normalised */
    float *dhidden;
    float *logits; /* (rows_at_once, stride) */
    size_t stride;
    Score *now; /* the scores in logits */
    int n_now;
} Chunk;

static int is_scored(const Sequence *s, int t)
{
    return s->scored && s->scored[t] && (t > 0 || s->parent >= 0);
}

static void list_scores(Chunk *chunk)
{
    int n = 0;
    for (int i = chunk->first; i < chunk->last; i++) {
        const Sequence *s = &chunk->batch->sequences[i];
        const Span *span = &chunk->pass.spans[i - chunk->first];
        for (int t = 0; t < s->n_tokens; t++) {
            if (!is_scored(s, t)) {
                continue;
            }
            const Span *parent = span->parent >= 0 ? &chunk->pass.spans[span->parent] : NULL;
            chunk->scores[n++] = (Score){
                .sequence = i,
                .position = t,
                .row = t > 0 ? span->first_row + t - 1 : parent->first_row + parent->n_rows - 1,
                .token = s->tokens[t],
                .inverse_temperature = engine_inverse_temperature(s->temperature)};
        }
    }
    chunk->n_scores = n;
}

static void score_row(void *context, int i, int thread)
{
    (void)thread;
    const Chunk *chunk = context;
    Score *score = &chunk->now[i];
    const float *logits = chunk->logits + (size_t)i * chunk->stride;
    int V = chunk->engine->model->config.vocab_size;
    const Sequence *s = &chunk->batch->sequences[score->sequence];
    int want_entropy = s->entropies || chunk->batch->need_entropy;
    double weighted = 0;
    chunk->engine->kernels->softmax_stats(&score->largest, &score->sum,
                                          want_entropy ? &weighted : NULL, logits, V,
                                          score->inverse_temperature);
    score->logprob = engine_logprob(logits, score->token, score->inverse_temperature,
                                    score->largest, score->sum);
    score->entropy = want_entropy ? log(score->sum) - weighted / score->sum : 0;
}

static void differentiate_row(void *context, int i, int thread)
{
    (void)thread;
    const Chunk *chunk = context;
    const Score *score = &chunk->now[i];
    float *logits = chunk->logits + (size_t)i * chunk->stride;
    int V = chunk->engine->model->config.vocab_size;
    double w = score->weight.dlogprob, h = score->weight.dentropy;
    if (w == 0 && h == 0) {
        memset(logits, 0, (size_t)V * sizeof *logits);
        return;
    }
    double a = -w - (h != 0 ? h * (score->entropy - log(score->sum)) : 0);
    chunk->engine->kernels->softmax_backward(logits, V, score->inverse_temperature, score->largest,
                                             score->sum, a, -h);
    logits[score->token] += (float)(w * (double)score->inverse_temperature);
}

/* From dlogits to dx of the rows that predicted, one after the other: children share their parent's
 * last row. */
static void backward_head(Chunk *chunk)
{
    Pass *pass = &chunk->pass;
    const Model *model = pass->model;
    int D = model->config.width, V = model->config.vocab_size, stride = (int)chunk->stride;
    matrix_backward(chunk->dhidden, D, chunk->logits, stride, &model->head, chunk->n_now, 0,
                    pass->n_threads);
    if (pass->weight_gradient) {
        size_t head =
            model_offset(model, model->config.tied_head ? PART_EMBEDDING : PART_HEAD, 0, ROLE_Q);
        pass_weight_gradient(pass, pass->weight_gradient + head, chunk->logits, stride,
                             chunk->hidden, V, D, chunk->n_now);
        for (int i = 0; i < chunk->n_now; i++) { /* the rows before normalisation, in place */
            memcpy(chunk->hidden + (size_t)i * (size_t)D,
                   pass->x_out + (size_t)chunk->now[i].row * (size_t)D, (size_t)D * sizeof(float));
        }
        pass_norm_gradient(pass, model_offset(model, PART_NORM_FINAL, 0, ROLE_Q), chunk->dhidden,
                           chunk->hidden, model->norm_final, chunk->n_now);
    }
    for (int i = 0; i < chunk->n_now; i++) {
        size_t row = (size_t)chunk->now[i].row * (size_t)D;
        pass->kernels->rmsnorm_backward(pass->dx + row, NULL,
                                        chunk->dhidden + (size_t)i * (size_t)D, pass->x_out + row,
                                        model->norm_final, D, (float)model->config.rms_eps);
    }
}

/* Logits of the next rows_at_once scores: their log-probabilities, weights, and gradients into dx.
 */
static int score_some(Chunk *chunk, int first)
{
    Pass *pass = &chunk->pass;
    const Model *model = pass->model;
    int D = model->config.width, any = 0;
    int n = chunk->n_scores - first;
    chunk->now = chunk->scores + first;
    chunk->n_now = n = n < chunk->rows_at_once ? n : chunk->rows_at_once;
    for (int i = 0; i < n; i++) {
        pass->kernels->rmsnorm(chunk->hidden + (size_t)i * (size_t)D,
                               pass->x_out + (size_t)chunk->now[i].row * (size_t)D,
                               model->norm_final, D, (float)model->config.rms_eps);
    }
    matrix_forward(chunk->logits, (int)chunk->stride, chunk->hidden, D, &model->head, NULL, n,
                   pass->n_threads);
    parallel_for(n, pass->n_threads, score_row, chunk);
    for (int i = 0; i < n; i++) {
        Score *score = &chunk->now[i];
        const Sequence *s = &chunk->batch->sequences[score->sequence];
        if (s->logprobs) {
            s->logprobs[score->position] = score->logprob;
        }
        if (s->entropies) {
            s->entropies[score->position] = score->entropy;
        }
        if (chunk->batch->weigh) {
            score->weight = chunk->batch->weigh(chunk->batch->weigh_context, score->sequence,
                                                score->position, score->logprob, score->entropy);
            any |= score->weight.dlogprob != 0 || score->weight.dentropy != 0;
        }
    }
    if (pass->keep && any) {
        parallel_for(n, pass->n_threads, differentiate_row, chunk);
        backward_head(chunk);
    }
    return any;
}

/* ---- chunks ---- */

static int sequence_position(const Batch *batch, int i)
{
    int parent = batch->sequences[i].parent;
    return parent >= 0 ? batch->sequences[parent].n_tokens : 0;
}

static size_t kv_floats(const ModelConfig *c, int capacity)
{
    return (size_t)c->n_kv_heads * (size_t)c->head_dim * (size_t)capacity;
}

static int capacity_of(const Batch *batch, int i)
{
    return (sequence_position(batch, i) + batch->sequences[i].n_tokens + 15) / 16 * 16;
}

static void cut_spans(Chunk *chunk, Workspace *w, int32_t *tokens)
{
    const ModelConfig *c = &chunk->engine->model->config;
    const Batch *batch = chunk->batch;
    size_t layers = chunk->pass.keep ? (size_t)c->n_layers : 1;
    int row = 0;
    for (int i = chunk->first; i < chunk->last; i++) {
        const Sequence *s = &batch->sequences[i];
        int capacity = capacity_of(batch, i);
        size_t n = kv_floats(c, capacity);
        float *memory = workspace_take(w, 2 * n * layers * sizeof(float));
        chunk->pass.spans[i - chunk->first] =
            (Span){.sequence = i,
                   .adapter = s->adapter,
                   .first_row = row,
                   .n_rows = s->n_tokens,
                   .position = sequence_position(batch, i),
                   .parent = s->parent >= 0 ? s->parent - chunk->first : -1,
                   .capacity = capacity,
                   .keys = memory,
                   .values = memory + n,
                   .layer_stride = chunk->pass.keep ? 2 * n : 0};
        chunk->pass.hook_spans[i - chunk->first] = (RowSpan){i, s->adapter, row, s->n_tokens, i - chunk->first};
        memcpy(tokens + row, s->tokens, (size_t)s->n_tokens * sizeof *tokens);
        row += s->n_tokens;
    }
}

static Status evaluate_chunk(Engine *engine, const Batch *batch, int first, int last, int keep,
                             Error *error)
{
    const Model *model = engine->model;
    const ModelConfig *c = &model->config;
    int n_rows = 0, n_scores = 0, n_spans = last - first, longest = 0, weights = 0;
    size_t kv_bytes = 0;
    for (int i = first; i < last; i++) {
        const Sequence *s = &batch->sequences[i];
        int capacity = capacity_of(batch, i);
        n_rows += s->n_tokens;
        longest = capacity > longest ? capacity : longest;
        kv_bytes +=
            2 * kv_floats(c, capacity) * (keep ? (size_t)c->n_layers : 1) * sizeof(float) + 64;
        for (int t = 0; t < s->n_tokens; t++) {
            n_scores += is_scored(s, t);
        }
    }
    weights = keep && batch->weight_gradients;
    size_t stride = engine_logits_stride(model), D = (size_t)c->width;
    int rows_at_once = (int)((size_t)LOGITS_FLOATS / stride);
    rows_at_once = rows_at_once < 32 ? 32 : rows_at_once > 1024 ? 1024 : rows_at_once;
    rows_at_once = rows_at_once > n_scores ? n_scores : rows_at_once;
    size_t scratch = keep ? pass_backward_scratch(c, (size_t)longest, (size_t)longest)
                          : pass_forward_scratch((size_t)longest);
    scratch = (scratch + 15) / 16 * 16;
    size_t bytes = workspace_pass_bytes(model, batch->hook, n_rows, n_spans, keep, weights) +
                   kv_bytes + (size_t)n_spans * (sizeof(Span) + sizeof(RowSpan)) +
                   (size_t)n_rows * sizeof(int32_t) + (size_t)n_scores * sizeof(Score) +
                   (size_t)engine->n_threads * scratch * sizeof(float) +
                   (size_t)rows_at_once * (2 * D + stride) * sizeof(float) + 16 * 64;
    Workspace *w = &engine->workspace;
    Status status = workspace_reset(w, bytes, error);
    if (status != STATUS_OK) {
        return status;
    }
    Chunk chunk = {.engine = engine,
                   .batch = batch,
                   .pass = {.model = model,
                            .kernels = engine->kernels,
                            .rope = engine->rope,
                            .hook = batch->hook,
                            .n_threads = engine->n_threads,
                            .keep = keep,
                            .n_rows = n_rows,
                            .n_spans = n_spans,
                            .scratch_stride = scratch,
                            .weight_gradient = weights ? batch->weight_gradients->gradient : NULL},
                   .first = first,
                   .last = last,
                   .rows_at_once = rows_at_once,
                   .stride = stride};
    Pass *pass = &chunk.pass;
    workspace_cut_pass(w, pass, weights);
    int32_t *tokens = workspace_take(w, (size_t)n_rows * sizeof *tokens);
    pass->tokens = tokens;
    pass->spans = workspace_take(w, (size_t)n_spans * sizeof *pass->spans);
    pass->hook_spans = workspace_take(w, (size_t)n_spans * sizeof *pass->hook_spans);
    cut_spans(&chunk, w, tokens);
    pass->attention_scratch =
        workspace_take(w, (size_t)engine->n_threads * scratch * sizeof(float));
    chunk.scores = workspace_take(w, (size_t)n_scores * sizeof *chunk.scores);
    chunk.hidden = workspace_take(w, (size_t)rows_at_once * D * sizeof(float));
    chunk.dhidden = workspace_take(w, (size_t)rows_at_once * D * sizeof(float));
    chunk.logits = workspace_take(w, (size_t)rows_at_once * stride * sizeof(float));

    pass_forward(pass);
    list_scores(&chunk);
    if (keep) {
        memset(pass->dx, 0, (size_t)n_rows * D * sizeof(float));
    }
    int any = 0;
    for (int i = 0; i < n_scores; i += rows_at_once) {
        any |= score_some(&chunk, i);
    }
    return keep && any ? pass_backward(pass, error) : STATUS_OK;
}

/* First sequence after the tree that starts at i, and its rows. */
static int tree_end(const Batch *batch, int i, int *rows)
{
    *rows = batch->sequences[i].n_tokens;
    int end = i + 1;
    while (end < batch->n_sequences && batch->sequences[end].parent == i) {
        *rows += batch->sequences[end++].n_tokens;
    }
    return end;
}

Status engine_evaluate(Engine *engine, const Batch *batch, Error *error)
{
    parallel_float_mode();
    for (int i = 0; i < batch->n_sequences; i++) {
        Status status = check_sequence(engine, batch, i, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    assert(!batch->weight_gradients || engine->model->trainable);
    for (int first = 0; first < batch->n_sequences;) {
        int frozen = !batch->weight_gradients && batch->sequences[first].adapter == 0;
        int rows = 0, last = first;
        while (last < batch->n_sequences) {
            int more, end = tree_end(batch, last, &more);
            int same = frozen == (!batch->weight_gradients && batch->sequences[last].adapter == 0);
            if (last > first && (rows + more > engine->max_tokens || !same)) {
                break;
            }
            rows += more;
            last = end;
        }
        Status status =
            evaluate_chunk(engine, batch, first, last, batch->weigh != NULL && !frozen, error);
        if (status != STATUS_OK) {
            return status;
        }
        first = last;
    }
    return STATUS_OK;
}
