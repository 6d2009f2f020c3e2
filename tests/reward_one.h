/* The reward of one completion, where no command is asked. */
#pragma once
#include <stdlib.h>

#include "rl/reward.h"

static inline double reward_one(const Reward *reward, double *values, const char *completion,
                                size_t n, const char *answer, size_t n_answer)
{
    RewardRow row = {.prompt = "",
                     .completion = completion,
                     .answer = answer,
                     .n_completion = n,
                     .n_answer = n_answer};
    Text reason = {0};
    double score;
    if (reward_score(reward, &score, values, &reason, &row, 1, NULL)) {
        abort();
    }
    text_release(&reason);
    return score;
}
