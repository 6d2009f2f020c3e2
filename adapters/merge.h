/* A whole model with the adapter in its weights, made from the pristine weights of the file: to
 * unmerge is to open the base again. */
#pragma once
#include "adapters/adapter.h"

typedef struct {
    double largest_change;   /* of |W' - W|, before rounding */
    double largest_rounding; /* of |what is stored - W'| */
    char largest_at[128];    /* the tensor of that */
    double kept;      /* how much of W' - W the stored weights have, along it: 1 all, 0 none */
    size_t n_adapted; /* weights of the adapted tensors */
    size_t n_changed; /* of them, stored with other bits than the base's */
} MergeReport;

/* Write directory (which must not exist, or be empty): config.json, generation_config.json and the
 * tokenizer's files as they are, and model.safetensors with every tensor of the base in its own
 * type, W' in place of W: W + (W' - W) in double, rounded once to nearest even. A head that is the
 * embedding is left out. Of a GGUF file: model.gguf alone, its metadata and all tensors that stay as
 * they are, W' as F32 where W was quantised. v: what adapter 1 was set to. Streamed: one row is in memory at a time.
 * Errors: STATUS_USAGE (directory), STATUS_FAILED, STATUS_REFUSED where W' is not finite or too
 * large for its type. */
Status adapter_merge(MergeReport *report, const AdapterBank *bank, const float *v,
                     const char *directory, Error *error);

/* The weights of a model, a directory or a GGUF file, as method full has them: what a merged model is to its base.
 * v: (n) malloc'ed, f32, tensors in TensorSpec order. base: what its config must agree with in all
 * that is computed. Errors: STATUS_REFUSED with the file and the rule. */
Status merged_read(float **v, size_t *n, const char *model, const ModelConfig *base,
                   Error *error);
