/* A model: config, tokenizer, weights, which are packed when computing begins. Opened from a directory in the Hugging Face layout or
 * from a GGUF file. */
#pragma once
#include <stdbool.h>

#include "core/matrix.h"
#include "core/model_config.h"
#include "core/sha256.h"
#include "core/status.h"
#include "core/tokenizer.h"

/* The parts of a model. */
typedef enum {
    PART_EMBEDDING,
    PART_HEAD,
    PART_NORM_FINAL,
    PART_NORM_ATTENTION,
    PART_NORM_MLP,
    PART_NORM_Q,
    PART_NORM_K,
    PART_WEIGHT,
    PART_BIAS,
    N_PARTS
} ModelPart;

typedef struct {
    float *norm_attention; /* (D) */
    float *norm_mlp;       /* (D) */
    float *norm_q, *norm_k; /* (head_dim) or NULL */
    Matrix weight[N_ROLES];
    float *bias[N_ROLES]; /* (out) or NULL */
} Layer;

typedef struct Model {
    char path[4096];
    ModelConfig config;
    Tokenizer *tokenizer; /* NULL when the directory has none */
    SafeTensors *file;    /* mapped; the embedding rows are read from here */
    Layer *layers;
    float *norm_final; /* (D) */
    const void *embedding; /* (V, D) row-major of embedding_type, mapped or owned */
    TensorType embedding_type;
    Matrix head; /* (V, D), from the embedding when tied */
    float *trainable; /* full training: all weights f32 in TensorSpec order, owned; NULL for a frozen model */
    size_t n_parameters;
    size_t *offsets; /* see model_offset */
    struct ModelLater *later; /* what is made when it is asked for */
} Model;

/* directory: a model directory or a GGUF file, already resolved from a name. n_threads: for packing. All is checked but
 * the values of the matrices, whose pages are not touched. Errors: STATUS_REFUSED (files), STATUS_FAILED (memory: says
 * how many GiB). */
Status model_open(Model **model, const char *directory, int n_threads, Error *error);
/* Check the values of the matrices and pack them, the first time. Whoever computes calls it, as engine_evaluate,
 * generate and beam_search do; not from two threads at once. Errors: STATUS_REFUSED (one is not finite). */
Status model_pack(const Model *model, Error *error);
void model_free(Model *model);

/* Of the weights (safetensors_sha256), which are all read the first time; of tokenizer.json, "" without one. Both are
 * of the whole file where that is a GGUF file. They live as long as the model. */
const char *model_weights_sha256(const Model *model);
const char *model_tokenizer_sha256(const Model *model);

/* A private f32 copy of all weights, trainable, packed anew by model_update after each change of model->trainable. */
Status model_make_trainable(Model *model, Error *error);
void model_update(Model *model, int n_threads);

/* Where a weight starts in `trainable` and in a gradient (floats); SIZE_MAX when the model has it not (a tied head, a
 * bias). layer and role are 0 where they mean nothing. */
size_t model_offset(const Model *model, ModelPart part, int layer, Role role);

/* W of a module as f32, row-major (out, in): for the SVD. out: (out * in). */
void model_module_weight(const Model *model, int layer, Role role, float *out);
