/* Degrees of freedom against the numerical rank of the Jacobian of v -> (S R_1 .. S R_n), by
 * LAPACK's singular values; and the laws of P themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapters/svd.h"
#include "tests/reference_adapter.h"

enum { ALL_TARGETS = (1 << N_ROLES) - 1, N_MODULES = 2 * N_ROLES };

static void make_modules(Module *modules)
{
    ModelConfig config = {.n_layers = 2};
    assert_int_equal(plan_modules(modules, &config, ALL_TARGETS), N_MODULES);
}

/* Singular values below the tolerance are counted out: those that are not 0 are above 1e-3 of the
 * largest here, and single precision leaves some 1e-7 of those that are. */
static int numerical_rank(const Plan *plan, const Module *modules, const int *group,
                          bool sqrt_sigma)
{
    int r = plan->rank, square = r * r, n_rows = N_MODULES * square, n = plan->parameters;
    float *a = calloc((size_t)n_rows * n, sizeof *a);
    double *p = malloc((size_t)plan->u * square * sizeof *p);
    for (int m = 0; m < N_MODULES; m++) {
        char name[96];
        module_name(name, modules[m].layer, modules[m].role);
        reference_projection(p, &plan->projection, name, plan->u, r);
        for (int i = 0; i < plan->u; i++) {
            for (int e = 0; e < square; e++) {
                double sj = 1.3 / (1 + e / r), sk = 1.3 / (1 + e % r);
                double sigma = sqrt_sigma ? sqrt(sj * sk) : sj;
                a[(size_t)(m * square + e) * n + group[m] * plan->u + i] =
                    (float)(sigma * p[i * square + e]);
            }
        }
    }
    int most = n_rows < n ? n_rows : n, rank = 0;
    float *s = malloc((size_t)most * sizeof *s);
    float *u = malloc((size_t)most * n_rows * sizeof *u), *v = malloc((size_t)most * n * sizeof *v);
    Error error;
    int threads = svd_begin();
    assert_int_equal(svd_top(u, s, v, &(Weight){a, TENSOR_F32, n_rows, n}, most, 0, NULL, &error),
                     STATUS_OK);
    svd_end(threads);
    while (rank < most && s[rank] > 1e-5f * s[0]) {
        rank++;
    }
    free(a);
    free(p);
    free(s);
    free(u);
    free(v);
    return rank;
}

static void degrees_of_freedom_are_the_rank_for_every_sigma_law_sharing_and_tie(void **state)
{
    (void)state;
    Module modules[N_MODULES];
    make_modules(modules);
    int map[N_MODULES] = {2, 0, 1, 1, 0, 2, 0, 0, 1, 1, 1, 2, 0, 0};
    int below = 0, short_signs = 0;
    for (int law = 0; law < 4; law++) {
        for (int shared = 0; shared < 2; shared++) {
            for (int tie = 0; tie < N_TIE_RULES; tie++) {
                for (int c = 0; c < 12; c++) {
                    const int ranks[] = {1, 2, 3}, us[] = {1, 3, 5, 14};
                    const int groups[N_TIE_RULES] = {3, 9, 1, N_MODULES, 3, 3};
                    Plan plan = {.rank = ranks[c % 3],
                                 .u = us[c / 3],
                                 .groups = groups[tie],
                                 .tie = (TieRule)tie,
                                 .grouping = GROUPING_BALANCED,
                                 .map = map,
                                 .projection = {(ProjectionLaw)law, shared, 42}};
                    int group[N_MODULES];
                    assert_int_equal(plan_complete(&plan, modules, N_MODULES, NULL), STATUS_OK);
                    assert_int_equal(plan_groups(group, &plan, modules, NULL), STATUS_OK);
                    for (int sigma = 0; sigma < 2; sigma++) {
                        int rank = numerical_rank(&plan, modules, group, sigma);
                        if (plan.degrees_of_freedom != rank) {
                            fail_msg("law %d shared %d tie %d rank %d u %d: %d, not %d", law,
                                     shared, tie, plan.rank, plan.u, plan.degrees_of_freedom, rank);
                        }
                    }
                    below += plan.degrees_of_freedom < plan.parameters;
                    int square = plan.rank * plan.rank;
                    short_signs +=
                        law == PROJECTION_RADEMACHER && tie == TIE_NONE && !shared &&
                        plan.degrees_of_freedom < N_MODULES * (plan.u < square ? plan.u : square);
                }
            }
        }
    }
    assert_true(below > 0);
    assert_true(short_signs > 0); /* signs that fall short of the closed form were met */
}

