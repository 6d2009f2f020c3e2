/* Relative advantages of groups of rewards (Shao et al. 2024; TRL's scale_rewards), and the soft
 * penalty of overlong completions that rewards may carry. */
#pragma once
#include <stdbool.h>

typedef enum { SCALE_GROUP, SCALE_BATCH, SCALE_NONE } AdvantageScale;
const char *advantage_scale_name(AdvantageScale scale);
bool advantage_scale_find(AdvantageScale *scale, const char *name); /* "group", "batch", "none" */

/* What a reward is compared with: the mean of its group, or of the others of its group (RLOO;
 * Kool et al. 2019, Ahmadian et al. 2024). */
typedef enum { BASELINE_GROUP, BASELINE_LEAVE_ONE_OUT } AdvantageBaseline;
bool advantage_baseline_find(AdvantageBaseline *baseline,
                             const char *name); /* "group", "leave_one_out" */

/* A_i = (r_i - baseline) / (std + 1e-4); std unbiased, of the group ("group"), of all
 * rewards ("batch"), or no division ("none", Dr. GRPO). A group of equal rewards has advantages
 * exactly 0. A reward that is NaN is not there: it counts in no mean, std or number, and its
 * advantage is 0. advantages, rewards: (n_groups, group_size)   stds: (n_groups) unbiased std of
 * each group, out, may be NULL */
void advantage_compute(double *advantages, double *stds, const double *rewards,
                       AdvantageScale scale, AdvantageBaseline baseline, int n_groups,
                       int group_size);

/* Are all rewards of a group that are there equal? rewards: (group_size) */
bool advantage_no_spread(const double *rewards, int group_size);

/* min(-(length - (limit - buffer)) / buffer * factor, 0): from 0 to -factor over the last `buffer`
 * tokens before the limit (DAPO, Yu et al. 2025). buffer 0: none. */
double overlong_penalty(int length, int limit, int buffer, double factor);
