/* The engine: log-probabilities of tokens and their gradient over a ragged batch (forward.c, backward.c).
 * One objective for all (DESIGN, the second idea): callers weigh tokens, the engine differentiates.
 *
 * The law: every logprob, entropy and gradient has the same bits whatever else is in the batch and for any number of
 * threads. Sequences that share a parent are computed with it, so a root and its children are one unit ("tree"). */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "core/hook.h"
#include "core/model.h"
#include "core/status.h"

typedef struct {
    const int32_t *tokens;
    int n_tokens;
    int parent;  /* index of an EARLIER sequence whose tokens precede this one's, or -1. A parent has no parent and the
                  * same adapter; the children of a parent follow it directly. */
    int adapter; /* 0: the base model */
    float temperature; /* logits are divided by it before the softmax; 0 means 1 */
    const uint8_t *scored; /* (n_tokens) nonzero where log p of that token is wanted; NULL: none. The first token of a
                            * sequence without parent has no log p. */
    double *logprobs;  /* (n_tokens) out: log p at scored tokens, others untouched; NULL when only weigh wants it */
    double *entropies; /* (n_tokens) out, nats; may be NULL (then not computed) */
    double *means;     /* (n_tokens) out: mean of log p over the whole vocabulary, of the distribution each scored token
                        * was drawn from; may be NULL (then not computed) */
    uint64_t key;      /* what the adapter's dropout is a function of, with module and token; 0: no dropout. Each
                        * sequence has its own, also a parent's child; keys are for passes with backward. */

    /* Sharing, for the same text under many adapters (a surface). Zeroed fields mean none. Batches may be in any
     * order: relatives are computed side by side. A tree starts as late as all its sequences allow. */
    int twin;        /* index of an earlier sequence of the same tokens and the same parent's tokens, ... */
    int twin_layers; /* ... whose adapter adds the same as this one's at layers below twin_layers: a pass without
                      * backward computes those layers once. A permission: the numbers are the same without it.
                      * Twins of twins may be any number, and many sequences may have one twin. */
    int reference;   /* index of an earlier sequence of the same tokens, scored, and temperature, for kl; itself
                      * without kl. It costs its logits once for all that refer to it. */
    double *kl;      /* (n_tokens) out: KL(p || p of reference) of the distribution each scored token was drawn from,
                      * nats, over the whole vocabulary, exact and never negative; 0 where both have the same
                      * logits. NULL: none. Not in a pass with backward. */
} Sequence;

typedef struct {
    double dlogprob; /* derivative of the objective (to be MINIMISED) by log p of this token */
    double dentropy; /* and by the entropy of the distribution it was drawn from; usually 0 */
    double dmean;    /* and by that distribution's mean of log p over the vocabulary; usually 0 */
} TokenWeight;

/* Called once for each scored token, in order of (sequence, position), from one thread. */
typedef TokenWeight (*WeighToken)(void *context, int sequence, int position, double logprob, double entropy);

/* What of each layer waits in memory for the backward. The rest is computed again there, to the same bits: no number
 * depends on it. Norms, the product of SwiGLU and attention's probabilities are computed again in any case. */
typedef enum {
    CHECKPOINTING_NONE,      /* the outputs of all products */
    CHECKPOINTING_SELECTIVE, /* all but the two widest, of gate_proj and up_proj */
    CHECKPOINTING_FULL       /* the layer's input alone (and an adapter's few numbers) */
} Checkpointing;

/* Gradients by the weights themselves (full training, pretrain); needs model->trainable. */
typedef struct {
    float *gradient; /* (n_parameters) in TensorSpec order; added to */
} WeightGradients;

typedef struct {
    const Sequence *sequences;
    int n_sequences;
    const LinearHook *hook; /* NULL: base model only (all adapters 0) */
    WeighToken weigh;       /* NULL: no backward */
    void *weigh_context;
    WeightGradients *weight_gradients; /* NULL unless full training */
    int need_entropy;       /* pass entropies to weigh */
    Checkpointing checkpointing;
    TensorType precision; /* in which activations wait for the backward, and their gradient from layer to layer:
                           * F32, BF16, F16 (beyond 65504: infinite). All arithmetic, so every logprob and entropy, is
                           * that of F32; gradients are those of rounded activations, the same ones under every
                           * checkpointing (which what is computed again starts from is kept in F32). */
} Batch;

typedef struct Engine Engine;

/* max_tokens: rows computed at a time, at least one tree (of a pass without backward: a mean over the layers, as twins
 * join later); 0 picks a default by the model's size. */
Status engine_new(Engine **engine, const Model *model, int n_threads, int max_tokens, Error *error);
void engine_free(Engine *engine);
const Model *engine_model(const Engine *engine);
int engine_threads(const Engine *engine);

/* Errors: STATUS_USAGE for a batch that breaks the rules above (longer than max_positions, token id out of range);
 * STATUS_FAILED for memory. A non-finite logprob is not an error here: it is returned. */
Status engine_evaluate(Engine *engine, const Batch *batch, Error *error);
