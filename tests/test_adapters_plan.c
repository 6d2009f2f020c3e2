/* Budgets and tie rules: exact counts, the group maps of the paper, degrees of freedom against a
 * numerical rank. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "adapters/plan.h"
#include "core/random.h"

enum { ALL_TARGETS = (1 << N_ROLES) - 1, MAX_MODULES = 64 * N_ROLES };

static int make_modules(Module *modules, int n_layers, unsigned targets)
{
    ModelConfig config = {.n_layers = n_layers};
    return plan_modules(modules, &config, targets);
}

static void modules_come_in_named_modules_order(void **state)
{
    (void)state;
    Module modules[MAX_MODULES];
    assert_int_equal(make_modules(modules, 3, ALL_TARGETS), 21);
    for (int i = 0; i < 21; i++) {
        assert_int_equal(modules[i].layer, i / 7);
        assert_int_equal(modules[i].role, i % 7);
    }
    assert_int_equal(make_modules(modules, 2, 1u << ROLE_V | 1u << ROLE_DOWN), 4);
    assert_int_equal(modules[1].role, ROLE_DOWN);
    assert_int_equal(modules[2].layer, 1);
    assert_int_equal(modules[2].role, ROLE_V);
}

static void thirteen_of_196_is_twelve_chunks_of_16_and_one_of_4(void **state)
{
    (void)state;
    Module modules[MAX_MODULES];
    int n = make_modules(modules, 28, ALL_TARGETS);
    assert_int_equal(n, 196);
    Plan *plans;
    int n_plans;
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, 13, 2, -1, NULL), STATUS_OK);
    Plan first = plans[0];
    assert_int_equal(first.u, 1);
    assert_int_equal(first.groups, 13);
    assert_int_equal(first.tie, TIE_TILED);
    assert_false(first.balanced);
    assert_int_equal(first.parameters, 13);
    assert_int_equal(first.bytes, 26);
    assert_int_equal(first.degrees_of_freedom, 13);
    int group[MAX_MODULES], size[13] = {0};
    assert_int_equal(plan_groups(group, &first, modules, NULL), STATUS_OK);
    for (int i = 0; i < n; i++) {
        assert_int_equal(group[i], i / 16);
        size[group[i]]++;
    }
    for (int g = 0; g < 12; g++) {
        assert_int_equal(size[g], 16);
    }
    assert_int_equal(size[12], 4);
    /* Balanced tiled and balanced structured (13 over 7 types) spend it too; then 13 scalars shared
     * by all. */
    assert_int_equal(n_plans, 4);
    assert_true(plans[1].balanced && plans[1].tie == TIE_TILED);
    assert_true(plans[2].balanced && plans[2].tie == TIE_STRUCTURED);
    assert_int_equal(plans[3].tie, TIE_ALL);
    assert_int_equal(plans[3].u, 13);
    free(plans);
}

static void thirteen_is_spent_exactly_on_every_usual_depth(void **state)
{
    (void)state;
    const int layers[] = {4, 12, 24, 28, 36};
    for (int l = 0; l < 5; l++) {
        Module modules[MAX_MODULES];
        int n = make_modules(modules, layers[l], ALL_TARGETS), n_plans;
        Plan *plans;
        assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, 13, 2, -1, NULL), STATUS_OK);
        bool one_by_13 = false, thirteen_by_1 = false;
        for (int i = 0; i < n_plans; i++) {
            assert_int_equal(plans[i].parameters, 13);
            one_by_13 |= plans[i].u == 1 && plans[i].groups == 13;
            thirteen_by_1 |= plans[i].u == 13 && plans[i].groups == 1;
        }
        assert_true(one_by_13 && thirteen_by_1);
        assert_int_equal(plans[0].groups, 13);
        assert_int_equal(plans[0].tie, TIE_TILED);
        free(plans);
    }
}

static void every_listed_plan_makes_exactly_its_groups_and_keeps_its_rule(void **state)
{
    (void)state;
    for (int layers = 1; layers <= 9; layers++) {
        for (int tie = -1; tie < 4; tie++) {
            for (int budget = 1; budget <= 80; budget++) {
                Module modules[MAX_MODULES];
                int n = make_modules(modules, layers, layers % 2 ? ALL_TARGETS : 0x55), n_plans;
                Plan *plans;
                Error error;
                if (plan_enumerate(&plans, &n_plans, modules, n, budget, 2, tie, &error) !=
                    STATUS_OK) {
                    assert_true(tie == TIE_NONE || tie == TIE_STRUCTURED);
                    continue;
                }
                for (int p = 0; p < n_plans; p++) {
                    assert_int_equal(plans[p].u * plans[p].groups, budget);
                    int group[MAX_MODULES], size[MAX_MODULES] = {0}, role[MAX_MODULES];
                    assert_int_equal(plan_groups(group, &plans[p], modules, NULL), STATUS_OK);
                    for (int i = 0; i < n; i++) {
                        assert_in_range(group[i], 0, plans[p].groups - 1);
                        if (plans[p].tie == TIE_STRUCTURED && size[group[i]]) {
                            assert_int_equal(role[group[i]], modules[i].role);
                        }
                        role[group[i]] = (int)modules[i].role;
                        size[group[i]]++;
                        if (plans[p].tie == TIE_TILED && i) {
                            assert_in_range(group[i] - group[i - 1], 0, 1);
                        }
                    }
                    int least = n, most = 0;
                    for (int g = 0; g < plans[p].groups; g++) {
                        assert_true(size[g] > 0);
                        least = size[g] < least ? size[g] : least;
                        most = size[g] > most ? size[g] : most;
                    }
                    if (plans[p].balanced && plans[p].tie == TIE_TILED) {
                        assert_true(most - least <= 1);
                    }
                    if (p) {
                        assert_true(plans[p].groups <= plans[p - 1].groups);
                    }
                }
                free(plans);
            }
        }
    }
}

