/* What GSL does behind numerics.h, on problems whose answers are known. (Tails: see
 * test_analysis_statistics.c; interpolation: test_analysis_landscape.c.) */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "analysis/numerics.h"
#include "core/random.h"

static void eigenvectors_are_rows_with_a_positive_largest_element(void **state)
{
    (void)state;
    /* eigenvalues 4, 1, -2 along orthonormal vectors with thirds as elements */
    const double q[3][3] = {
        {2 / 3.0, 2 / 3.0, 1 / 3.0}, {-2 / 3.0, 1 / 3.0, 2 / 3.0}, {1 / 3.0, -2 / 3.0, 2 / 3.0}};
    const double lambda[3] = {1, -2, 4};
    const int order[3] = {2, 0, 1};
    double a[9] = {0}, values[3], vectors[9];
    Error told = {{0}};
    for (int k = 0; k < 9; k++) {
        for (int e = 0; e < 3; e++) {
            a[k] += lambda[e] * q[e][k / 3] * q[e][k % 3];
        }
    }
    assert_int_equal(numerics_symmetric_eigen(values, vectors, a, 3, &told), STATUS_OK);
    for (int k = 0; k < 3; k++) {
        double inner = 0;
        assert_true(fabs(values[k] - lambda[order[k]]) < 1e-14);
        for (int i = 0; i < 3; i++) {
            inner += vectors[k * 3 + i] * q[order[k]][i];
        }
        assert_true(fabs(fabs(inner) - 1) < 1e-14);
    }
    const double diagonal[4] = {-3, 0, 0, 5};
    assert_int_equal(numerics_symmetric_eigen(values, vectors, diagonal, 2, &told), STATUS_OK);
    assert_true(values[0] == 5 && values[1] == -3);
    assert_true(vectors[1] == 1 && vectors[2] == 1);
}

/* A matrix of known singular values, tall and wide. */
static void principal_directions_are_right_singular_vectors(void **state)
{
    (void)state;
    enum { m = 5, n = 3 };
    double a[m * n] = {0}, turned[n * m], directions[2 * m], singular[n];
    Error told = {{0}};
    /* a = 7 e1 f1^T + 2 e2 f2^T with f1 = (3, 0, -4) / 5 and f2 = (0, 1, 0) */
    a[0] = 7 * 0.6;
    a[2] = -7 * 0.8;
    a[4] = 2;
    for (int k = 0; k < m * n; k++) {
        turned[k % n * m + k / n] = a[k];
    }
    assert_int_equal(numerics_principal(directions, singular, 2, a, m, n, &told), STATUS_OK);
    assert_true(fabs(singular[0] - 7) < 1e-14 && fabs(singular[1] - 2) < 1e-14);
    assert_true(fabs(singular[2]) < 1e-14);
    assert_true(fabs(directions[0] + 0.6) < 1e-15 && fabs(directions[2] - 0.8) < 1e-15);
    assert_true(fabs(directions[n + 1] - 1) < 1e-15);
    assert_int_equal(numerics_principal(directions, singular, 2, turned, n, m, &told), STATUS_OK);
    assert_true(fabs(singular[0] - 7) < 1e-14 && fabs(singular[1] - 2) < 1e-14);
    assert_true(fabs(directions[0] - 1) < 1e-15 && fabs(directions[m + 1] - 1) < 1e-15);
}

typedef struct {
    int n_calls, fail_at;
} Calls;

static Status rosenbrock(void *context, const double *x, double *value, double *gradient,
                         Error *error)
{
    Calls *calls = context;
    if (++calls->n_calls == calls->fail_at) {
        return error_set(error, STATUS_STOPPED, "stopped");
    }
    double a = 1 - x[0], b = x[1] - x[0] * x[0];
    *value = a * a + 100 * b * b;
    gradient[0] = -2 * a - 400 * x[0] * b;
    gradient[1] = 200 * b;
    return STATUS_OK;
}

static void minimisation_finds_the_bottom_of_rosenbrocks_valley(void **state)
{
    (void)state;
    double x[2] = {-1.2, 1};
    bool converged;
    NumericsSearch search = {.first_step = 0.1, .tolerance = 1e-9, .max_iterations = 200};
    Calls calls = {0, 0};
    Error told = {{0}};
    assert_int_equal(numerics_minimise(x, &converged, 2, &search, rosenbrock, &calls, &told),
                     STATUS_OK);
    assert_true(converged);
    assert_true(fabs(x[0] - 1) < 1e-8 && fabs(x[1] - 1) < 1e-8);
    assert_true(calls.n_calls < 100); /* each point once: 42 iterations */

    int whole = calls.n_calls;
    double again[2] = {-1.2, 1};
    search.max_iterations = 3;
    calls = (Calls){0, 0};
    assert_int_equal(numerics_minimise(again, &converged, 2, &search, rosenbrock, &calls, &told),
                     STATUS_OK);
    assert_true(!converged);
    assert_true(calls.n_calls < whole / 2 && fabs(again[0] - 1) > 0.1);
    search.max_iterations = 200;
    calls = (Calls){0, 5}; /* what stops the value stops the search */
    assert_int_equal(numerics_minimise(again, &converged, 2, &search, rosenbrock, &calls, &told),
                     STATUS_STOPPED);
    assert_string_equal(told.message, "stopped");
    assert_int_equal(calls.n_calls, 5);
}

static void interpolation_says_what_gsl_says(void **state)
{
    (void)state;
    const double x[2] = {1, 0}, z[4] = {0};
    double fine[4];
    Error told = {{0}};
    assert_int_equal(numerics_interpolate(fine, 2, 2, z, x, 2, x, 2, &told), STATUS_FAILED);
    assert_non_null(strstr(told.message, "interpolation: "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eigenvectors_are_rows_with_a_positive_largest_element),
        cmocka_unit_test(principal_directions_are_right_singular_vectors),
        cmocka_unit_test(minimisation_finds_the_bottom_of_rosenbrocks_valley),
        cmocka_unit_test(interpolation_says_what_gsl_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
