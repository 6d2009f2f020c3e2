/* The one writer: runs, steps, resuming, evaluations, and the views of them. */
#include <math.h>

#include "results/database.h"
#include "tests/run_test.h"

/* As another program would. */
static void damage(const char *sql)
{
    Database *database = NULL;
    assert_ok(database_open(&database, path, DATABASE_WRITE, error));
    assert_ok(database_execute(database, sql, error));
    database_close(database);
}

static void a_run_is_stored_once_and_keeps_its_state(void **state)
{
    (void)state;
    int64_t attempt, last = 5;
    RunState run_state;
    Store *store = open_with_run(&attempt);
    assert_int_equal(attempt, 1);
    assert_ok(store_run(store, &info, 9.0, &run_state, &last, error));
    assert_int_equal(run_state, RUN_RUNNING);
    assert_int_equal(last, -1);
    assert_string_equal(ask(store, "SELECT count(*) FROM run"), "1\r\n");
    assert_string_equal(ask(store, "SELECT count(*) FROM param"), "2\r\n");

    /* another experiment that wants the same cell shares it */
    RunInfo other = info;
    other.experiment = "f";
    assert_ok(store_experiment(store, "f", "{}", 1.0, error));
    assert_ok(store_run(store, &other, 9.0, &run_state, &last, error));
    assert_string_equal(ask(store, "SELECT experiment, run_id FROM run_list ORDER BY 1"),
                        "e,00aa11bb22cc33dd\r\nf,00aa11bb22cc33dd\r\n");

    Error told = {{0}};
    other.identity = "{\"a\":2}";
    assert_int_equal(store_run(store, &other, 9.0, &run_state, &last, &told), STATUS_FAILED);
    assert_says(&told, "run 00aa11bb22cc33dd is there with another identity");
    store_close(store);
}

static void a_step_is_whole_and_comes_once(void **state)
{
    (void)state;
    int64_t attempt, last;
    RunState run_state;
    Store *store = open_with_run(&attempt);
    Metric metrics[] = {{"reward", 0.1}, {"loss", NAN}, {"grad_norm", INFINITY}};
    CompletionRow completions[] = {completion_at(0, 0), completion_at(0, 1)};
    EventRow event = {"note", "hello"};
    StepRecord record = record_at(attempt, 1, metrics, 3, completions, 2, "state-1", 7);
    record.events = &event;
    record.n_events = 1;
    assert_ok(store_steps(store, &record, 1, error));
    assert_string_equal(ask(store, "SELECT key, value FROM metric ORDER BY key"),
                        "grad_norm,\r\nloss,\r\nreward,0.10000000000000001\r\n");
    assert_string_equal(ask(store, "SELECT kind, message FROM event ORDER BY event_id"),
                        "nonfinite,loss is not a number\r\nnonfinite,grad_norm is infinite\r\n"
                        "note,hello\r\n");
    assert_string_equal(ask(store, "SELECT hex(text), hex(ids), length(logprobs) FROM completion "
                                   "WHERE sample = 1"),
                        "C3,050000007011010002000000,24\r\n");
    assert_string_equal(ask(store, "SELECT from_step, to_step, heartbeat_at FROM attempt"),
                        "-1,1,11\r\n");
    assert_ok(store_run(store, &info, 9.0, &run_state, &last, error));
    assert_int_equal(last, 1);

    Error told = {{0}};
    assert_int_equal(store_steps(store, &record, 1, &told), STATUS_FAILED);
    assert_says(&told, "run 00aa11bb22cc33dd, step 1: ");
    assert_says(&told, "the step is already committed");

    /* the second of two records breaks a rule: the first is not stored either */
    StepRecord two[] = {record_at(attempt, 2, metrics, 1, NULL, 0, "state-2", 7),
                        record_at(attempt, 3, metrics, 1, NULL, 0, "state-3", 7)};
    CompletionRow doubled[] = {completion_at(0, 0), completion_at(0, 0)};
    two[1].completions = doubled;
    two[1].n_completions = 2;
    assert_int_equal(store_steps(store, two, 2, &told), STATUS_FAILED);
    assert_says(&told, "step 3");
    assert_says(&told, "UNIQUE");
    assert_string_equal(ask(store, "SELECT max(step) FROM metric"), "1\r\n");
    assert_string_equal(ask(store, "SELECT last_step FROM run"), "1\r\n");

    two[0].attempt = 99;
    assert_int_equal(store_steps(store, two, 1, &told), STATUS_FAILED);
    assert_says(&told, "there is no attempt 99");
    store_close(store);
}