/* 13 scalars over all modules: 13 directions, or 4 with the same P everywhere. */
static void a_shared_p_leaves_rank_squared(void **state)
{
    (void)state;
    Module modules[N_MODULES];
    make_modules(modules);
    Plan plan = {.rank = 2, .u = 13, .groups = 1, .tie = TIE_ALL};
    assert_int_equal(plan_complete(&plan, modules, N_MODULES, NULL), STATUS_OK);
    assert_int_equal(plan.degrees_of_freedom, 13);
    plan.projection.shared = true;
    assert_int_equal(plan_complete(&plan, modules, N_MODULES, NULL), STATUS_OK);
    assert_int_equal(plan.degrees_of_freedom, 4);
}

static void every_law_of_p_is_what_it_says(void **state)
{
    (void)state;
    enum { RANK = 3, U = 200, SQUARE = RANK * RANK };
    float p[U * SQUARE], other[U * SQUARE];
    double expected[U * SQUARE];
    const double size[] = {1.0 / RANK, 1, 1.0 / RANK}; /* mean square of an element */
    for (int law = 0; law < 4; law++) {
        for (int shared = 0; shared < 2; shared++) {
            Projection projection = {(ProjectionLaw)law, shared, 7};
            assert_int_equal(projection_fill(p, &projection, "a", U, RANK, NULL), STATUS_OK);
            assert_int_equal(projection_fill(other, &projection, "b", U, RANK, NULL), STATUS_OK);
            reference_projection(expected, &projection, "a", U, RANK);
            double sum = 0, square = 0;
            for (int e = 0; e < U * SQUARE; e++) {
                assert_true(fabs((double)p[e] - expected[e]) < 1e-6); /* a rounding to float */
                sum += (double)p[e];
                square += (double)p[e] * (double)p[e];
            }
            assert_int_equal(memcmp(p, other, sizeof p) == 0, shared);
            if (law < PROJECTION_ORTHONORMAL) { /* 1800 draws: within some 4 standard errors */
                assert_true(fabs(sum / (U * SQUARE)) < 0.1 * sqrt(size[law]));
                assert_true(fabs(square / (U * SQUARE) / size[law] - 1) < 0.15);
            }
        }
    }
    for (int i = 0; i < U; i++) { /* orthonormal in blocks of rank^2: the last of each law */
        for (int j = i / SQUARE * SQUARE; j <= i; j++) {
            double product = 0;
            for (int e = 0; e < SQUARE; e++) {
                product += (double)p[i * SQUARE + e] * (double)p[j * SQUARE + e];
            }
            assert_true(fabs(product - (i == j)) < 1e-6);
        }
    }
    Projection signs = {PROJECTION_RADEMACHER, false, 7};
    assert_int_equal(projection_fill(p, &signs, "a", U, RANK, NULL), STATUS_OK);
    for (int e = 0; e < U * SQUARE; e++) {
        assert_true(fabsf(p[e]) == (float)(1 / sqrt(RANK)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(degrees_of_freedom_are_the_rank_for_every_sigma_law_sharing_and_tie),
        cmocka_unit_test(a_shared_p_leaves_rank_squared),
        cmocka_unit_test(every_law_of_p_is_what_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