/* Rank of the map v -> (R_1 .. R_n) with independent normal P, by elimination with full pivoting.
 */
static int numerical_rank(const Plan *plan, const int *group)
{
    int square = plan->rank * plan->rank, rows = plan->n_modules * square,
        columns = plan->parameters;
    double *a = calloc((size_t)rows * columns, sizeof *a);
    for (int m = 0; m < plan->n_modules; m++) {
        for (int i = 0; i < plan->u; i++) {
            for (int k = 0; k < square; k++) {
                RandomKey key = {42, RANDOM_PROJECTION};
                a[(size_t)(m * square + k) * columns + group[m] * plan->u + i] =
                    random_normal(key, (uint32_t)m, (uint32_t)i, (uint32_t)k, 0);
            }
        }
    }
    int rank = 0;
    for (;; rank++) {
        int pivot_row = 0, pivot_column = 0;
        double largest = 0;
        for (int i = rank; i < rows; i++) {
            for (int j = rank; j < columns; j++) {
                if (fabs(a[(size_t)i * columns + j]) > largest) {
                    largest = fabs(a[(size_t)i * columns + j]);
                    pivot_row = i;
                    pivot_column = j;
                }
            }
        }
        if (largest < 1e-9) { /* entries are of order 1, f64 elimination leaves 1e-13 */
            break;
        }
        for (int j = 0; j < columns; j++) {
            double swap = a[(size_t)rank * columns + j];
            a[(size_t)rank * columns + j] = a[(size_t)pivot_row * columns + j];
            a[(size_t)pivot_row * columns + j] = swap;
        }
        for (int i = 0; i < rows; i++) {
            double swap = a[(size_t)i * columns + rank];
            a[(size_t)i * columns + rank] = a[(size_t)i * columns + pivot_column];
            a[(size_t)i * columns + pivot_column] = swap;
        }
        for (int i = rank + 1; i < rows; i++) {
            double factor = a[(size_t)i * columns + rank] / a[(size_t)rank * columns + rank];
            for (int j = rank; j < columns; j++) {
                a[(size_t)i * columns + j] -= factor * a[(size_t)rank * columns + j];
            }
        }
    }
    free(a);
    return rank;
}

static void degrees_of_freedom_are_the_rank_of_the_map(void **state)
{
    (void)state;
    Module modules[MAX_MODULES];
    int n = make_modules(modules, 2, ALL_TARGETS);
    int below = 0;
    for (int rank = 1; rank <= 3; rank++) {
        for (int budget = 1; budget <= 60; budget += budget < 14 ? 1 : 7) {
            Plan *plans;
            int n_plans;
            assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, budget, rank, -1, NULL),
                             STATUS_OK);
            for (int p = 0; p < n_plans; p++) {
                int group[MAX_MODULES];
                assert_int_equal(plan_groups(group, &plans[p], modules, NULL), STATUS_OK);
                assert_int_equal(plans[p].degrees_of_freedom, numerical_rank(&plans[p], group));
                below += plans[p].degrees_of_freedom < budget;
            }
            free(plans);
        }
    }
    assert_true(below > 0); /* the interesting case was met */
}

static void untied_u_of_13_is_2548_scalars_and_784_degrees_of_freedom(void **state)
{
    (void)state;
    Module modules[MAX_MODULES];
    int n = make_modules(modules, 28, ALL_TARGETS);
    Plan plan = {.rank = 2, .u = 13, .groups = 196, .tie = TIE_NONE};
    assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
    assert_int_equal(plan.parameters, 2548);
    assert_int_equal(plan.bytes, 5096);
    assert_int_equal(plan.degrees_of_freedom, 784);
}

static void refuses(Plan plan, int layers, const char *message)
{
    Module modules[MAX_MODULES];
    int n = make_modules(modules, layers, ALL_TARGETS);
    Error error = {{0}};
    assert_int_equal(plan_complete(&plan, modules, n, &error), STATUS_USAGE);
    assert_string_equal(error.message, message);
}

