/* The plans of other tools, group by group, from facts written here (reference/method.md 1.2, 3.1,
 * 3.2), and the file of a tie map. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "adapters/planners.h"
#include "adapters/tie_map.h"

enum { ALL_TARGETS = (1 << N_ROLES) - 1, MAX_MODULES = 40 * N_ROLES };

static void make_groups(int *group, Plan plan, int n_layers, unsigned targets)
{
    Module modules[MAX_MODULES];
    ModelConfig config = {.n_layers = n_layers};
    int n = plan_modules(modules, &config, targets);
    Error error;
    if (plan_complete(&plan, modules, n, &error) || plan_groups(group, &plan, modules, &error)) {
        fail_msg("%s", error.message);
    }
}

static void the_papers_points_have_its_u_and_n_tie(void **state)
{
    (void)state;
    const struct {
        int n_modules, budget, u, tie;
    } points[] = {
        /* Fig. 1 and Table 2, 7B */
        {196, 1, 1, 256},
        {196, 2, 1, 128},
        {196, 4, 1, 64},
        {196, 7, 1, 32},
        {196, 13, 1, 16},
        {196, 25, 1, 8},
        {196, 49, 1, 4},
        {196, 98, 1, 2},
        {196, 196, 1, 1},
        {196, 64, 64, 196},
        {196, 392, 2, 1},
        {196, 6272, 32, 1},
        {196, 100352, 512, 1},
        /* Table 2, 3B */
        {252, 16, 1, 16},
        {252, 63, 1, 4},
        {252, 252, 1, 1},
        {252, 504, 2, 1},
        {252, 8064, 32, 1},
        {252, 129024, 512, 1},
    };
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        int u, tie, group[MAX_MODULES], n = points[i].n_modules;
        planner_paper(&u, &tie, n, points[i].budget);
        assert_int_equal(u, points[i].u);
        /* 256 modules a group and all of 196 are the same group. */
        assert_int_equal(tie, points[i].tie);
        int groups = (n - 1) / tie + 1;
        assert_int_equal(u * groups, points[i].budget);
        Plan plan = {.rank = 2, .u = u, .groups = groups, .tie = TIE_TILED, .tie_factor = tie};
        make_groups(group, plan, n / 7, ALL_TARGETS);
        for (int m = 0; m < n; m++) {
            assert_int_equal(group[m], m / tie);
        }
    }
}

static void anrgusc_plans_are_its_choose_budget_plans(void **state)
{
    (void)state;
    const struct {
        int n_modules, budget, u, tie, actual;
    } facts[] = {
        {196, 1, 1, 196, 1},   {196, 2, 1, 98, 2},    {196, 13, 1, 16, 13}, {196, 49, 1, 4, 49},
        {196, 120, 4, 7, 112}, {196, 252, 4, 3, 264}, {252, 13, 1, 20, 13}, {252, 16, 1, 16, 16},
        {252, 63, 1, 4, 63},   {252, 120, 1, 2, 126}, {168, 13, 1, 13, 13},
    };
    const int candidates[] = {1, 2, 4};
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        int u, tie;
        planner_anrgusc(&u, &tie, facts[i].n_modules, facts[i].budget, candidates, 3);
        assert_int_equal(u, facts[i].u);
        assert_int_equal(tie, facts[i].tie);
        assert_int_equal(u * ((facts[i].n_modules - 1) / tie + 1), facts[i].actual);
    }
    /* Sorted by (layer, name): down, gate, up, k, o, q, v. Of 13 x 16 over 28 layers, the first
     * group is layers 0, 1 and the down and gate of layer 2. Two scalars halve the depth. */
    int group[MAX_MODULES];
    Plan plan = {.rank = 2,
                 .u = 1,
                 .groups = 13,
                 .tie = TIE_TILED,
                 .tie_factor = 16,
                 .order = ORDER_LAYER_SORTED};
    make_groups(group, plan, 28, ALL_TARGETS);
    const int place[7] = {5, 3, 6, 4, 1, 2, 0}; /* of q, k, v, o, gate, up, down */
    for (int m = 0; m < 196; m++) {
        assert_int_equal(group[m], (m / 7 * 7 + place[m % 7]) / 16);
    }
    assert_int_equal(group[14 + ROLE_GATE], 0);
    assert_int_equal(group[14 + ROLE_UP], 1);
    plan.groups = 2;
    plan.tie_factor = 98;
    make_groups(group, plan, 28, ALL_TARGETS);
    for (int m = 0; m < 196; m++) {
        assert_int_equal(group[m], m / 98);
    }
}

