/* The vocabulary projection, on scored positions only and a block of them at a time: statistics of
 * each row of logits, and on the way back their gradients. Never a matrix of T x V. */
#include "core/chunk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/parallel.h"

static int is_scored(const Sequence *s, int t)
{
    return s->scored && s->scored[t] && (t > 0 || s->parent >= 0);
}

int chunk_count_scores(const Sequence *s)
{
    int n = 0;
    for (int t = 0; t < s->n_tokens; t++) {
        n += is_scored(s, t);
    }
    return n;
}

/* By group and position, those that refer to others last, equal rows side by side. */
static int compare_scores(const void *left, const void *right)
{
    const Score *a = left, *b = right;
    return a->group != b->group         ? a->group - b->group
           : a->position != b->position ? a->position - b->position
           : a->refers != b->refers     ? a->refers - b->refers
           : a->row != b->row           ? a->row - b->row
                                        : a->sequence - b->sequence;
}

static int refers(const Chunk *chunk, const Item *item)
{
    return chunk->batch->sequences[item->sequence].kl && !item->silent;
}

/* Sequences whose logits may be shared: those of one reference, and of one set of rows. */
static int group_of(const Chunk *chunk, int i)
{
    const Arrangement *a = chunk->arrangement;
    const Item *item = &a->items[i];
    if (refers(chunk, item)) {
        return group_of(chunk, a->item_of[chunk->batch->sequences[item->sequence].reference]);
    }
    return item->layer == a->n_layers ? group_of(chunk, item->source) : item->sequence;
}

/* Each score that refers to another one finds it among those of its group and position. */
static void find_references(Chunk *chunk)
{
    const Sequence *sequences = chunk->batch->sequences;
    for (int i = 0, first = 0; i < chunk->n_scores; i++) {
        Score *score = &chunk->scores[i], *leader = &chunk->scores[first];
        if (score->group != leader->group || score->position != leader->position) {
            first = i;
        }
        if (score->refers) {
            score->reference = first;
            while (chunk->scores[score->reference].sequence !=
                   sequences[score->sequence].reference) {
                score->reference++;
            }
        }
    }
}

void chunk_list_scores(Chunk *chunk)
{
    int n = 0, shared = 0;
    for (int i = 0; i < chunk->arrangement->n_items; i++) {
        const Item *item = &chunk->arrangement->items[i];
        const Sequence *s = &chunk->batch->sequences[item->sequence];
        const Span *span = &chunk->pass.spans[chunk->span_of[i]];
        const Span *parent = &chunk->pass.spans[chunk->span_of[item->root]];
        int group = group_of(chunk, i);
        shared |= group != item->sequence;
        for (int t = 0; t < s->n_tokens; t++) {
            if (is_scored(s, t)) {
                chunk->scores[n++] = (Score){
                    .sequence = item->sequence,
                    .position = t,
                    .silent = item->silent,
                    .row = t > 0 ? span->first_row + t - 1 : parent->first_row + parent->n_rows - 1,
                    .group = group,
                    .refers = refers(chunk, item),
                    .reference = -1,
                    .block = -1,
                    .token = s->tokens[t],
                    .inverse_temperature = engine_inverse_temperature(s->temperature)};
            }
        }
    }
    chunk->n_scores = n;
    if (shared) {
        qsort(chunk->scores, (size_t)n, sizeof *chunk->scores, compare_scores);
        find_references(chunk);
    }
}

static void score_row(void *context, int i, int thread)
{
    (void)thread;
    const Chunk *chunk = context;
    Score *score = &chunk->now[i];
    const float *logits = chunk->logits + (size_t)score->slot * chunk->stride;
    int V = chunk->engine->model->config.vocab_size;
    const Sequence *s = &chunk->batch->sequences[score->sequence];
    int want_entropy = s->entropies || chunk->batch->need_entropy;
    double weighted = 0;
    chunk->engine->kernels->softmax_stats(&score->largest, &score->sum,
                                          want_entropy ? &weighted : NULL, logits, V,
                                          score->inverse_temperature);
    score->logprob = engine_logprob(logits, score->token, score->inverse_temperature,
                                    score->largest, score->sum);
    if (s->means) {
        score->mean =
            chunk->engine->kernels->sum(logits, V) * (double)score->inverse_temperature / V -
            ((double)score->largest + log(score->sum));
    }
    score->entropy = want_entropy ? log(score->sum) - weighted / score->sum : 0;
}

