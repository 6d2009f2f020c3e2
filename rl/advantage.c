/* Group-relative advantages, in double, in index order. */
#include "rl/advantage.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const char *const names[] = {"group", "batch", "none"};

const char *advantage_scale_name(AdvantageScale scale)
{
    return names[scale];
}

bool advantage_scale_find(AdvantageScale *scale, const char *name)
{
    for (int i = 0; i < 3; i++) {
        if (!strcmp(names[i], name)) {
            *scale = (AdvantageScale)i;
            return true;
        }
    }
    return false;
}

static const char *const baseline_names[] = {"group", "leave_one_out"};

bool advantage_baseline_find(AdvantageBaseline *baseline, const char *name)
{
    for (int i = 0; i < 2; i++) {
        if (!strcmp(baseline_names[i], name)) {
            *baseline = (AdvantageBaseline)i;
            return true;
        }
    }
    return false;
}

bool advantage_no_spread(const double *rewards, int group_size)
{
    double first = NAN;
    for (int i = 0; i < group_size; i++) {
        if (isnan(rewards[i])) {
            continue;
        }
        if (!isnan(first) && rewards[i] != first) {
            return false;
        }
        first = rewards[i];
    }
    return true;
}

double overlong_penalty(int length, int limit, int buffer, double factor)
{
    double over = (double)length - ((double)limit - buffer);
    return buffer > 0 && over > 0 ? -over / buffer * factor : 0;
}

/* Mean of those that are there, and their number. */
static double mean_of(const double *x, size_t n, size_t *n_there)
{
    double sum = 0;
    *n_there = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isnan(x[i])) {
            sum += x[i];
            ++*n_there;
        }
    }
    return sum / (double)*n_there;
}

/* Unbiased; exactly 0 when all are equal, whatever the rounding of their mean. */
static double std_of(const double *x, double mean, size_t n, size_t n_there)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += isnan(x[i]) ? 0 : (x[i] - mean) * (x[i] - mean);
    }
    return advantage_no_spread(x, (int)n) ? 0 : sqrt(sum / (double)(n_there - 1));
}

void advantage_compute(double *advantages, double *stds, const double *rewards,
                       AdvantageScale scale, AdvantageBaseline baseline, int n_groups,
                       int group_size)
{
    size_t n = (size_t)n_groups * group_size, size = (size_t)group_size;
    size_t n_there;
    double batch_mean = mean_of(rewards, n, &n_there);
    double batch_std = std_of(rewards, batch_mean, n, n_there);
    for (size_t group = 0; group < (size_t)n_groups; group++) {
        const double *r = rewards + group * size;
        double mean = mean_of(r, size, &n_there), std = std_of(r, mean, size, n_there);
        double there = (double)n_there;
        /* r - (sum - r) / (G - 1) */
        double others = baseline == BASELINE_LEAVE_ONE_OUT ? there / (there - 1) : 1;
        double divisor = scale == SCALE_NONE ? 1 : (scale == SCALE_GROUP ? std : batch_std) + 1e-4;
        for (size_t i = 0; i < size; i++) {
            bool none = std == 0 || isnan(r[i]);
            advantages[group * size + i] = none ? 0 : (r[i] - mean) * others / divisor;
        }
        if (stds) {
            stds[group] = std;
        }
    }
}