static void impossible_plans_are_refused_with_the_nearest(void **state)
{
    (void)state;
    refuses((Plan){.rank = 2, .u = 1, .groups = 13, .tie = TIE_TILED}, 4,
            "tie rule \"tiled\": chunks of 3 modules make 10 groups, not 13; the nearest are 10 "
            "and 14, or balanced");
    refuses((Plan){.rank = 2, .u = 1, .groups = 29, .tie = TIE_TILED}, 4,
            "29 groups over 28 modules: from 1 to 28 are possible");
    refuses((Plan){.rank = 2, .u = 1, .groups = 0, .tie = TIE_TILED}, 4,
            "0 groups over 28 modules: from 1 to 28 are possible");
    refuses((Plan){.rank = 2, .u = 1, .groups = 2, .tie = TIE_ALL}, 4,
            "tie rule \"all\" makes 1 group, not 2");
    refuses((Plan){.rank = 2, .u = 1, .groups = 2, .tie = TIE_NONE}, 4,
            "tie rule \"none\" makes 28 groups, not 2");
    refuses((Plan){.rank = 2, .u = 1, .groups = 6, .tie = TIE_STRUCTURED, .balanced = true}, 4,
            "tie rule \"structured\" never shares between types: 6 groups over 7 types of modules; "
            "the nearest possible is 7");
    refuses((Plan){.rank = 2, .u = 1, .groups = 13, .tie = TIE_STRUCTURED}, 4,
            "tie rule \"structured\" in chunks: 13 groups over 7 types of modules; the nearest are "
            "7 and 14, or balanced");
    refuses((Plan){.rank = 2, .u = 1, .groups = 21, .tie = TIE_STRUCTURED}, 4,
            "tie rule \"structured\": chunks of 2 modules make 14 groups, not 21; the nearest are "
            "14 and 28, or balanced");
    refuses((Plan){.rank = 0, .u = 1, .groups = 7, .tie = TIE_TILED}, 1,
            "rank 0: from 1 to 256 are possible");
    refuses((Plan){.rank = 257, .u = 1, .groups = 7, .tie = TIE_TILED}, 1,
            "rank 257: from 1 to 256 are possible");
    refuses((Plan){.rank = 2, .u = 0, .groups = 7, .tie = TIE_TILED}, 1,
            "u = 0: a group has at least 1 scalar");
    refuses((Plan){.rank = 2, .u = 2000000000, .groups = 7, .tie = TIE_TILED}, 1,
            "u = 2000000000 times 7 groups: more than 2147483647 scalars");
    Plan plan = {.rank = 2, .u = 1, .groups = 1, .tie = TIE_ALL};
    Error error;
    assert_int_equal(plan_complete(&plan, NULL, 0, &error), STATUS_USAGE);
    assert_string_equal(error.message, "the targets select no module of the model");
}

static void budgets_that_cannot_be_spent_name_the_nearest(void **state)
{
    (void)state;
    Module modules[MAX_MODULES];
    int n = make_modules(modules, 4, ALL_TARGETS), n_plans;
    Plan *plans;
    Error error;
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, 13, 2, TIE_NONE, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, "a budget of 13 scalars cannot be spent on 28 modules under "
                                       "tie rule \"none\"; the nearest is 28");
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, 100, 2, TIE_NONE, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message,
                        "a budget of 100 scalars cannot be spent on 28 modules under "
                        "tie rule \"none\"; the nearest are 84 and 112");
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, 31, 2, TIE_STRUCTURED, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, "a budget of 31 scalars cannot be spent on 28 modules under "
                                       "tie rule \"structured\"; the nearest are 30 and 32");
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, 0, 2, -1, &error), STATUS_USAGE);
    assert_string_equal(error.message, "a budget of 0 scalars cannot be spent: at least 1");
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, 0, 5, 2, -1, &error), STATUS_USAGE);
    assert_string_equal(error.message, "the targets select no module of the model");
}

static void tie_rules_are_found_by_name(void **state)
{
    (void)state;
    TieRule rule;
    for (int i = 0; i < 4; i++) {
        assert_true(tie_rule_find(&rule, tie_rule_name((TieRule)i)));
        assert_int_equal(rule, i);
    }
    assert_false(tie_rule_find(&rule, "Tiled"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modules_come_in_named_modules_order),
        cmocka_unit_test(thirteen_of_196_is_twelve_chunks_of_16_and_one_of_4),
        cmocka_unit_test(thirteen_is_spent_exactly_on_every_usual_depth),
        cmocka_unit_test(every_listed_plan_makes_exactly_its_groups_and_keeps_its_rule),
        cmocka_unit_test(degrees_of_freedom_are_the_rank_of_the_map),
        cmocka_unit_test(untied_u_of_13_is_2548_scalars_and_784_degrees_of_freedom),
        cmocka_unit_test(impossible_plans_are_refused_with_the_nearest),
        cmocka_unit_test(budgets_that_cannot_be_spent_name_the_nearest),
        cmocka_unit_test(tie_rules_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
