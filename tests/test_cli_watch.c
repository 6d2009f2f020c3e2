/* tinylora watch from outside, on a results.db whose writer is this test; and what else reads
 * surfaces: ls, show, db upgrade. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "core/json.h"
#include "results/database.h"
#include "tests/cli_run.h"
#include "tests/surface_test.h"

static void expect(const Run *r, int code, const char *words)
{
    if (r->code != code || !strstr(r->out, words)) {
        fail_msg("code %d, not %d with \"%s\": %s%s", r->code, code, words, r->out, r->err);
    }
}

/* The line of `out` with `word` has `words`. */
static void expect_line(const char *out, const char *word, const char *words)
{
    const char *line = strstr(out, word);
    const char *found = line ? strstr(line, words) : NULL;
    if (!found || found > line + strcspn(line, "\n")) {
        fail_msg("\"%s\" lacks \"%s\"", line ? line : out, words);
    }
}

static Store *begin_database(void)
{
    snprintf(path, sizeof path, "results.db");
    assert_int_equal(system("rm -f results.db*"), 0);
    return open_with_surface(STORE_WRITE);
}

static const char *const run_id = "00aa11bb22cc33dd", *const lost_id = "11bb22cc33dd44ee";

/* Two runs that are said to run: one by this process at step 30 of 100, half a second a step; one
 * whose process is gone. */
static int64_t begin_runs(Store *store)
{
    static const Param params[] = {{"optimizer.lr", "0.0002"}};
    RunInfo run_info = {.run_id = run_id,
                        .experiment = "e",
                        .identity = "{\"a\":1}",
                        .config = "{}",
                        .model = "abacus",
                        .method = "grpo",
                        .adapter = "tinylora",
                        .budget = 13,
                        .lr = 2e-4,
                        .seed = 7,
                        .steps = 100,
                        .params = params,
                        .n_params = 1};
    Worker here = worker_here(), gone = here;
    RunState state;
    int64_t last, attempt, ignored;
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    waitpid(child, NULL, 0);
    gone.pid = child;
    assert_ok(store_run(store, &run_info, 2.0, &state, &last, error));
    assert_ok(store_attempt_begin(store, run_id, &here, 1000.0, 60.0, &attempt, error));
    for (int step = 0; step <= 30; step++) {
        Metric metrics[] = {{"reward", step == 12 ? 0.75 : 0.5}, {"loss", 0.1}};
        StepRecord record = {.run_id = run_id,
                             .attempt = attempt,
                             .step = step,
                             .metrics = metrics,
                             .n_metrics = 2,
                             .now_s = 1000.0 + 0.5 * step};
        assert_ok(store_steps(store, &record, 1, error));
    }
    run_info.run_id = lost_id;
    run_info.identity = "{\"a\":2}";
    run_info.method = "sft";
    assert_ok(store_run(store, &run_info, 3.0, &state, &last, error));
    assert_ok(store_attempt_begin(store, lost_id, &gone, 1000.0, 60.0, &ignored, error));
    run_info.run_id = "22cc33dd44ee55ff";
    run_info.identity = "{\"a\":3}";
    assert_ok(store_run(store, &run_info, 4.0, &state, &last, error));
    assert_ok(store_run_end(store, run_info.run_id, RUN_DONE, NULL, 0.5, 0.1, 5.0, error));
    return attempt;
}

/* Row 0 done in 4 s, row 1 held by this process. */
static SurfaceLease begin_rows(Store *store)
{
    Worker here = worker_here();
    SurfaceMark base = {"base", "", "loss", 0, 0.0, 0.0, 0.0, 0.75};
    assert_ok(store_surface_marks(store, id, &base, 1, error));
    SurfaceLease lease = claim(store, &here, in_order, 1, 100.0);
    commit(store, &lease, 104.0);
    return claim(store, &here, in_order, 1, 104.0);
}

