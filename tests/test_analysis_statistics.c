/* Statistics against values from the textbooks. Tolerances: what the source prints, or 1e-12 where
 * it is exact. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "analysis/statistics.h"
#include "core/random.h"

static void close_to(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%.17g, expected %.17g within %g", value, expected, tolerance);
    }
}

static void the_mean_has_the_standard_error_of_n_minus_1(void **state)
{
    (void)state;
    const double x[] = {2, 4, 4, 4, 5, 5, 7, 9};
    double mean, error;
    statistics_mean(&mean, &error, x, 8);
    close_to(mean, 5, 0);
    close_to(error, sqrt(32.0 / 7.0 / 8.0), 1e-15);
    statistics_mean(&mean, &error, x, 1);
    assert_true(mean == 2 && isnan(error));
    statistics_mean(&mean, &error, x, 0);
    assert_true(isnan(mean) && isnan(error));
}

static void wilson_intervals_are_those_of_newcombe_1998(void **state)
{
    (void)state;
    static const struct {
        size_t k, n;
        double low, high;
    } table[] = {{81, 263, 0.2553, 0.3662},
                 {15, 148, 0.0624, 0.1605},
                 {0, 20, 0.0, 0.1611},
                 {1, 29, 0.0061, 0.1718}};
    for (size_t i = 0; i < 4; i++) {
        double low, high;
        statistics_wilson(&low, &high, table[i].k, table[i].n, 0.95);
        close_to(low, table[i].low, 5e-5); /* four printed digits */
        close_to(high, table[i].high, 5e-5);
        double low_other, high_other; /* misses mirror hits */
        statistics_wilson(&low_other, &high_other, table[i].n - table[i].k, table[i].n, 0.95);
        close_to(low_other, 1 - high, 1e-15);
        close_to(high_other, 1 - low, 1e-15);
    }
    double low, high;
    statistics_wilson(&low, &high, 0, 0, 0.95);
    assert_true(low == 0 && high == 1);
}

static void mcnemar_is_a_binomial_tail(void **state)
{
    (void)state;
    close_to(statistics_mcnemar(1, 8), 2.0 * (1 + 9) / 512, 1e-14);
    close_to(statistics_mcnemar(8, 1), 2.0 * (1 + 9) / 512, 1e-14);
    close_to(statistics_mcnemar(0, 0), 1, 0);
    close_to(statistics_mcnemar(5, 5), 1, 0);
    close_to(statistics_mcnemar(0, 40) / ldexp(1, -39), 1, 1e-12);
}

static void the_t_test_is_students_on_his_sleep_data(void **state)
{
    (void)state;
    const double extra[] = {1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4};
    close_to(statistics_paired_t(extra, 10), 0.002833, 5e-7); /* R: t.test(sleep, paired) */
    const double same[] = {1, 1, 1};
    assert_true(isnan(statistics_paired_t(same, 3)));
    assert_true(isnan(statistics_paired_t(extra, 1)));
}

static void the_sign_flip_test_is_fishers_on_darwins_maize(void **state)
{
    (void)state;
    const int maize[] = {49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48};
    /* Fisher 1935, section 21: 863 of 32768 arrangements reach the sum of 314 */
    close_to(statistics_sign_flip(maize, 15), 2 * 863.0 / 32768, 1e-15);
    const int none[] = {0, 0};
    close_to(statistics_sign_flip(none, 2), 1, 0);
    const int small[] = {2, 0, 1}; /* sums 3, 1, -1, -3 */
    close_to(statistics_sign_flip(small, 3), 0.5, 0);
}

static void sign_flip_of_single_verdicts_is_mcnemar(void **state)
{
    (void)state;
    const RandomKey key = {20260131, RANDOM_DATA};
    for (uint32_t k = 0; k < 50; k++) {
        int differences[300];
        size_t up = 0, down = 0;
        for (uint32_t i = 0; i < 300; i++) {
            double x = random_uniform(key, k, i, 0, 0);
            differences[i] = x < 0.2 ? 1 : x < 0.2 + k * 0.01 ? -1 : 0;
            up += differences[i] > 0;
            down += differences[i] < 0;
        }
        double p = statistics_mcnemar(up, down);
        /* 600 sums of positive numbers in double */
        close_to(statistics_sign_flip(differences, 300) / p, 1, 1e-10);
    }
}

static void holm_is_that_of_r(void **state)
{
    (void)state;
    const double p[] = {0.01, 0.04, 0.03, 0.005};
    const double expected[] = {0.03, 0.06, 0.06, 0.02}; /* R: p.adjust(p, "holm") */
    double adjusted[5];
    statistics_holm(adjusted, p, 4);
    for (int i = 0; i < 4; i++) {
        close_to(adjusted[i], expected[i], 1e-15);
    }
    const double ties[] = {0.02, NAN, 0.02, 0.9, 0.8};
    const double adjusted_ties[] = {0.08, NAN, 0.08, 1, 1};
    statistics_holm(adjusted, ties, 5);
    for (int i = 0; i < 5; i++) {
        assert_true(isnan(adjusted_ties[i]) ? isnan(adjusted[i])
                                            : fabs(adjusted[i] - adjusted_ties[i]) < 1e-15);
    }
}

