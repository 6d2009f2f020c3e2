/* What a technique costs and saves: work of a known size on pseudo-random tokens, timed by the
 * caller's clock. Peaks of memory are the caller's to measure, a process for each piece of work. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"

/* What a profile needs of the world. */
typedef struct {
    double (*now_s)(void);
    bool (*stopping)(void);
} ProfileWorld;

/* Greedy decoding of `batch` different prompts, each `n_new` tokens, no stop token. cache: keys and
 * values of the text so far are kept; else each token is drawn after a forward over the whole text
 * so far. */
typedef struct {
    int batch, n_prompt, n_new;
    bool cache;
} DecodeProfile;

/* seconds: the best of as many runs as fit a second (at least one, prompts included), after one
 * that touches all memory.  ids, logprobs: (batch, n_new), the same with and without cache.
 * Errors: STATUS_USAGE (the context is too short), STATUS_STOPPED, STATUS_FAILED. */
Status profile_decode(double *seconds, int32_t *ids, double *logprobs, Engine *engine,
                      const DecodeProfile *profile, const ProfileWorld *world, Error *error);

/* tokens: (n), row `row` of the fixed pseudo-random text: uniform over the vocabulary. */
void profile_tokens(int32_t *tokens, int n, int vocab_size, int row);
