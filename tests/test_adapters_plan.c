/* Budgets and tie rules: exact counts, and the group maps of the paper. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "adapters/plan.h"

enum { ALL_TARGETS = (1 << N_ROLES) - 1, MAX_MODULES = 64 * N_ROLES };

static const Plan rank_2 = {.rank = 2, .dtype = TENSOR_BF16};

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
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, &rank_2, 13, -1, NULL),
                     STATUS_OK);
    Plan first = plans[0];
    assert_int_equal(first.u, 1);
    assert_int_equal(first.groups, 13);
    assert_int_equal(first.tie, TIE_TILED);
    assert_int_equal(first.grouping, GROUPING_CHUNKS);
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
    /* Balanced tiled, structured (13 over 7 types) and by-role (6 and 7) spend it too; then 13
     * scalars shared by all. */
    assert_int_equal(n_plans, 5);
    assert_true(plans[1].grouping == GROUPING_BALANCED && plans[1].tie == TIE_TILED);
    assert_true(plans[2].grouping == GROUPING_BALANCED && plans[2].tie == TIE_STRUCTURED);
    assert_true(plans[3].grouping == GROUPING_BALANCED && plans[3].tie == TIE_BY_ROLE);
    assert_int_equal(plans[4].tie, TIE_ALL);
    assert_int_equal(plans[4].u, 13);
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
        assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, &rank_2, 13, -1, NULL),
                         STATUS_OK);
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
        for (int tie = -1; tie < TIE_MAP; tie++) {
            for (int budget = 1; budget <= 80; budget++) {
                Module modules[MAX_MODULES];
                int n = make_modules(modules, layers, layers % 2 ? ALL_TARGETS : 0x55), n_plans;
                Plan *plans;
                Error error;
                if (plan_enumerate(&plans, &n_plans, modules, n, &rank_2, budget, tie, &error) !=
                    STATUS_OK) {
                    assert_true(tie == TIE_NONE || tie == TIE_STRUCTURED || tie == TIE_BY_ROLE);
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
                        if (plans[p].tie == TIE_BY_ROLE && size[group[i]]) {
                            assert_int_equal(role[group[i]] >= ROLE_GATE,
                                             modules[i].role >= ROLE_GATE);
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
                    if (plans[p].grouping == GROUPING_BALANCED && plans[p].tie == TIE_TILED) {
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

static void spends_13(int layers, unsigned targets, int n_expected)
{
    Module modules[MAX_MODULES];
    int n = make_modules(modules, layers, targets);
    assert_int_equal(n, n_expected);
    for (int groups = 1; groups <= 13; groups += 12) {
        Plan plan = {.rank = 2,
                     .u = 13 / groups,
                     .groups = groups,
                     .tie = groups == 1 ? TIE_ALL : TIE_TILED,
                     .grouping = GROUPING_BALANCED};
        assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
        assert_int_equal(plan.parameters, 13);
        assert_int_equal(plan.degrees_of_freedom, 13);
        int group[MAX_MODULES], size[13] = {0};
        assert_int_equal(plan_groups(group, &plan, modules, NULL), STATUS_OK);
        for (int i = 0; i < n; i++) {
            size[group[i]]++;
        }
        for (int g = 0; g < groups; g++) {
            assert_in_range(size[g], n / groups, (n - 1) / groups + 1);
        }
    }
}

static void thirteen_is_1_x_13_and_13_x_1_on_84_168_196_and_252_modules(void **state)
{
    (void)state;
    spends_13(12, ALL_TARGETS, 84);
    spends_13(24, ALL_TARGETS, 168);
    spends_13(28, ALL_TARGETS, 196);
    spends_13(36, ALL_TARGETS, 252);
}

/* Two layers: attention is q, k, v, o; the MLP gate, up, down. */
static void by_role_keeps_attention_and_mlp_apart(void **state)
{
    (void)state;
    Module modules[MAX_MODULES];
    int n = make_modules(modules, 2, ALL_TARGETS), group[MAX_MODULES];
    Plan plan = {.rank = 2, .u = 1, .groups = 2, .tie = TIE_BY_ROLE};
    assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
    assert_int_equal(plan_groups(group, &plan, modules, NULL), STATUS_OK);
    const int plain[14] = {0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
    assert_memory_equal(group, plain, sizeof plain);
    plan.groups = 5; /* attention in 2, the MLP in 3 */
    plan.grouping = GROUPING_BALANCED;
    assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
    assert_int_equal(plan_groups(group, &plan, modules, NULL), STATUS_OK);
    const int five[14] = {0, 0, 0, 0, 2, 2, 3, 1, 1, 1, 1, 3, 4, 4};
    assert_memory_equal(group, five, sizeof five);
    n = make_modules(modules, 3, 1u << ROLE_Q | 1u << ROLE_O); /* one role alone: as tiled */
    plan = (Plan){.rank = 2, .u = 1, .groups = 2, .tie = TIE_BY_ROLE};
    assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
    assert_int_equal(plan_groups(group, &plan, modules, NULL), STATUS_OK);
    const int tiled[6] = {0, 0, 0, 1, 1, 1};
    assert_memory_equal(group, tiled, sizeof tiled);
}

/* layer-sorted: down, gate, up, k, o, q, v within a layer; modules stay where they are. */
static void the_order_of_modules_decides_who_shares(void **state)
{
    (void)state;
    Module modules[MAX_MODULES];
    int n = make_modules(modules, 2, ALL_TARGETS), group[MAX_MODULES];
    Plan plan = {.rank = 2, .u = 1, .groups = 5, .tie = TIE_TILED, .order = ORDER_LAYER_SORTED};
    assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
    assert_int_equal(plan_groups(group, &plan, modules, NULL), STATUS_OK);
    /* sorted places 0..13 in threes; here by q, k, v, o, gate, up, down */
    const int tiled[14] = {5 / 3,  3 / 3,  6 / 3,  4 / 3,  1 / 3, 2 / 3, 0 / 3,
                           12 / 3, 10 / 3, 13 / 3, 11 / 3, 8 / 3, 9 / 3, 7 / 3};
    assert_memory_equal(group, tiled, sizeof tiled);
    plan.tie = TIE_STRUCTURED;
    plan.groups = 7;
    assert_int_equal(plan_groups(group, &plan, modules, NULL), STATUS_OK);
    const int types[7] = {5, 3, 6, 4, 1, 2, 0};
    for (int i = 0; i < 14; i++) {
        assert_int_equal(group[i], types[i % 7]);
    }
}

static void a_tie_factor_cuts_where_the_papers_does_and_the_rest_is_short(void **state)
{
    (void)state;
    Module modules[MAX_MODULES];
    int n = make_modules(modules, 28, ALL_TARGETS), group[MAX_MODULES];
    Plan plan = {.rank = 2, .u = 1, .groups = 4, .tie = TIE_TILED, .tie_factor = 64};
    assert_int_equal(plan_groups_of_factor(modules, n, TIE_TILED, 64), 4);
    assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
    assert_int_equal(plan_groups(group, &plan, modules, NULL), STATUS_OK);
    for (int i = 0; i < n; i++) {
        assert_int_equal(group[i], i / 64); /* 64, 64, 64, 4; not four of 49 */
    }
    /* The paper's Fig. 4 on 36 layers: structured, n_tie 1, 4, 8, 16 ... give 252, 63, 35, 21. */
    n = make_modules(modules, 36, ALL_TARGETS);
    const int factors[] = {1, 2, 4, 8, 16, 32}, groups[] = {252, 126, 63, 35, 21, 14};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(plan_groups_of_factor(modules, n, TIE_STRUCTURED, factors[i]), groups[i]);
        plan = (Plan){.rank = 2,
                      .u = 1,
                      .groups = groups[i],
                      .tie = TIE_STRUCTURED,
                      .tie_factor = factors[i]};
        assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
        assert_int_equal(plan_groups(group, &plan, modules, NULL), STATUS_OK);
        for (int m = 0; m < n; m++) {
            assert_int_equal(group[m], m % 7 * (groups[i] / 7) + m / 7 / factors[i]);
        }
    }
}

static void untied_u_of_13_is_2548_scalars_and_784_degrees_of_freedom(void **state)
{
    (void)state;
    Module modules[MAX_MODULES];
    int n = make_modules(modules, 28, ALL_TARGETS);
    Plan plan = {.rank = 2, .u = 13, .groups = 196, .tie = TIE_NONE, .dtype = TENSOR_BF16};
    assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
    assert_int_equal(plan.parameters, 2548);
    assert_int_equal(plan.bytes, 5096);
    assert_int_equal(plan.degrees_of_freedom, 784);
    plan.dtype = TENSOR_F32;
    assert_int_equal(plan_complete(&plan, modules, n, NULL), STATUS_OK);
    assert_int_equal(plan.bytes, 10192);
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
    refuses(
        (Plan){
            .rank = 2, .u = 1, .groups = 6, .tie = TIE_STRUCTURED, .grouping = GROUPING_BALANCED},
        4,
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
    refuses((Plan){.rank = 64, .u = 30000, .groups = 28, .tie = TIE_NONE}, 4,
            "u = 30000 at rank 64 over 28 modules: P would take 12.8 GiB, at most 8; a group of m "
            "modules has no use for more than m x rank^2 scalars");
    refuses(
        (Plan){.rank = 2, .u = 1, .groups = 1, .tie = TIE_BY_ROLE}, 4,
        "tie rule \"by-role\" never shares between roles: 1 groups over 2 roles of modules; the "
        "nearest possible is 2");
    refuses((Plan){.rank = 2, .u = 1, .groups = 5, .tie = TIE_BY_ROLE}, 4,
            "tie rule \"by-role\" in chunks: 5 groups over 2 roles of modules; the nearest are 4 "
            "and 6, or balanced");
    refuses(
        (Plan){.rank = 2, .u = 1, .groups = 10, .tie = TIE_BY_ROLE}, 4,
        "tie rule \"by-role\": chunks of 4 modules make 8 groups, not 10; the nearest are 8 and "
        "12, or balanced");
    refuses((Plan){.rank = 2, .u = 1, .groups = 26, .tie = TIE_BY_ROLE, .grouping = GROUPING_FLOOR},
            4,
            "tie rule \"by-role\": 26 groups are more than the smallest of its 2 roles of modules "
            "can give; the nearest is 24");
    refuses((Plan){.rank = 2, .u = 1, .groups = 3, .tie = TIE_TILED, .tie_factor = 16}, 4,
            "tie rule \"tiled\": chunks of 16 modules make 2 groups, not 3; the nearest is 2, or "
            "balanced");
    int map[28] = {0};
    map[3] = 1;
    refuses((Plan){.rank = 2, .u = 1, .groups = 3, .tie = TIE_MAP, .map = map}, 4,
            "the tie map makes 2 groups, not 3");
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
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, &rank_2, 13, TIE_NONE, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, "a budget of 13 scalars cannot be spent on 28 modules under "
                                       "tie rule \"none\"; the nearest is 28");
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, &rank_2, 100, TIE_NONE, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message,
                        "a budget of 100 scalars cannot be spent on 28 modules under "
                        "tie rule \"none\"; the nearest are 84 and 112");
    assert_int_equal(
        plan_enumerate(&plans, &n_plans, modules, n, &rank_2, 31, TIE_STRUCTURED, &error),
        STATUS_USAGE);
    assert_string_equal(error.message, "a budget of 31 scalars cannot be spent on 28 modules under "
                                       "tie rule \"structured\"; the nearest are 30 and 32");
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, n, &rank_2, 0, -1, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, "a budget of 0 scalars cannot be spent: at least 1");
    assert_int_equal(plan_enumerate(&plans, &n_plans, modules, 0, &rank_2, 5, -1, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, "the targets select no module of the model");
}

static void tie_rules_are_found_by_name(void **state)
{
    (void)state;
    TieRule rule;
    for (int i = 0; i < N_TIE_RULES; i++) {
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
        cmocka_unit_test(thirteen_is_1_x_13_and_13_x_1_on_84_168_196_and_252_modules),
        cmocka_unit_test(by_role_keeps_attention_and_mlp_apart),
        cmocka_unit_test(the_order_of_modules_decides_who_shares),
        cmocka_unit_test(a_tie_factor_cuts_where_the_papers_does_and_the_rest_is_short),
        cmocka_unit_test(untied_u_of_13_is_2548_scalars_and_784_degrees_of_freedom),
        cmocka_unit_test(impossible_plans_are_refused_with_the_nearest),
        cmocka_unit_test(budgets_that_cannot_be_spent_name_the_nearest),
        cmocka_unit_test(tie_rules_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