static void paired_verdicts_take_rows_as_units(void **state)
{
    (void)state;
    const uint8_t first[] = {1, 1, 0, 1, 1, 0}, second[] = {0, 1, 0, 0, 1, 1};
    Paired paired;
    statistics_paired_verdicts(&paired, first, second, 6, 1);
    assert_string_equal(paired.test, "mcnemar");
    assert_int_equal(paired.only_first, 2);
    assert_int_equal(paired.only_second, 1);
    close_to(paired.difference, 1.0 / 6, 1e-15);
    close_to(paired.p_value, 1, 0);
    /* three rows of two samples: counts 1, 1, -1 -> differences 1/2, 1/2, -1/2 */
    statistics_paired_verdicts(&paired, first, second, 3, 2);
    assert_string_equal(paired.test, "sign_flip");
    close_to(paired.difference, 1.0 / 6, 1e-15);
    close_to(paired.standard_error, 1.0 / 3, 1e-15);
    close_to(paired.p_value, 1, 0); /* |sum| = 1 is the least there is */
    const double a[] = {1.5, 2.25, 0.5}, b[] = {1.0, 2.0, 0.75};
    statistics_paired_values(&paired, a, b, 3);
    close_to(paired.difference, 0.5 / 3, 1e-15);
    assert_string_equal(paired.test, "paired_t");
}

static void pass_at_k_counts_the_ways_to_draw(void **state)
{
    (void)state;
    for (int n = 1; n <= 12; n++) {
        for (int c = 0; c <= n; c++) {
            for (int k = 1; k <= n; k++) {
                int holds = 0, ways = 0; /* samples 0 .. c - 1 are right; subsets as bits */
                for (int subset = 0; subset < 1 << n; subset++) {
                    if (__builtin_popcount((unsigned)subset) == k) {
                        ways++;
                        holds += (subset & ((1 << c) - 1)) != 0;
                    }
                }
                close_to(statistics_pass_at(k, n, c), (double)holds / ways, 1e-14);
            }
        }
    }
    close_to(statistics_pass_at(1, 200, 37), 37.0 / 200, 1e-15);
}

static double normal(uint32_t i)
{
    return random_normal((RandomKey){8, RANDOM_DATA}, i, 0, 0, 0);
}

static void the_bootstrap_is_normal_theory_where_that_holds(void **state)
{
    (void)state;
    enum { N = 1001 };
    static double x[N];
    double mean, error;
    for (uint32_t i = 0; i < N; i++) {
        x[i] = 0.1 + normal(i);
    }
    statistics_mean(&mean, &error, x, N);
    Bootstrap b, again, other;
    statistics_bootstrap(&b, x, N, 20000, 0.95, (RandomKey){1, RANDOM_BOOTSTRAP});
    /* three standard errors of a percentile of 20000: sqrt(.025 .975 / 20000) / density there */
    close_to(b.low, mean - 1.959964 * error, 0.06 * error);
    close_to(b.high, mean + 1.959964 * error, 0.06 * error);
    double p = erfc(fabs(mean / error) / sqrt(2));
    close_to(b.p_value, p, 3 * sqrt(2 * p / 20000) + 1e-4);
    statistics_bootstrap(&again, x, N, 20000, 0.95, (RandomKey){1, RANDOM_BOOTSTRAP});
    statistics_bootstrap(&other, x, N, 20000, 0.95, (RandomKey){2, RANDOM_BOOTSTRAP});
    assert_memory_equal(&b, &again, sizeof b);
    assert_true(b.low != other.low);
}

/* Every way to draw 3 of 3 rows: 27 means. */
static void the_bootstrap_draws_every_row_alike(void **state)
{
    (void)state;
    const double x[] = {-1, 0, 2};
    Bootstrap b;
    statistics_bootstrap(&b, x, 3, 100000, 0.5, (RandomKey){3, RANDOM_BOOTSTRAP});
    close_to(b.low, -1.0 / 3, 1e-12);         /* 4 of 27 means are below -1/3, 8 below 0 */
    close_to(b.high, 1, 1e-12);               /* 20 are at most 2/3, 23 at most 1 */
    close_to(b.p_value, 2 * 11.0 / 27, 0.01); /* 11 are at most 0 */
    statistics_bootstrap(&b, (const double[]){0, 0}, 2, 100, 0.95, (RandomKey){3, 9});
    assert_true(b.low == 0 && b.high == 0 && b.p_value == 1);
    statistics_bootstrap(&b, x, 0, 100, 0.95, (RandomKey){3, 9});
    assert_true(isnan(b.low) && isnan(b.p_value));
    statistics_bootstrap(&b, (const double[]){1, NAN}, 2, 100, 0.95, (RandomKey){3, 9});
    assert_true(isnan(b.low) && isnan(b.p_value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pass_at_k_counts_the_ways_to_draw),
        cmocka_unit_test(the_bootstrap_is_normal_theory_where_that_holds),
        cmocka_unit_test(the_bootstrap_draws_every_row_alike),
        cmocka_unit_test(the_mean_has_the_standard_error_of_n_minus_1),
        cmocka_unit_test(wilson_intervals_are_those_of_newcombe_1998),
        cmocka_unit_test(mcnemar_is_a_binomial_tail),
        cmocka_unit_test(the_t_test_is_students_on_his_sleep_data),
        cmocka_unit_test(the_sign_flip_test_is_fishers_on_darwins_maize),
        cmocka_unit_test(sign_flip_of_single_verdicts_is_mcnemar),
        cmocka_unit_test(holm_is_that_of_r),
        cmocka_unit_test(paired_verdicts_take_rows_as_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
