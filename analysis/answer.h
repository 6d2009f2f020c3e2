/* A data row's prompt and answer as sequences under several adapters: how evaluations and surfaces
 * score answers. Scored are the answer's tokens and the end of sequence, as in SFT. */
#pragma once
#include <stdbool.h>

#include "core/engine.h"
#include "rl/task.h"

typedef struct {
    int n_tokens, first_scored;        /* scored: first_scored .. n_tokens - 1 */
    int32_t *tokens;                   /* (n_tokens) prompt and answer */
    uint8_t *scored;                   /* (n_tokens) */
    double *logprobs, *entropies, *kl; /* (n, n_tokens), what was not asked for: NULL */
} AnswerRow;

enum { ANSWER_ENTROPIES = 1, ANSWER_KL = 2 };

/* Tokens of the answer that are scored where prompt and answer are cut at max_tokens. */
int answer_scored(const Task *task, int row, int max_tokens);
/* sequences: (n) out, of the same tokens, temperature 1, without parent; sequence k runs under
 * adapter names[k]. wanted: bits of ANSWER_ for outputs beside logprobs. */
void answer_row_init(AnswerRow *answer, Sequence *sequences, const Task *task, int row,
                     int max_tokens, const int *names, int n, unsigned wanted);
void answer_row_release(AnswerRow *answer);
/* Sum over the scored tokens of sequence k, in their order. values: a (n, n_tokens) of the row. */
double answer_row_sum(const AnswerRow *answer, const double *values, int k);
