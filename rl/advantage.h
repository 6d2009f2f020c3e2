/* Relative advantages of groups of rewards (Shao et al. 2024; TRL's scale_rewards). */
#pragma once
#include <stdbool.h>

typedef enum { SCALE_GROUP, SCALE_BATCH, SCALE_NONE } AdvantageScale;
const char *advantage_scale_name(AdvantageScale scale);
bool advantage_scale_find(AdvantageScale *scale, const char *name); /* "group", "batch", "none" */

/* A_i = (r_i - mean of its group) / (std + 1e-4); std unbiased, of the group ("group"), of all
 * rewards ("batch"), or no division ("none", Dr. GRPO). A group of equal rewards has advantages
 * exactly 0. advantages, rewards: (n_groups, group_size)   stds: (n_groups) unbiased std of each
 * group, out, may be NULL */
void advantage_compute(double *advantages, double *stds, const double *rewards,
                       AdvantageScale scale, int n_groups, int group_size);
