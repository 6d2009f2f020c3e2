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

static double mean_of(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
    }
    return sum / (double)n;
}

/* Unbiased; exactly 0 when all are equal, whatever the rounding of their mean. */
static double std_of(const double *x, double mean, size_t n)
{
    double sum = 0;
    bool equal = true;
    for (size_t i = 0; i < n; i++) {
        sum += (x[i] - mean) * (x[i] - mean);
        equal = equal && x[i] == x[0];
    }
    return equal ? 0 : sqrt(sum / (double)(n - 1));
}

void advantage_compute(double *advantages, double *stds, const double *rewards,
                       AdvantageScale scale, int n_groups, int group_size)
{
    size_t n = (size_t)n_groups * group_size, size = (size_t)group_size;
    double batch_std = std_of(rewards, mean_of(rewards, n), n);
    for (size_t group = 0; group < (size_t)n_groups; group++) {
        const double *r = rewards + group * size;
        double mean = mean_of(r, size), std = std_of(r, mean, size);
        double divisor = scale == SCALE_NONE ? 1 : (scale == SCALE_GROUP ? std : batch_std) + 1e-4;
        for (size_t i = 0; i < size; i++) {
            advantages[group * size + i] = std == 0 ? 0 : (r[i] - mean) / divisor;
        }
        if (stds) {
            stds[group] = std;
        }
    }
}
