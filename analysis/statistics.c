/* The statistics of an evaluation; tails of distributions come from numerics.h. */
#include "analysis/statistics.h"

#include <math.h>
#include <stdlib.h>

#include "analysis/numerics.h"

void statistics_mean(double *mean, double *standard_error, const double *x, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
    }
    double m = sum / (double)n; /* n = 0: NaN */
    for (size_t i = 0; i < n; i++) {
        squares += (x[i] - m) * (x[i] - m);
    }
    *mean = m;
    *standard_error = n < 2 ? NAN : sqrt(squares / ((double)(n - 1) * (double)n));
}

void statistics_wilson(double *low, double *high, size_t k, size_t n, double confidence)
{
    if (n == 0) {
        *low = 0;
        *high = 1;
        return;
    }
    double z = numerics_normal_quantile_above((1 - confidence) / 2), count = (double)n,
           hits = (double)k;
    double centre = (hits + z * z / 2) / (count + z * z);
    double half = z / (count + z * z) * sqrt(hits * (count - hits) / count + z * z / 4);
    *low = k == 0 ? 0 : centre - half;
    *high = k == n ? 1 : centre + half;
}

double statistics_mcnemar(size_t only_first, size_t only_second)
{
    size_t fewer = only_first < only_second ? only_first : only_second;
    double p =
        2 * numerics_binomial_below((unsigned)fewer, 0.5, (unsigned)(only_first + only_second));
    return p < 1 ? p : 1;
}

double statistics_paired_t(const double *differences, size_t n)
{
    double mean, standard_error;
    statistics_mean(&mean, &standard_error, differences, n);
    if (!(standard_error > 0)) {
        return NAN;
    }
    return 2 * numerics_student_above(fabs(mean / standard_error), (double)(n - 1));
}

double statistics_sign_flip(const int *differences, size_t n)
{
    long reach = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        reach += labs(differences[i]);
        sum += differences[i];
    }
    /* probability[reach + s]: of the sum s after the differences so far */
    size_t size = 2 * (size_t)reach + 1;
    double *probability = calloc(size, sizeof *probability), *next = calloc(size, sizeof *next);
    if (!probability || !next) {
        free(probability);
        free(next);
        return NAN;
    }
    probability[reach] = 1;
    long used = 0;
    for (size_t i = 0; i < n; i++) {
        long d = labs(differences[i]);
        if (d == 0) {
            continue;
        }
        for (long s = -used - d; s <= used + d; s++) {
            double from_below = labs(s - d) <= used ? probability[reach + s - d] : 0;
            double from_above = labs(s + d) <= used ? probability[reach + s + d] : 0;
            next[reach + s] = 0.5 * from_below + 0.5 * from_above;
        }
        double *swap = probability;
        probability = next;
        next = swap;
        used += d;
    }
    double tail = 0;
    for (long s = used; s >= labs(sum); s--) { /* smallest first */
        tail += probability[reach + s];
    }
    free(probability);
    free(next);
    return sum == 0 || 2 * tail > 1 ? 1 : 2 * tail;
}

void statistics_bootstrap(Bootstrap *bootstrap, const double *differences, size_t n, int resamples,
                          double confidence, RandomKey key)
{
    enum { BLOCKS = 64, WORDS = 4 * BLOCKS };
    *bootstrap = (Bootstrap){NAN, NAN, NAN};
    double *means = malloc(((size_t)resamples + 1) * sizeof *means), sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += differences[i];
    }
    if (!means || n == 0 || !isfinite(sum)) {
        free(means);
        return;
    }
    size_t below = 0, above = 0;
    for (int b = 0; b < resamples; b++) {
        uint32_t words[WORDS];
        double total = 0;
        for (size_t i = 0; i < n; i++) {
            if (i % WORDS == 0) {
                random_blocks(words, key, (uint32_t)b, 0, (uint32_t)(i / 4), 0, BLOCKS);
            }
            /* cppcheck-suppress uninitvar ; filled at i = 0 */
            total += differences[(uint64_t)words[i % WORDS] * n >> 32];
        }
        means[b] = total / (double)n;
        below += means[b] <= 0;
        above += means[b] >= 0;
    }
    double fewer = (double)(1 + (below < above ? below : above));
    bootstrap->p_value = fmin(1, 2 * fewer / ((double)resamples + 1));
    numerics_sort(means, (size_t)resamples);
    bootstrap->low = numerics_quantile(means, (size_t)resamples, (1 - confidence) / 2);
    bootstrap->high = numerics_quantile(means, (size_t)resamples, (1 + confidence) / 2);
    free(means);
}

double statistics_pass_at(int k, int n, int c)
{
    double none = n - c < k ? 0 : 1;
    for (int i = n - c + 1; i <= n && none > 0; i++) {
        none *= 1 - (double)k / i;
    }
    return 1 - none;
}

void statistics_holm(double *adjusted, const double *p, size_t n)
{
    size_t n_left = 0;
    for (size_t i = 0; i < n; i++) {
        n_left += !isnan(p[i]);
        adjusted[i] = NAN; /* also: not yet done */
    }
    double largest = 0;
    for (; n_left > 0; n_left--) { /* the smallest that is not yet done, times the tests left */
        size_t smallest = n;
        for (size_t i = 0; i < n; i++) {
            if (!isnan(p[i]) && isnan(adjusted[i]) && (smallest == n || p[i] < p[smallest])) {
                smallest = i;
            }
        }
        largest = fmin(1, fmax(largest, (double)n_left * p[smallest]));
        adjusted[smallest] = largest;
    }
}

void statistics_paired_values(Paired *paired, const double *first, const double *second,
                              size_t n_rows)
{
    *paired =
        (Paired){.difference = NAN, .standard_error = NAN, .p_value = NAN, .test = "paired_t"};
    double *differences = malloc((n_rows + 1) * sizeof *differences);
    if (!differences) {
        return;
    }
    for (size_t i = 0; i < n_rows; i++) {
        differences[i] = first[i] - second[i];
    }
    statistics_mean(&paired->difference, &paired->standard_error, differences, n_rows);
    paired->p_value = statistics_paired_t(differences, n_rows);
    free(differences);
}

void statistics_paired_verdicts(Paired *paired, const uint8_t *first, const uint8_t *second,
                                size_t n_rows, size_t samples)
{
    *paired = (Paired){.difference = NAN, .standard_error = NAN, .p_value = NAN};
    paired->test = samples == 1 ? "mcnemar" : "sign_flip";
    int *counts = calloc(n_rows + 1, sizeof *counts);
    double *means = calloc(n_rows + 1, sizeof *means);
    if (counts && means) {
        for (size_t i = 0; i < n_rows * samples; i++) {
            counts[i / samples] += first[i] - second[i];
            paired->only_first += first[i] > second[i];
            paired->only_second += first[i] < second[i];
        }
        for (size_t i = 0; i < n_rows; i++) {
            means[i] = counts[i] / (double)samples;
        }
        statistics_mean(&paired->difference, &paired->standard_error, means, n_rows);
        paired->p_value = samples == 1 ? statistics_mcnemar(paired->only_first, paired->only_second)
                                       : statistics_sign_flip(counts, n_rows);
    }
    free(counts);
    free(means);
}
