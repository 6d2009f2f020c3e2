/* The recipe of `pretrain`, read strictly: every key once, none unknown. */
#pragma once
#include <stdint.h>

#include "core/file.h"
#include "core/status.h"

typedef struct {
    char config[FILE_PATH_MAX], tokenizer[FILE_PATH_MAX], corpus[FILE_PATH_MAX];
    char output[FILE_PATH_MAX];
    uint64_t seed;
    int64_t steps, batch_tokens, warmup_steps;
    double lr, weight_decay, beta2, grad_clip, init_std, question_weight;
} Recipe;

/* Paths come back joined to the recipe's folder. Errors: STATUS_USAGE naming path and key. */
Status recipe_read(Recipe *recipe, const char *path, Error *error);
