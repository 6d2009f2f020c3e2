/* A learner's state as bytes: "TLCK", version, sizes, counters, v, moments, SHA-256; little-endian.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"
#include "rl/learner.h"

/* bytes: malloc'ed. */
void checkpoint_write(void **bytes, size_t *n_bytes, const Learner *learner);
/* The same of v alone, without moments, at a step. */
void checkpoint_of_parameters(void **bytes, size_t *n_bytes, const float *v, size_t n,
                              int64_t step);
/* Into a learner made with the same settings. Errors: STATUS_REFUSED naming the rule; the learner
 * is then unchanged. */
Status checkpoint_read(Learner *learner, const void *bytes, size_t n_bytes, Error *error);
/* v alone, for those who have no learner (eval, export): (n) malloc'ed. */
Status checkpoint_parameters(float **v, size_t *n, int64_t *step, const void *bytes, size_t n_bytes,
                             Error *error);