static void resuming_drops_what_is_later_than_the_checkpoint(void **state)
{
    (void)state;
    int64_t attempt, step = 9, again, damaged = 0;
    Store *store = open_with_run(&attempt);
    void *blob = NULL;
    size_t n = 0;
    assert_ok(store_checkpoint(store, info.run_id, &step, &blob, &n, error));
    assert_int_equal(step, -1);
    assert_null(blob);

    Metric metric = {"reward", 0.25};
    EventRow event = {"note", "x"};
    for (int k = 0; k < 6; k++) {
        char bytes[24];
        snprintf(bytes, sizeof bytes, "state%d", k);
        bool keeps = k % 2 == 0; /* 0, 2, 4 */
        CompletionRow completion = completion_at(0, 0);
        StepRecord record =
            record_at(attempt, k, &metric, 1, &completion, 1, keeps ? bytes : NULL, 6);
        record.keep_checkpoints = 2;
        record.events = &event;
        record.n_events = 1;
        assert_ok(store_steps(store, &record, 1, error));
    }
    assert_string_equal(ask(store, "SELECT group_concat(step) FROM checkpoint"), "\"2,4\"\r\n");
    Evaluation evaluations[] = {
        {.run_id = info.run_id, .step = 4, .task = "dev", .extractor = "flexible", .n = 2},
        {.run_id = info.run_id, .step = 5, .task = "dev", .extractor = "flexible", .n = 2}};
    EvalSample sample = {.text = "a", .n_text = 1, .answer = "2", .extractor = "flexible"};
    assert_ok(store_evaluations(store, evaluations, 1, &sample, 1, 1.0, error));
    assert_ok(store_evaluations(store, evaluations + 1, 1, &sample, 1, 1.0, error));
    store_close(store);

    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    assert_ok(store_attempt_begin(store, info.run_id, &worker, 30.0, 60.0, &again, error));
    assert_int_equal(again, 2);
    assert_ok(store_resume(store, info.run_id, 9, &step, &blob, &n, &damaged, error));
    assert_int_equal(damaged, -1);
    assert_int_equal(step, 4);
    assert_int_equal(n, 6);
    assert_memory_equal(blob, "state4", 6);
    free(blob);
    assert_string_equal(
        ask(store, "SELECT (SELECT max(step) FROM metric), (SELECT max(step) FROM completion), "
                   "(SELECT max(step) FROM event), (SELECT max(step) FROM evaluation), "
                   "(SELECT max(step) FROM eval_sample), (SELECT max(step) FROM eval_completion), "
                   "(SELECT count(*) FROM eval_verdict), (SELECT last_step FROM run)"),
        "4,4,4,4,4,4,1,4\r\n");
    assert_string_equal(ask(store, "SELECT n, how FROM attempt"), "1,lost\r\n2,\r\n");
    assert_ok(store_checkpoint_at(store, info.run_id, 2, &blob, &n, error));
    assert_memory_equal(blob, "state2", 6);
    free(blob);
    Error told = {{0}};
    assert_int_equal(store_checkpoint_at(store, info.run_id, 3, &blob, &n, &told), STATUS_FAILED);
    assert_says(&told, "no checkpoint of step 3");

    assert_ok(store_attempt_end(store, info.run_id, again, "stopped", 40.0, error));
    assert_string_equal(ask(store, "SELECT state FROM run"), "waiting\r\n");
    assert_ok(store_run_end(store, info.run_id, RUN_FAILED, "loss is NaN", NAN, NAN, 41.0, error));
    assert_string_equal(ask(store, "SELECT state, reason, objective FROM run"),
                        "failed,loss is NaN,\r\n");
    store_close(store);
}

