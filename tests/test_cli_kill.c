/* SIGKILL at random instants over GRPO, SFT (in f32, and in f16), a sweep and an evaluation, and a
 * stop after every single step: the file ends with the rows of an undisturbed one. 40 instants;
 * $TINYLORA_KILLS sets another number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "results/database.h"
#include "tests/cli_dump.h"

#define COMMON                                                                                     \
    "\"experiment\": \"kill\", \"model\": \"abacus\", \"adapter\": {\"budget\": 13},\n"            \
    " \"data\": {\"train\": \"" TRAIN "\", \"dev\": \"" SOURCE_DIR "/models/abacus/dev.jsonl\"}"
#define GRPO                                                                                       \
    ", \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 3, \"max_new_tokens\": 8, "             \
    "\"updates_per_batch\": 2, \"kl_beta\": 0.05}, \"optimizer\": {\"lr\": 0.02}"

/* The first updates are beyond f16: the scale falls; later it rises and falls again. */
#define F16                                                                                        \
    ", \"method\": \"sft\", \"sft\": {\"batch_size\": 2}, \"engine\": {\"precision\": \"f16\", "   \
    "\"loss_scale\": 16777216, \"loss_scale_window\": 3}"

static const struct {
    const char *name, *file, *config, *command;
} phases[] = {
    {"grpo", "grpo.json", "{" COMMON GRPO ", \"steps\": 8, \"eval\": {\"every\": 2, \"rows\": 3}}",
     "grpo grpo.json"},
    {"sft", "sft.json",
     "{" COMMON ", \"method\": \"sft\", \"steps\": 12, \"sft\": {\"batch_size\": 2}, \"eval\": "
     "{\"every\": 3, \"rows\": 3}}",
     "sft sft.json"},
    {"sft in f16", "f16.json",
     "{" COMMON F16 ", \"steps\": 12, \"eval\": {\"every\": 3, \"rows\": 3}}", "sft f16.json"},
    {"sweep", "sweep.json",
     "{" COMMON GRPO ", \"steps\": 5, \"eval\": {\"every\": 2, \"rows\": 3}, \"sweep\": "
     "{\"optimizer.lr\": [0.3, 0.02, 1e-3], \"seed\": [2, 3]}}",
     "sweep sweep.json"},
    {"eval", "grpo.json", NULL,
     "eval grpo.json --data '" SOURCE_DIR "/models/abacus/dev.jsonl' --rows 40 --samples 2"},
};
enum { N_PHASES = sizeof phases / sizeof phases[0], N_STEPS = 24 };

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void copy(const char *from, const char *to)
{
    char command[200];
    forget(to);
    snprintf(command, sizeof command, "test ! -e %s || cp %s %s", from, from, to);
    assert_int_equal(system(command), 0);
}

static void arguments_of(char arguments[400], const char *db, int phase)
{
    snprintf(arguments, 400, "--db %s --threads 1 %s", db, phases[phase].command);
}

/* One phase killed until it was n_kills times; whole: the dump after it. Returns the kills. */
static void kill_phase(int phase, int n_kills, double phase_s, const char *before,
                       const char *whole)
{
    char arguments[400];
    int n = 0, n_ends = 0;
    arguments_of(arguments, "killed.db", phase);
    copy(before, "killed.db");
    while (n < n_kills) {
        pid_t pid = run_start("", arguments);
        usleep((useconds_t)(1e6 * phase_s * 0.8 * rand() / RAND_MAX) + 1000);
        kill(pid, SIGKILL);
        Run r = run_wait(pid);
        assert_true(r.code == 0 || r.code == 1000 + SIGKILL);
        n += r.code != 0;
        if (r.code == 0) {
            assert_dump(whole, "killed.db");
            copy(before, "killed.db");
            phase_s *= 0.9; /* it was measured in a busier minute */
            n_ends++;
        }
        run_free(&r);
    }
    expect_ok(arguments);
    assert_dump(whole, "killed.db");
    expect_ok("--db killed.db db check");
    print_message("%s: %d kills, %d ends\n", phases[phase].name, n, n_ends);
    fflush(stdout);
}

static void killed_at_random_instants_it_ends_in_the_same_rows(void **state)
{
    (void)state;
    const char *wanted = getenv("TINYLORA_KILLS");
    int n_kills = wanted ? atoi(wanted) : 40;
    unsigned seed = (unsigned)time(NULL);
    char before[32] = "none.db", after[32], arguments[400];
    print_message("seed %u\n", seed);
    srand(seed);
    for (int phase = 0; phase < N_PHASES; phase++) {
        if (phases[phase].config) {
            run_write(phases[phase].file, phases[phase].config);
        }
        snprintf(after, sizeof after, "after-%d.db", phase);
        copy(before, after);
        arguments_of(arguments, after, phase);
        double began = seconds();
        expect_ok(arguments);
        double phase_s = seconds() - began;
        char *whole = dump_runs(after);
        kill_phase(phase, (n_kills + phase) / N_PHASES, phase_s, before, whole);
        free(whole);
        strcpy(before, after);
    }
}

