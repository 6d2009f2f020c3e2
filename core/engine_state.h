/* What an engine holds between calls (private to engine.c, score.c and generate.c). */
#pragma once
#include "core/arrange.h"
#include "core/engine.h"
#include "core/kernels.h"
#include "core/workspace.h"

struct Engine {
    const Model *model;
    const Kernels *kernels;
    Rope rope;
    int n_threads;
    int max_tokens; /* rows of a pass with backward, and of a prefill */
    int max_active; /* rows of one without: those computed, a mean over the layers, ... */
    int max_rows;   /* ... and all that there is memory for, with twins' */
    Workspace workspace;
    Arrangement arrangement;
};

/* log p of `token` from the statistics of its row of logits: the trainer's and the sampler's one
 * formula. */
static inline double engine_logprob(const float *logits, int token, float inverse_temperature,
                                    float largest, double sum)
{
    return (double)(logits[token] * inverse_temperature) - ((double)largest + __builtin_log(sum));
}

static inline float engine_inverse_temperature(float temperature)
{
    return temperature > 0 ? 1.0f / temperature : 1.0f;
}

/* Floats between rows of logits. */
static inline size_t engine_logits_stride(const Model *model)
{
    return ((size_t)model->config.vocab_size + 15) / 16 * 16;
}