static void a_live_worker_elsewhere_is_respected_until_its_heartbeat_is_old(void **state)
{
    (void)state;
    int64_t attempt;
    Store *store = open_with_run(&attempt); /* h1, heartbeat at 3 */
    Worker other = {.host = "h2", .pid = 12, .boot_id = "boot-2", .environment = "{}"};
    Error told = {{0}};
    assert_int_equal(store_attempt_begin(store, info.run_id, &other, 50.0, 60.0, &attempt, &told),
                     STATUS_FAILED);
    assert_says(&told, "process 11 on h1 works on it (last seen 47 s ago)");
    assert_int_equal(attempt, 1);
    assert_ok(store_attempt_begin(store, info.run_id, &other, 64.0, 60.0, &attempt, error));
    assert_int_equal(attempt, 2);
    assert_string_equal(ask(store, "SELECT n, coalesce(how, 'open') FROM attempt"),
                        "1,lost\r\n2,open\r\n");
    /* same host after a reboot: nobody can be alive */
    other.boot_id = "boot-3";
    assert_ok(store_attempt_begin(store, info.run_id, &other, 65.0, 60.0, &attempt, error));
    assert_int_equal(attempt, 3);
    /* another container of this machine: the writer's lock is ours, so the one before is dead */
    other.host = "container-2";
    assert_ok(store_attempt_begin(store, info.run_id, &other, 66.0, 60.0, &attempt, error));
    assert_int_equal(attempt, 4);
    assert_int_equal(store_attempt_begin(store, "nope", &other, 65.0, 60.0, &attempt, &told),
                     STATUS_FAILED);
    assert_says(&told, "there is no run nope");
    store_close(store);
}

static void a_clock_that_jumps_keeps_nobody_out(void **state)
{
    (void)state;
    int64_t attempt;
    Worker other = {.host = "h2", .pid = 12, .boot_id = "boot-2", .environment = "{}"};
    Store *store = open_with_run(&attempt); /* h1, heartbeat at 3 */
    Error told = {{0}};
    /* ours went back a little: it may be alive */
    assert_int_equal(store_attempt_begin(store, info.run_id, &other, -40.0, 60.0, &attempt, &told),
                     STATUS_FAILED);
    /* by years: nothing is known */
    assert_ok(store_attempt_begin(store, info.run_id, &other, -1e8, 60.0, &attempt, error));
    assert_int_equal(attempt, 2);
    /* where the lock reaches everybody, the clock is not asked */
    other.host = "h3";
    other.boot_id = "boot-3";
    assert_ok(store_attempt_begin(store, info.run_id, &other, -1e8, 0, &attempt, error));
    assert_int_equal(attempt, 3);
    store_close(store);
}

static void the_base_stands_among_the_best_runs(void **state)
{
    (void)state;
    int64_t attempt;
    Store *store = open_with_run(&attempt);
    const char *base = "base:0123456789abcdef:77";
    Evaluation bases[] = {{.run_id = base,
                           .task = "test",
                           .extractor = "flexible",
                           .n = 4,
                           .value = 0.35,
                           .standard_error = 0.1,
                           .base_value = NAN,
                           .p_value = NAN,
                           .model = "abacus"},
                          {.run_id = base,
                           .task = "test",
                           .extractor = "strict",
                           .n = 4,
                           .value = 0.25,
                           .base_value = NAN,
                           .p_value = NAN}};
    EvalSample samples[] = {
        {.row = 1,
         .text = "b",
         .n_text = 1,
         .answer = "2",
         .extractor = "flexible",
         .correct = true,
         .score = 1},
        {.row = 0, .text = "a", .n_text = 1, .answer = "2", .extractor = "flexible"},
        {.row = 0, .text = "a", .n_text = 1, .answer = "2", .extractor = "strict"}};
    assert_ok(store_evaluations(store, bases, 2, samples, 3, 5.0, error));
    Evaluation runs[] = {{.run_id = info.run_id,
                          .step = 50,
                          .task = "test",
                          .extractor = "flexible",
                          .n = 4,
                          .value = 0.9,
                          .base_value = 0.35,
                          .p_value = 0.5},
                         {.run_id = info.run_id,
                          .step = 100,
                          .task = "test",
                          .extractor = "flexible",
                          .n = 4,
                          .value = 0.6,
                          .base_value = 0.35,
                          .p_value = 0.004},
                         {.run_id = info.run_id,
                          .step = 100,
                          .task = "test",
                          .extractor = "strict",
                          .n = 4,
                          .value = 0.125,
                          .base_value = 0.25,
                          .p_value = NAN}};
    assert_ok(store_evaluations(store, runs, 3, NULL, 0, 6.0, error));
    assert_ok(store_evaluations(store, runs, 3, NULL, 0, 7.0, error)); /* replaces */
    assert_string_equal(
        ask(store,
            "SELECT experiment, extractor, place, kind, run_id, step, round(gain, 6), p_value "
            "FROM best_runs"),
        "e,flexible,1,run,00aa11bb22cc33dd,100,0.25,0.0040000000000000001\r\n"
        "e,flexible,2,base,base:0123456789abcdef:77,0,,\r\n"
        "e,strict,1,base,base:0123456789abcdef:77,0,,\r\n"
        "e,strict,2,run,00aa11bb22cc33dd,100,-0.125,\r\n");

    bool found = false;
    Evaluation numbers;
    assert_ok(store_has_evaluation(store, base, 0, "test", "strict", &found, &numbers, error));
    assert_true(found);
    assert_true(numbers.value == 0.25 && isnan(numbers.p_value) && numbers.n == 4);
    assert_ok(store_has_evaluation(store, base, 1, "test", "strict", &found, NULL, error));
    assert_false(found);
    uint8_t *correct = NULL;
    size_t n = 0;
    assert_ok(store_eval_verdicts(store, base, 0, "test", "flexible", &correct, &n, error));
    assert_int_equal(n, 2);
    assert_int_equal(correct[0], 0);
    assert_int_equal(correct[1], 1);
    free(correct);
    double *scores = NULL;
    assert_ok(store_eval_scores(store, base, 0, "test", "flexible", &scores, &n, error));
    assert_true(n == 2 && scores[0] == 0 && scores[1] == 1);
    free(scores);

    assert_string_equal(ask(store, "SELECT extractor, row, text, answer, correct FROM eval_sample "
                                   "ORDER BY extractor, row"),
                        "flexible,0,a,2,0\r\nflexible,1,b,2,1\r\nstrict,0,a,2,0\r\n");
    assert_string_equal(ask(store, "SELECT count(*) FROM eval_completion"), "2\r\n");

    Error told = {{0}};
    samples[1].extractor = "boxed";
    assert_int_equal(store_evaluations(store, bases, 2, samples, 3, 5.0, &told), STATUS_FAILED);
    assert_says(&told, "samples under \"boxed\", which was not evaluated");
    runs[0].run_id = "mistyped";
    assert_int_equal(store_evaluations(store, runs, 1, NULL, 0, 7.0, &told), STATUS_FAILED);
    assert_says(&told, "evaluation of mistyped, step 50: FOREIGN KEY");
    store_close(store);
}

