/* What each number of scalars buys, from the views: the learning rate chosen on held-out rows,
 * seeds together, the share of full training's gain. */
#include <math.h>

#include "tests/results_test.h"

#define DEV "dev.jsonl[0:5] sampled"
#define TEST "test.jsonl[0:8] sampled"

/* One run of a point, scored on dev rows (its objective) and, where test is a number, on test rows.
 */
static void add_run(Store *store, const char *run_id, const char *adapter, int rank, int64_t budget,
                    double lr, int64_t seed, double dev, double test)
{
    char rank_text[16], seed_text[16];
    snprintf(rank_text, sizeof rank_text, "%d", rank);
    snprintf(seed_text, sizeof seed_text, "%d", (int)seed);
    const Param params[] = {{"adapter.method", adapter}, {"adapter.rank", rank_text},
                            {"adapter.tie", "\"none\""}, {"adapter.u", "4"},
                            {"adapter.groups", "3"},     {"adapter.dtype", "\"bf16\""},
                            {"seed", seed_text},         {"data.eval", "\"/a/test.jsonl\""}};
    RunInfo info = {.run_id = run_id,
                    .experiment = "e",
                    .identity = "{}",
                    .config = "{}",
                    .model = "m",
                    .method = "grpo",
                    .adapter = adapter,
                    .budget = budget,
                    .lr = lr,
                    .seed = seed,
                    .steps = 3,
                    .params = params,
                    .n_params = sizeof params / sizeof *params};
    RunState state;
    int64_t last;
    assert_ok(store_run(store, &info, 1, &state, &last, error));
    StepRecord record = {.run_id = run_id, .step = 3, .now_s = 2};
    const Worker worker = {"h", 1, "b", "{}"};
    assert_ok(store_attempt_begin(store, run_id, &worker, 1, 0, &record.attempt, error));
    assert_ok(store_steps(store, &record, 1, error));
    const double values[] = {dev, test}, bases[] = {0.3, 0.25};
    const char *const tasks[] = {DEV, TEST};
    for (int i = 0; i < (isnan(test) ? 1 : 2) && !isnan(dev); i++) {
        Evaluation evaluation = {.run_id = run_id,
                                 .step = 3,
                                 .task = tasks[i],
                                 .extractor = "reward",
                                 .n = 8,
                                 .value = values[i],
                                 .standard_error = 0.03,
                                 .base_value = bases[i],
                                 .p_value = NAN,
                                 .base_run_id = i ? "base:test" : "base:dev"};
        assert_ok(store_evaluations(store, &evaluation, 1, NULL, 0, 3, error));
    }
    assert_ok(store_run_end(store, run_id, isnan(dev) ? RUN_FAILED : RUN_DONE, NULL, dev, 0.03, 4,
                            error));
}

static Store *open_with_bases(void)
{
    Store *store = NULL;
    const char *const bases[] = {"base:dev", "base:test"};
    const double values[] = {0.3, 0.25};
    const char *const tasks[] = {DEV, TEST};
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    assert_ok(store_experiment(store, "e", "{}", 1, error));
    for (int i = 0; i < 2; i++) {
        Evaluation base = {.run_id = bases[i],
                           .step = 0,
                           .task = tasks[i],
                           .extractor = "reward",
                           .n = 8,
                           .value = values[i],
                           .standard_error = 0.02,
                           .base_value = NAN,
                           .p_value = NAN,
                           .model = "m"};
        assert_ok(store_evaluations(store, &base, 1, NULL, 0, 1, error));
    }
    return store;
}

static Store *open_filled(void)
{
    Store *store = open_with_bases();
    /* 12 scalars of rank 2: 0.02 has the best single run, 0.01 the best mean. */
    add_run(store, "a1", "tinylora", 2, 12, 0.01, 1, 0.60, 0.55);
    add_run(store, "a2", "tinylora", 2, 12, 0.01, 2, 0.58, 0.61);
    add_run(store, "a3", "tinylora", 2, 12, 0.02, 1, 0.70, NAN);
    add_run(store, "a4", "tinylora", 2, 12, 0.02, 2, 0.40, NAN);
    /* As many of another rank are another point; a rate with a failed seed is not chosen. */
    add_run(store, "b1", "tinylora", 3, 12, 0.01, 1, 0.50, 0.89);
    add_run(store, "b2", "tinylora", 3, 12, 0.02, 1, NAN, NAN);
    add_run(store, "b3", "tinylora", 3, 12, 0.02, 2, 0.90, NAN);
    add_run(store, "f1", "full", 2, 5000, 0.001, 1, 0.95, 0.95);
    return store;
}

static void rates_are_chosen_by_the_mean_over_whole_seeds(void **state)
{
    (void)state;
    Store *store = open_filled();
    assert_string_equal(
        ask(store, "SELECT point, run_id FROM chosen_runs ORDER BY run_id"),
        "tinylora r=2 u=4 groups=3 untied,a1\r\ntinylora r=2 u=4 groups=3 untied,a2\r\n"
        "tinylora r=3 u=4 groups=3 untied,b1\r\nfull,f1\r\n");
    assert_string_equal(ask(store, "SELECT count(*), sum(runs) FROM sweep_summary"), "5,8\r\n");
    store_close(store);
}

static void points_have_their_seeds_errors_and_share_of_full(void **state)
{
    (void)state;
    Store *store = open_filled();
    assert_string_equal(
        ask(store,
            "SELECT point, budget, bytes, seeds, round(value, 9), round(se, 9), round(seed_se, 9), "
            "lowest, highest, base_value, round(share, 9) FROM budget_table WHERE task = '" TEST
            "' ORDER BY budget, point"),
        "tinylora r=2 u=4 groups=3 untied,12,24,2,0.57999999999999996,0.029999999999999999,"
        "0.029999999999999999,0.55000000000000004,0.60999999999999999,0.25,0.47142857100000002\r\n"
        "tinylora r=3 u=4 groups=3 untied,12,24,1,0.89000000000000001,0.029999999999999999,,"
        "0.89000000000000001,0.89000000000000001,0.25,0.91428571400000003\r\n"
        "full,5000,20000,1,0.94999999999999996,0.029999999999999999,,0.94999999999999996,"
        "0.94999999999999996,0.25,1\r\n");
    assert_string_equal(
        ask(store, "SELECT task, max(test), count(*) FROM budget_table GROUP BY task"),
        DEV ",0,3\r\n" TEST ",1,3\r\n");
    store_close(store);
}

/* Nothing is a share of what may be nothing. */
static void a_gain_of_full_within_its_error_is_no_measure(void **state)
{
    (void)state;
    Store *store = open_with_bases();
    add_run(store, "a1", "tinylora", 2, 12, 0.01, 1, 0.60, 0.55);
    add_run(store, "f1", "full", 2, 5000, 0.001, 1, 0.37, 0.309);
    assert_string_equal(
        ask(store, "SELECT adapter, share FROM budget_table WHERE task = '" TEST "' ORDER BY 1"),
        "full,\r\ntinylora,\r\n");
    store_close(store);
}

int main(void)
{
#define TEST_OF(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST_OF(rates_are_chosen_by_the_mean_over_whole_seeds),
        TEST_OF(points_have_their_seeds_errors_and_share_of_full),
        TEST_OF(a_gain_of_full_within_its_error_is_no_measure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
