/* One chunk of a batch while it is computed (private to the engine): its pass, and the positions of
 * it that are scored (score.c). */
#pragma once
#include "core/arrange.h"
#include "core/engine_state.h"

typedef struct {
    int sequence, position; /* of the token that is predicted */
    int silent;             /* wanted by others only */
    int row;                /* of the hidden state that predicts it */
    int group;              /* scores that may share rows of logits have one */
    int refers;             /* to another score of its group and position, for kl: ... */
    int reference;          /* ... this one, or -1 */
    int block, slot;        /* where its logits are: see score_block */
    int32_t token;
    float inverse_temperature;
    float largest;
    double sum, logprob, entropy, mean, kl;
    TokenWeight weight;
} Score;

typedef struct {
    Engine *engine;
    const Batch *batch;
    Pass pass;
    const Arrangement *arrangement;
    int *span_of; /* (n_items) */
    Score *scores;
    int n_scores, rows_at_once;
    float *hidden; /* (rows_at_once, D) normalised */
    float *dhidden;
    float *logits; /* (rows_at_once, stride) */
    size_t stride;
    Score *now; /* the scores in logits */
    int n_now;
} Chunk;

/* Positions of a sequence that have a log-probability to compute. */
int chunk_count_scores(const Sequence *s);
/* Fill scores from the spans. */
void chunk_list_scores(Chunk *chunk);
/* All scores: their numbers out, their gradients into the pass's dx. Returns whether there is any
 * gradient. */
int chunk_score(Chunk *chunk);