static void runs_are_found_by_the_start_of_their_id(void **state)
{
    (void)state;
    int64_t attempt, last;
    RunState run_state;
    Store *store = open_with_run(&attempt);
    RunInfo other = info;
    other.run_id = "00aa99";
    assert_ok(store_run(store, &other, 2.0, &run_state, &last, error));
    StoredRun run;
    Error told = {{0}};
    assert_ok(store_find_run(store, "00aa1", &run, error));
    assert_string_equal(run.run_id, info.run_id);
    assert_string_equal(run.experiment, "e");
    assert_string_equal(run.adapter, "tinylora");
    assert_int_equal(run.state, RUN_RUNNING);
    assert_int_equal(run.steps, 100);
    free(run.block);
    assert_int_equal(store_find_run(store, "00aa", &run, &told), STATUS_USAGE);
    assert_says(&told, "\"00aa\" begins more than one run's id");
    assert_int_equal(store_find_run(store, "ff", &run, &told), STATUS_USAGE);
    assert_says(&told, "no run \"ff\"");
    assert_int_equal(store_find_run(store, "%", &run, &told), STATUS_USAGE);
    store_close(store);
}

static void seeds_of_a_cell_are_taken_together(void **state)
{
    (void)state;
    int64_t attempt, last;
    RunState run_state;
    Store *store = open_with_run(&attempt);
    RunInfo other = info;
    other.run_id = "11bb";
    other.seed = 8;
    assert_ok(store_run(store, &other, 2.0, &run_state, &last, error));
    assert_ok(store_run_end(store, info.run_id, RUN_DONE, NULL, 0.2, 0.01, 9.0, error));
    assert_ok(store_run_end(store, "11bb", RUN_DONE, NULL, 0.4, 0.01, 9.0, error));
    other.run_id = "22cc";
    other.lr = 0.5;
    assert_ok(store_run(store, &other, 2.0, &run_state, &last, error));
    assert_ok(store_run_end(store, "22cc", RUN_FAILED, "NaN", NAN, NAN, 9.0, error));
    assert_string_equal(ask(store, "SELECT lr, runs, done, failed, round(objective, 12), "
                                   "round(seed_se, 12), lowest, highest FROM sweep_summary"),
                        "0.00020000000000000001,2,2,0,0.29999999999999999,0.10000000000000001,"
                        "0.20000000000000001,0.40000000000000002\r\n0.5,1,0,1,,,,\r\n");
    assert_string_equal(ask(store, "SELECT value FROM run_show WHERE run_id = '22cc' AND key IN "
                                   "('state', 'reason')"),
                        "failed\r\nNaN\r\n");
    store_close(store);
}

