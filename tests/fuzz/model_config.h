/* What every reader of a model's config promises of it. */
#pragma once
#include <stdlib.h>

#include "core/model_config.h"

static inline void check_config(const ModelConfig *config)
{
    TensorSpec *specs;
    if (model_config_tensors(&specs, config) < 11 || config->head_dim % 2 ||
        config->n_heads % config->n_kv_heads || config->n_eos < 0 || config->n_eos > 8) {
        abort();
    }
    free(specs);
    double *frequency = malloc((size_t)config->head_dim / 2 * sizeof *frequency + 1);
    if (!frequency) {
        abort();
    }
    rope_frequencies(frequency, config);
    free(frequency);
}