/* group = min(idx // (N // G), G - 1) */
static void peft_groups_are_its_floor_with_a_long_last_group(void **state)
{
    (void)state;
    assert_int_equal(planner_peft_groups(196, 0.93367), 13);
    assert_int_equal(planner_peft_groups(252, 0.875), 32); /* 31.5, to even */
    assert_int_equal(planner_peft_groups(196, 0), 196);
    assert_int_equal(planner_peft_groups(196, 1), 1);
    assert_int_equal(planner_peft_groups(10, 0.75), 2); /* 2.5, to even */
    assert_int_equal(planner_peft_groups(14, 0.75), 4); /* 3.5, to even */
    const struct {
        int layers, groups, n_short, size, n_last;
    } facts[] = {{36, 32, 31, 7, 35}, {28, 100, 99, 1, 97}, {28, 13, 12, 15, 16}};
    for (int i = 0; i < 3; i++) {
        int group[MAX_MODULES];
        Plan plan = {.rank = 2,
                     .u = 1,
                     .groups = facts[i].groups,
                     .tie = TIE_TILED,
                     .grouping = GROUPING_FLOOR};
        make_groups(group, plan, facts[i].layers, ALL_TARGETS);
        int m = 0;
        for (int g = 0; g < facts[i].n_short; g++) {
            for (int k = 0; k < facts[i].size; k++) {
                assert_int_equal(group[m++], g);
            }
        }
        for (int k = 0; k < facts[i].n_last; k++) {
            assert_int_equal(group[m++], facts[i].groups - 1);
        }
        assert_int_equal(m, facts[i].layers * 7);
    }
}

static char map_path[] = "/tmp/tinylora-map-XXXXXX";

static Status read_map(int **map, int *groups, const char *text, unsigned targets, Error *error)
{
    Module modules[MAX_MODULES];
    ModelConfig config = {.n_layers = 2};
    int n = plan_modules(modules, &config, targets);
    FILE *file = fopen(map_path, "wb");
    fputs(text, file);
    fclose(file);
    return tie_map_read(map, groups, map_path, &config, modules, n, error);
}

#define Q(layer) "\"model.layers." #layer ".self_attn.q_proj\": "
#define V(layer) "\"model.layers." #layer ".self_attn.v_proj\": "

static void a_map_file_gives_each_module_its_group(void **state)
{
    (void)state;
    int *map, groups;
    Error error;
    unsigned targets = 1u << ROLE_Q | 1u << ROLE_V;
    assert_int_equal(
        read_map(&map, &groups, "{" V(1) "0," Q(0) "2," Q(1) "1," V(0) "1}", targets, &error),
        STATUS_OK);
    assert_int_equal(groups, 3);
    const int expected[4] = {2, 1, 1, 0};
    assert_memory_equal(map, expected, sizeof expected);
    free(map);
}

static void bad_map_files_are_refused_naming_the_module(void **state)
{
    (void)state;
    const struct {
        const char *text, *message;
    } cases[] = {
        {"{" Q(0) "0," Q(1) "0," V(0) "0," Q(0) "1," V(1) "0}", "model.layers.0.self_attn.q_proj"},
        {"{" Q(0) "0," Q(1) "0," V(0) "0}",
         "module \"model.layers.1.self_attn.v_proj\" has no group"},
        {"{" Q(0) "0,\n" Q(2) "0," V(0) "0}",
         "line 2: \"model.layers.2.self_attn.q_proj\" is no module of the model"},
        {"{" Q(01) "0}", "line 1: \"model.layers.01.self_attn.q_proj\" is no module"},
        {"{\"q\": 0}", "line 1: \"q\" is no module of the model, which has layers 0 to 1"},
        {"{\"model.layers.0.mlp.up_proj\": 0}",
         "\"model.layers.0.mlp.up_proj\" is not among the modules that adapter.targets selects"},
        {"{" Q(0) "0," Q(1) "3," V(0) "0," V(1) "1}",
         "group 2 has no module, but \"model.layers.1.self_attn.q_proj\" is in group 3"},
        {"{" Q(0) "1," Q(1) "1," V(0) "1," V(1) "1}", "group 0 has no module"},
        {"{" Q(0) "0.5}", "\"model.layers.0.self_attn.q_proj\": a group is a whole number from 0"},
        {"{" Q(0) "-1}", "a group is a whole number from 0 to 3"},
        {"{" Q(0) "4}", "a group is a whole number from 0 to 3"},
        {"{" Q(0) "\"1\"}", "a group is a whole number from 0 to 3"},
        {"[1]", "where an object is expected"},
        {"{" Q(0) "0", "tie map"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int *map = NULL, groups;
        Error error = {{0}};
        Status status = read_map(&map, &groups, cases[i].text, 1u << ROLE_Q | 1u << ROLE_V, &error);
        if (status != STATUS_REFUSED || !strstr(error.message, cases[i].message) ||
            !strstr(error.message, map_path)) {
            fail_msg("case %zu: %d %s", i, status, error.message);
        }
    }
    Module modules[MAX_MODULES];
    ModelConfig config = {.n_layers = 2};
    int *map, groups, n = plan_modules(modules, &config, ALL_TARGETS);
    Error error;
    assert_true(tie_map_read(&map, &groups, "/nowhere/map.json", &config, modules, n, &error));
    assert_non_null(strstr(error.message, "/nowhere/map.json"));
}

static int make_file(void **state)
{
    (void)state;
    int file = mkstemp(map_path);
    return file < 0 || close(file);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(map_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_papers_points_have_its_u_and_n_tie),
        cmocka_unit_test(anrgusc_plans_are_its_choose_budget_plans),
        cmocka_unit_test(peft_groups_are_its_floor_with_a_long_last_group),
        cmocka_unit_test(a_map_file_gives_each_module_its_group),
        cmocka_unit_test(bad_map_files_are_refused_naming_the_module),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