static void one_look_tells_runs_and_surfaces_for_people(void **state)
{
    (void)state;
    Store *store = begin_database();
    begin_runs(store);
    begin_rows(store);
    Run r = run("watch --once");
    char own[64];
    snprintf(own, sizeof own, "written to by pid %ld on ", (long)getpid());
    expect(&r, 0, own);
    expect(&r, 0, "e: 1 of 3 runs done, 2 running, 0 waiting, 0 failed");
    /* 70 steps of half a second */
    expect_line(r.out, run_id, "30    100   35s  reward   0.5  0.75     0.5  0.0002     7  ");
    expect_line(r.out, lost_id, "lost: ");
    /* 6 rows of 4 s by one process; the lowest of row 0 is sin(1.27 * 4) */
    expect_line(r.out, id,
                "1 of 7   24s  loss    -0.93319  (-0.3, 0.2)  0.75  1              4  7 x 5");
    assert_null(strstr(r.out, "\033"));
    assert_string_equal(r.err, "");
    run_free(&r);
    store_close(store);
}

static const Json *member(const Json *object, const char *name)
{
    const Json *value = json_get(object, name);
    if (!value) {
        fail_msg("no \"%s\"", name);
    }
    return value;
}

static double number(const Json *object, const char *name)
{
    double value = NAN;
    assert_true(json_double(member(object, name), &value));
    return value;
}

static void json_has_an_object_a_look(void **state)
{
    (void)state;
    Store *store = begin_database();
    begin_runs(store);
    begin_rows(store);
    Run r = run("-o json watch --once");
    Error told = {{0}};
    JsonDocument *document = NULL;
    assert_int_equal(r.code, 0);
    assert_int_equal(json_parse(&document, r.out, strcspn(r.out, "\n"), &told), STATUS_OK);
    assert_string_equal(strchr(r.out, '\n'), "\n");
    const Json *root = json_root(document);
    bool running = false;
    assert_true(json_bool(member(root, "running"), &running) && running);
    const Json *runs = member(root, "runs"), *surfaces = member(root, "surfaces");
    assert_int_equal(json_size(runs), 2);
    const Json *first = json_at(runs, 0);
    assert_string_equal(json_string(member(first, "run_id"), NULL), run_id);
    assert_string_equal(json_string(member(first, "process"), NULL), "alive");
    assert_true(number(first, "seconds_left") == 35);
    assert_true(number(first, "best") == 0.75);
    assert_string_equal(json_string(member(json_at(runs, 1), "process"), NULL), "lost");
    assert_int_equal(json_size(surfaces), 1);
    assert_true(number(json_at(surfaces, 0), "processes") == 1);
    assert_true(number(json_at(surfaces, 0), "seconds_left") == 24);
    assert_true(number(json_at(surfaces, 0), "rows_held") == 1);
    assert_true(number(json_at(member(root, "experiments"), 0), "done") == 1);
    json_free(document);
    run_free(&r);
    r = run("-o csv watch --once");
    assert_int_equal(r.code, 2);
    assert_non_null(strstr(r.err, "watch: -o: table, json and jsonl can be watched"));
    run_free(&r);
    store_close(store);
}

static size_t count_lines(const char *file)
{
    char *bytes = run_slurp(file);
    size_t n = 0;
    for (const char *at = bytes; *at; at++) {
        n += *at == '\n';
    }
    free(bytes);
    return n;
}