static void differentiate_row(void *context, int i, int thread)
{
    (void)thread;
    const Chunk *chunk = context;
    const Score *score = &chunk->now[i];
    float *logits = chunk->logits + (size_t)i * chunk->stride;
    int V = chunk->engine->model->config.vocab_size;
    double w = score->weight.dlogprob, h = score->weight.dentropy, m = score->weight.dmean;
    if (w == 0 && h == 0 && m == 0) {
        memset(logits, 0, (size_t)V * sizeof *logits);
        return;
    }
    double a = -w - m - (h != 0 ? h * (score->entropy - log(score->sum)) : 0);
    chunk->engine->kernels->softmax_backward(logits, V, score->inverse_temperature, score->largest,
                                             score->sum, a, -h);
    float each = (float)(m / V * (double)score->inverse_temperature);
    for (int v = 0; v < V && m != 0; v++) {
        logits[v] += each;
    }
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
                           chunk->hidden, model->norm_final, chunk->n_now, D);
    }
    for (int i = 0; i < chunk->n_now; i++) {
        size_t row = (size_t)chunk->now[i].row * (size_t)D;
        pass->kernels->rmsnorm_backward(pass->dx + row, NULL,
                                        chunk->dhidden + (size_t)i * (size_t)D, pass->x_out + row,
                                        model->norm_final, D, (float)model->config.rms_eps);
    }
}

static void compare_row(void *context, int i, int thread)
{
    (void)thread;
    const Chunk *chunk = context;
    Score *score = &chunk->now[i];
    if (score->reference < 0) {
        return;
    }
    const Score *reference = &chunk->scores[score->reference];
    score->kl = chunk->engine->kernels->softmax_kl(
        chunk->logits + (size_t)score->slot * chunk->stride, score->largest, score->sum,
        chunk->logits + (size_t)reference->slot * chunk->stride, reference->largest, reference->sum,
        chunk->engine->model->config.vocab_size, score->inverse_temperature);
}

/* The next row of the block: the hidden state that a score is read from. */
static void take_slot(Chunk *chunk, Score *score, int first, int *n_slots)
{
    const Model *model = chunk->pass.model;
    int D = model->config.width;
    score->block = first;
    score->slot = (*n_slots)++;
    chunk->pass.kernels->rmsnorm(chunk->hidden + (size_t)score->slot * (size_t)D,
                                 chunk->pass.x_out + (size_t)score->row * (size_t)D,
                                 model->norm_final, D, (float)model->config.rms_eps);
}

/* Choose the scores of a block, as many as have room for their logits: a row each, but one for all
 * that are read from one hidden state, and one more where the first of them refer to a score of an
 * earlier block. A block is known by its first score; returns its rows. */
static int choose_block(Chunk *chunk, int first)
{
    int n_slots = 0, i = first;
    for (; i < chunk->n_scores; i++) {
        Score *score = &chunk->scores[i], *before = i > first ? score - 1 : NULL;
        Score *reference = score->reference >= 0 ? &chunk->scores[score->reference] : NULL;
        if (n_slots + 1 + (reference && reference->block != first) > chunk->rows_at_once) {
            break;
        }
        if (reference && reference->block != first) {
            take_slot(chunk, reference, first, &n_slots);
        }
        score->block = first;
        if (reference && reference->row == score->row) {
            score->slot = reference->slot;
        } else if (!chunk->pass.keep && before && before->row == score->row) {
            score->slot = before->slot;
        } else {
            take_slot(chunk, score, first, &n_slots);
        }
    }
    chunk->now = chunk->scores + first;
    chunk->n_now = i - first;
    return n_slots;
}

static void hand_out(const Chunk *chunk, const Score *score)
{
    const Sequence *s = &chunk->batch->sequences[score->sequence];
    if (s->logprobs) {
        s->logprobs[score->position] = score->logprob;
    }
    if (s->entropies) {
        s->entropies[score->position] = score->entropy;
    }
    if (s->means) {
        s->means[score->position] = score->mean;
    }
    if (s->kl) {
        s->kl[score->position] = score->kl;
    }
}

/* Logits of a block of scores: their log-probabilities, weights, and gradients into dx. */
static int score_block(Chunk *chunk, int first)
{
    Pass *pass = &chunk->pass;
    const Model *model = pass->model;
    int any = 0, n_slots = choose_block(chunk, first), n = chunk->n_now;
    matrix_forward(chunk->logits, (int)chunk->stride, chunk->hidden, model->config.width,
                   &model->head, NULL, n_slots, pass->n_threads);
    parallel_for(n, pass->n_threads, score_row, chunk);
    parallel_for(n, pass->n_threads, compare_row, chunk);
    for (int i = 0; i < n; i++) {
        Score *score = &chunk->now[i];
        if (!score->silent) {
            hand_out(chunk, score);
        }
        if (chunk->batch->weigh) {
            score->weight = chunk->batch->weigh(chunk->batch->weigh_context, score->sequence,
                                                score->position, score->logprob, score->entropy);
            any |= score->weight.dlogprob != 0 || score->weight.dentropy != 0 ||
                   score->weight.dmean != 0;
        }
    }
    if (pass->keep && any) {
        parallel_for(n, pass->n_threads, differentiate_row, chunk);
        backward_head(chunk);
    }
    return any;
}

int chunk_score(Chunk *chunk)
{
    int any = 0;
    for (int i = 0; i < chunk->n_scores; i += chunk->n_now) {
        any |= score_block(chunk, i);
    }
    return any;
}
