/* Means with their errors and paired tests. Rows of the data are the units: several samples of one
 * row are not independent, so they are averaged (or counted) within the row first. Sums run in the
 * order of the index. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "core/random.h"

/* mean of x: (n), and its standard error s / sqrt(n) with s^2 = sum (x - mean)^2 / (n - 1).
 * NaN: the mean for n = 0, the error for n < 2. */
void statistics_mean(double *mean, double *standard_error, const double *x, size_t n);

/* Interval for a share of k among n (Wilson 1927); confidence in (0, 1), e.g. 0.95. n = 0: [0, 1].
 */
void statistics_wilson(double *low, double *high, size_t k, size_t n, double confidence);

/* Two-sided p-value of the exact McNemar test: of the pairs that differ, is each side as likely
 * (binomial, 1/2)? */
double statistics_mcnemar(size_t only_first, size_t only_second);

/* Two-sided p-value of Student's paired t test on differences: (n). NaN for n < 2 or differences
 * without spread. */
double statistics_paired_t(const double *differences, size_t n);

/* Two-sided p-value of the exact sign-flip (permutation) test on whole differences: (n): the share
 * of the 2^n ways to flip signs whose |sum| is at least the one seen, from the sum's exact
 * distribution (Fisher 1935, section 21). With differences of -1, 0 and 1 this is McNemar's exact
 * test. NaN when there is no memory for the distribution. */
double statistics_sign_flip(const int *differences, size_t n);

/* Of the mean of differences: (n) over rows, from resamples of the rows with replacement (Efron
 * 1979): the interval between the percentiles (1 - confidence) / 2 on both sides, and the two-sided
 * p-value 2 min((1 + #{mean <= 0}) / (B + 1), (1 + #{mean >= 0}) / (B + 1)), at most 1. Draws are a
 * function of (key; resample, row). NaN for n = 0 and for differences that are not all finite. */
typedef struct {
    double low, high, p_value;
} Bootstrap;
void statistics_bootstrap(Bootstrap *bootstrap, const double *differences, size_t n, int resamples,
                          double confidence, RandomKey key);

/* pass@k of a row from n samples of which c are right: 1 - C(n - c, k) / C(n, k), the chance that k
 * of them without replacement hold a right one (Chen et al. 2021, eq. 1); its mean over draws of
 * the samples is pass@k. 1 <= k <= n. */
double statistics_pass_at(int k, int n, int c);

/* p-values adjusted for n tests made together (Holm 1979); NaN among them stays NaN and is not
 * counted. */
void statistics_holm(double *adjusted, const double *p, size_t n);

/* Two systems on the same rows. */
typedef struct {
    double difference, standard_error; /* mean over rows of first - second */
    double p_value;
    const char *test;               /* "mcnemar", "sign_flip" or "paired_t" */
    size_t only_first, only_second; /* samples that only one of them has right; verdicts only */
} Paired;

/* Verdicts 0 or 1: (n_rows, samples). One sample a row: McNemar; several: sign-flip on the rows'
 * counts. */
void statistics_paired_verdicts(Paired *paired, const uint8_t *first, const uint8_t *second,
                                size_t n_rows, size_t samples);
/* Values: (n_rows) each. Paired t test. */
void statistics_paired_values(Paired *paired, const double *first, const double *second,
                              size_t n_rows);