static void a_damaged_checkpoint_is_passed_over_and_told(void **state)
{
    (void)state;
    int64_t attempt, step, damaged;
    void *blob = NULL;
    size_t n = 0;
    Metric metric = {"reward", 0.25};
    Store *store = open_with_run(&attempt);
    for (int k = 0; k < 4; k++) {
        char bytes[24];
        snprintf(bytes, sizeof bytes, "state%d", k);
        StepRecord record = record_at(attempt, k, &metric, 1, NULL, 0, bytes, 6);
        assert_ok(store_steps(store, &record, 1, error));
    }
    store_close(store);
    damage("UPDATE checkpoint SET bytes = CAST('stat33' AS BLOB) WHERE step >= 2");
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    Error told = {{0}};
    assert_int_equal(store_checkpoint(store, info.run_id, &step, &blob, &n, &told), STATUS_REFUSED);
    assert_says(&told, "the checkpoint of step 3 does not match its checksum");
    assert_int_equal(store_checkpoint_at(store, info.run_id, 2, &blob, &n, &told), STATUS_REFUSED);
    assert_ok(store_resume(store, info.run_id, 50, &step, &blob, &n, &damaged, error));
    assert_int_equal(step, 1);
    assert_int_equal(damaged, 3);
    assert_memory_equal(blob, "state1", 6);
    free(blob);
    assert_string_equal(ask(store, "SELECT max(step), (SELECT max(step) FROM checkpoint), (SELECT "
                                   "last_step FROM run) FROM metric"),
                        "1,1,1\r\n");
    assert_string_equal(ask(store, "SELECT step, kind, message, at FROM event"),
                        "1,damaged,the checkpoint of step 3 did not match its checksum: gone on "
                        "from step 1,50\r\n");
    store_close(store);

    /* none is whole: from the start, once more */
    damage("UPDATE checkpoint SET sha256 = 'x'");
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    assert_ok(store_resume(store, info.run_id, 51, &step, &blob, &n, &damaged, error));
    assert_int_equal(step, -1);
    assert_int_equal(damaged, 1);
    assert_null(blob);
    assert_string_equal(ask(store, "SELECT count(*), (SELECT count(*) FROM checkpoint), (SELECT "
                                   "last_step FROM run) FROM metric"),
                        "0,0,-1\r\n");
    store_close(store);
}

static void a_null_that_the_schema_does_not_allow_is_an_empty_text(void **state)
{
    (void)state;
    int64_t attempt, step;
    void *blob = NULL;
    size_t n = 0;
    bool sound = true;
    StoredRun run;
    Text report = {0};
    Metric metric = {"reward", 0.25};
    Store *store = open_with_run(&attempt);
    StepRecord record = record_at(attempt, 0, &metric, 1, NULL, 0, "state0", 6);
    assert_ok(store_steps(store, &record, 1, error));
    store_close(store);
    damage("PRAGMA foreign_keys = OFF; CREATE TEMP TABLE r AS SELECT * FROM run; DROP TABLE run; "
           "CREATE TABLE run AS SELECT * FROM r; CREATE UNIQUE INDEX i ON run(run_id); "
           "UPDATE run SET config = NULL, identity = NULL; "
           "CREATE TEMP TABLE c AS SELECT * FROM checkpoint; DROP TABLE checkpoint; "
           "CREATE TABLE checkpoint AS SELECT * FROM c; UPDATE checkpoint SET sha256 = NULL");
    assert_ok(store_open(&store, path, STORE_READ, 0, error));
    assert_ok(store_find_run(store, info.run_id, &run, error));
    assert_string_equal(run.config, "");
    free(run.block);
    assert_int_equal(store_checkpoint(store, info.run_id, &step, &blob, &n, NULL), STATUS_REFUSED);
    assert_ok(store_check(store, &sound, &report, error));
    assert_false(sound);
    text_release(&report);
    store_close(store);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(a_run_is_stored_once_and_keeps_its_state),
        TEST(a_step_is_whole_and_comes_once),
        TEST(resuming_drops_what_is_later_than_the_checkpoint),
        TEST(a_damaged_checkpoint_is_passed_over_and_told),
        TEST(a_null_that_the_schema_does_not_allow_is_an_empty_text),
        TEST(a_live_worker_elsewhere_is_respected_until_its_heartbeat_is_old),
        TEST(a_clock_that_jumps_keeps_nobody_out),
        TEST(the_base_stands_among_the_best_runs),
        TEST(runs_are_found_by_the_start_of_their_id),
        TEST(seeds_of_a_cell_are_taken_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
