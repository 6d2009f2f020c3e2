/* What a technique costs and saves: work of a known size on pseudo-random tokens, timed by the
 * caller's clock. Peaks of memory are the caller's to measure, a process for each piece of work. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"
#include "core/sha256.h"
#include "rl/learner.h"

/* Greedy decoding of `batch` different prompts, each `n_new` tokens, no stop token. cache: keys and
 * values of the text so far are kept; else each token is drawn after a forward over the whole text
 * so far. */
typedef struct {
    int batch, n_prompt, n_new;
    bool cache;
} DecodeProfile;

/* seconds: the best of as many runs as fit a second (at least one, prompts included), after one
 * that touches all memory.  ids, logprobs: (batch, n_new), the same with and without cache.
 * Errors: STATUS_USAGE (the context is too short), STATUS_FAILED. */
Status profile_decode(double *seconds, int32_t *ids, double *logprobs, Engine *engine,
                      const DecodeProfile *profile, double (*now_s)(void), Error *error);

/* tokens: (n), row `row` of the fixed pseudo-random text: uniform over the vocabulary. */
void profile_tokens(int32_t *tokens, int n, int vocab_size, int row);

/* Steps of SFT over `sequences` rows of `n_tokens`, all but the first of them learned, from the
 * bank's start values: with AdamW, with the checkpoint that each step hands on. micro_batch: rows
 * in memory at a time; 0: as many as fit. */
typedef struct {
    int sequences, n_tokens, micro_batch, steps;
    Checkpointing checkpointing;
    TensorType precision;
} TrainProfile;
enum { PROFILE_SKETCH = 1 << 16 };
typedef struct {
    double seconds;   /* of the best of `steps` steps, after a first one */
    double loss;      /* of the first one */
    double grad_norm; /* of the first update (in f16 some may be skipped before it), ... */
    char gradient_sha256[SHA256_HEX_SIZE]; /* ... of its gradient, rounded to f32, ... */
    float sketch[PROFILE_SKETCH]; /* ... and so many of its numbers, evenly spaced; all there are
                                   * where they are fewer */
    size_t n_sketch;
    size_t parameters; /* trained */
} TrainMeasures;
/* |a - b| / |b| of the gradients, by their sketches. */
double profile_gradient_distance(const TrainMeasures *a, const TrainMeasures *b);

/* bank: one adapter, over the engine's model. Errors: STATUS_USAGE (the context is too short),
 * STATUS_FAILED. */
Status profile_train(TrainMeasures *measures, Engine *engine, AdapterBank *bank,
                     const TrainProfile *profile, double (*now_s)(void), Error *error);

/* Bytes that the shapes ask for. A token's: for each row of the batch. */
typedef struct {
    size_t mapped;         /* the largest tensor of the file: one is mapped in while it is packed */
    size_t packed;         /* matrices as they are multiplied with, the head's too */
    size_t plain;          /* norms and biases in f32 */
    size_t cache_token;    /* keys and values of all layers */
    size_t forward_token;  /* activations of a pass without backward: one layer's */
    size_t training_token; /* activations, keys and values as they wait for the backward, those of
                            * the layer that is computed, and their gradients */
    size_t logits_token;   /* of a token that is learned */
    size_t adapter;        /* tinylora: U, V of every linear layer */
    size_t scalar; /* of each trained scalar: itself, its gradient, AdamW's moments, twice */
} MemoryNeeds;
/* rank: of the adapter's SVD. */
void profile_memory(MemoryNeeds *needs, const Model *model, int rank, Checkpointing checkpointing,
                    TensorType precision);