/* The file as a process leaves it that dies after the step, before (or after) its evaluation. */
static void cut_after(const char *db, int step, bool evaluated)
{
    static const char *const tables[] = {"metric", "completion", "checkpoint", "event"};
    static const char *const scores[] = {"evaluation", "eval_completion"};
    Database *database = NULL;
    Error error = {{0}};
    Text sql = {0};
    for (size_t i = 0; i < 4; i++) {
        text_printf(&sql, "DELETE FROM %s WHERE step > %d;", tables[i], step);
    }
    for (size_t i = 0; i < 2; i++) {
        text_printf(&sql, "DELETE FROM %s WHERE run_id NOT LIKE 'base:%%' AND step > %d;",
                    scores[i], evaluated ? step : step - 1);
    }
    text_printf(&sql,
                "UPDATE run SET state = 'running', objective = NULL, objective_se = NULL, ended_at "
                "= NULL, last_step = %d WHERE kind = 'run';"
                "UPDATE attempt SET ended_at = NULL, how = NULL, to_step = %d;",
                step, step);
    assert_int_equal(database_open(&database, db, DATABASE_WRITE, &error), STATUS_OK);
    if (database_execute(database, "PRAGMA foreign_keys = ON", &error) ||
        database_execute(database, sql.bytes, &error)) {
        fail_msg("%s", error.message);
    }
    database_close(database);
    text_release(&sql);
}

/* command: on steps.json, a run of N_STEPS */
static void check_every_step(const char *command)
{
    char once[200], again[200];
    snprintf(once, sizeof once, "--db steps.db %s steps.json --threads 1", command);
    snprintf(again, sizeof again, "--db cut.db %s steps.json --threads 1", command);
    forget("steps.db");
    expect_ok(once);
    char *whole = dump_runs("steps.db");
    for (int step = 0; step < N_STEPS; step++) {
        copy("steps.db", "cut.db");
        cut_after("cut.db", step, step % 8 == 0);
        expect_ok(again);
        assert_dump(whole, "cut.db");
        char sql[200];
        snprintf(sql, sizeof sql,
                 "SELECT count(*) FROM attempt WHERE (n = 1 AND how = 'lost') OR (n = 2 AND how = "
                 "'done' AND from_step = %d AND to_step = %d)",
                 step, N_STEPS);
        assert_int_equal(ask_number("cut.db", sql), 2);
    }
    free(whole);
}

static void it_goes_on_from_every_step_without_doubling_or_dropping_one(void **state)
{
    (void)state;
    run_write("steps.json",
              "{" COMMON GRPO ", \"steps\": 24, \"eval\": {\"every\": 4, \"rows\": 2}}");
    check_every_step("grpo");
}

static void it_goes_on_through_skipped_updates(void **state)
{
    (void)state;
    run_write("steps.json",
              "{" COMMON F16 ", \"steps\": 24, \"eval\": {\"every\": 8, \"rows\": 2}}");
    check_every_step("sft");
    const char *const skipped = "SELECT count(*) FROM event WHERE kind = 'overflow'";
    const char *const updates =
        "SELECT sum(value) FROM metric WHERE key = 'skipped_updates' AND value IN (0, 1)";
    assert_true(ask_number("steps.db", skipped) >= 3);
    assert_int_equal(ask_number("steps.db", updates), ask_number("steps.db", skipped));
    assert_int_equal(ask_number("steps.db", "SELECT count(*) FROM metric m JOIN metric n USING "
                                            "(run_id, step) WHERE m.key = 'skipped_updates' AND "
                                            "n.key = 'loss_scale'"),
                     N_STEPS);
}

/* Activations beyond f16: no scale is small enough. */
static void an_overflow_that_never_ends_is_a_failed_run_with_its_reason(void **state)
{
    (void)state;
    run_write("never.json",
              "{" COMMON F16 ", \"steps\": 60, \"eval\": {\"every\": 0, \"rows\": 2}}");
    forget("never.db");
    Run r = run("--db never.db sft never.json --set adapter.init=normal --set "
                "adapter.init_size=30000");
    assert_int_equal(r.code, 1);
    assert_non_null(strstr(r.err, "failed: step 25: the gradient is not finite"));
    run_free(&r);
    assert_int_equal(ask_number("never.db", "SELECT count(*) FROM event WHERE kind = 'failed' AND "
                                            "message LIKE '%beyond f16%bf16 has the range%'"),
                     1);
    assert_int_equal(ask_number("never.db", "SELECT count(*) FROM metric WHERE key = "
                                            "'skipped_updates' AND value = 1"),
                     24);
}

static void two_processes_on_one_run_do_it_once(void **state)
{
    (void)state;
    run_write("grpo.json", phases[0].config);
    forget("one.db");
    forget("two.db");
    expect_ok("--db one.db grpo grpo.json --threads 1");
    char *whole = dump_runs("one.db");
    for (int i = 0; i < 3; i++) {
        pid_t first = run_start("", "--db two.db grpo grpo.json --threads 1");
        usleep(40000u * (useconds_t)i);
        pid_t second = run_start("", "--db two.db grpo grpo.json --threads 1");
        Run r = run_wait(first), s = run_wait(second);
        /* The later one waits for the other to end; where that takes too long it says for whom. */
        assert_true(r.code == 0 ||
                    (r.code == 1 && strstr(r.err, "another process writes to it (")));
        assert_true(s.code == 0 ||
                    (s.code == 1 && strstr(s.err, "another process writes to it (")));
        assert_true(r.code == 0 || s.code == 0);
        run_free(&r);
        run_free(&s);
        assert_dump(whole, "two.db");
        assert_int_equal(ask_number("two.db", "SELECT count(*) FROM attempt"), 1);
        forget("two.db");
    }
    free(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_random_instants_it_ends_in_the_same_rows),
        cmocka_unit_test(it_goes_on_from_every_step_without_doubling_or_dropping_one),
        cmocka_unit_test(it_goes_on_through_skipped_updates),
        cmocka_unit_test(an_overflow_that_never_ends_is_a_failed_run_with_its_reason),
        cmocka_unit_test(two_processes_on_one_run_do_it_once),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