/* Until `watch` has looked n times more; patience for a slow machine. */
static void wait_for_looks(size_t n)
{
    size_t before = count_lines("stdout");
    for (int k = 0; k < 3000 && count_lines("stdout") < before + n; k++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    assert_true(count_lines("stdout") >= before + n);
}

static void it_follows_the_writer_and_ends_when_nothing_runs(void **state)
{
    (void)state;
    Store *store = begin_database();
    int64_t attempt = begin_runs(store);
    SurfaceLease lease = begin_rows(store);
    run_write("stdout", ""); /* not what an earlier one said */
    pid_t pid = run_start("", "-o jsonl watch --every 0.1");
    wait_for_looks(2);
    for (int step = 31; step < 60; step++) { /* the writer is not hindered */
        Metric metric = {"reward", 0.25};
        StepRecord record = {.run_id = run_id,
                             .attempt = attempt,
                             .step = step,
                             .metrics = &metric,
                             .n_metrics = 1,
                             .now_s = 1000.0 + 0.5 * step};
        assert_ok(store_steps(store, &record, 1, error));
    }
    wait_for_looks(2);
    char *seen = run_slurp("stdout");
    assert_non_null(strstr(seen, "\"step\": 30,"));
    assert_non_null(strstr(seen, "\"step\": 59,"));
    free(seen);
    assert_ok(store_attempt_end(store, run_id, attempt, "stopped", 1100.0, error));
    assert_ok(store_surface_release(store, id, &lease, error));
    wait_for_looks(2); /* the writer still holds its lock */
    store_close(store);
    Run r = run_wait(pid);
    assert_int_equal(r.code, 0);
    assert_string_equal(r.err, "nothing is running in \"results.db\"\n");
    const char *last = strstr(r.out, "\"running\": false");
    assert_non_null(last);
    assert_non_null(strstr(last, "\"process\": \"lost\"")); /* the other one still is */
    run_free(&r);
}

static void a_signal_ends_it_without_a_word(void **state)
{
    (void)state;
    Store *store = begin_database();
    begin_rows(store);
    run_write("stdout", ""); /* not what an earlier one said */
    pid_t pid = run_start("", "watch --every 3600");
    for (int k = 0; k < 3000 && count_lines("stdout") < 3; k++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    kill(pid, SIGINT);
    Run r = run_wait(pid);
    assert_int_equal(r.code, 4);
    assert_string_equal(r.err, "");
    run_free(&r);
    store_close(store);
}

static void a_file_that_is_not_there_is_told(void **state)
{
    (void)state;
    Run r = run("--db none.db watch");
    assert_int_equal(r.code, 1);
    assert_string_equal(r.err, "tinylora: \"none.db\": there are no results yet\n");
    run_free(&r);
    r = run("--db none.db db upgrade");
    assert_int_equal(r.code, 1);
    assert_string_equal(r.err, "tinylora: \"none.db\": there are no results yet\n");
    assert_int_not_equal(access("none.db", F_OK), 0);
    run_free(&r);
    r = run("watch --every 0");
    assert_int_equal(r.code, 2);
    run_free(&r);
}

static void a_name_from_the_file_cannot_harm_the_terminal(void **state)
{
    (void)state;
    Store *store = begin_database();
    SurfaceInfo other = surface_info;
    RunState surface_state;
    Worker here = worker_here();
    SurfaceLease lease;
    other.surface_id = "77";
    other.experiment = "\033[2Jred\xc2\x9b";
    assert_ok(store_experiment(store, other.experiment, "{}", 1.0, error));
    assert_ok(store_surface(store, &other, 3.0, &surface_state, error));
    assert_ok(store_surface_claim(store, "77", &here, in_order, NX, 1, 1.0, 1.0, &lease, error));
    Run r = run("watch --once");
    expect(&r, 0, "?[2Jred\xc2?");
    run_free(&r);
    store_close(store);
}

static void surfaces_are_listed_and_shown(void **state)
{
    (void)state;
    Store *store = begin_database();
    begin_runs(store);
    begin_rows(store);
    store_close(store);
    Run r = run("ls");
    expect(&r, 0, run_id);
    expect(&r, 0, "\n\nexperiment  surface_id        state");
    expect(&r, 0, "e           5a0f3c1d2e4b6a70  running  7 x 5  1 of 7");
    run_free(&r);
    r = run("-o json ls");
    expect(&r, 0, run_id);
    assert_null(strstr(r.out, id));
    run_free(&r);
    r = run("ls -o jsonl --surfaces --experiment e --state running");
    expect(&r, 0, "{\"experiment\": \"e\", \"surface_id\": \"5a0f3c1d2e4b6a70\", ");
    assert_null(strstr(r.out, run_id));
    run_free(&r);
    r = run("ls --surfaces --state done -o json");
    assert_string_equal(r.out, "[]\n");
    run_free(&r);
    r = run("show 5a0f -o json");
    expect(&r, 0, "{\"section\": \"surface\", \"key\": \"state\", \"value\": \"running\"}");
    expect(&r, 0, "\"key\": \"best loss\"");
    run_free(&r);
    r = run("show e"); /* the experiment's only surface */
    expect(&r, 0, "1 of 7 done, 1 at work, 5 waiting");
    run_free(&r);
    r = run("show 00aa");
    expect(&r, 0, "30 of 100");
    run_free(&r);
    r = run("show zz");
    assert_int_equal(r.code, 2);
    assert_non_null(strstr(r.err, "no run \"zz\"; no surface \"zz\"; there are: 5a0f3c1d2e4b6a70"));
    run_free(&r);
    /* an id that is the start of a run's and of a surface's */
    assert_ok(store_open(&store, path, STORE_WRITE, 1000, error));
    SurfaceInfo other = surface_info;
    RunState surface_state;
    other.surface_id = "00aa77";
    assert_ok(store_surface(store, &other, 3.0, &surface_state, error));
    store_close(store);
    r = run("show 00aa");
    assert_int_equal(r.code, 2);
    assert_non_null(strstr(r.err, "\"00aa\" begins run 00aa11bb22cc33dd and means surface 00aa77"));
    run_free(&r);
    r = run("show 00aa77");
    expect(&r, 0, "7 x 5");
    run_free(&r);
    r = run("db check");
    expect(&r, 0, "surfaces: ok");
    run_free(&r);
}

static void an_old_file_is_widened_when_asked(void **state)
{
    (void)state;
    Database *database = NULL;
    char *sql = run_slurp(SOURCE_DIR "/tests/data/results_v1.sql");
    unlink("old.db");
    assert_ok(database_open(&database, "old.db", DATABASE_CREATE, error));
    assert_ok(database_execute(database, sql, error));
    database_close(database);
    free(sql);
    Run r = run("--db old.db ls");
    assert_int_equal(r.code, 3);
    assert_non_null(strstr(r.err, "schema version 1 is older than this program's 4; `tinylora db "
                                  "upgrade` widens it"));
    run_free(&r);
    r = run("--db old.db db upgrade");
    assert_int_equal(r.code, 0);
    assert_string_equal(r.out, "\"old.db\" went from schema version 1 to 4\n");
    run_free(&r);
    r = run("--db old.db db upgrade");
    assert_int_equal(r.code, 0);
    assert_string_equal(r.out, "\"old.db\" has schema version 4 already: nothing to do\n");
    run_free(&r);
    r = run("--db old.db -o json db upgrade");
    assert_string_equal(r.out, "[{\"db\": \"old.db\", \"from\": 4, \"to\": 4}]\n");
    run_free(&r);
    r = run("--db old.db ls -o json");
    expect(&r, 0, "[]");
    run_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_look_tells_runs_and_surfaces_for_people),
        cmocka_unit_test(json_has_an_object_a_look),
        cmocka_unit_test(it_follows_the_writer_and_ends_when_nothing_runs),
        cmocka_unit_test(a_signal_ends_it_without_a_word),
        cmocka_unit_test(a_file_that_is_not_there_is_told),
        cmocka_unit_test(a_name_from_the_file_cannot_harm_the_terminal),
        cmocka_unit_test(surfaces_are_listed_and_shown),
        cmocka_unit_test(an_old_file_is_widened_when_asked),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
