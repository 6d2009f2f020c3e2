/* Ends before the end: signals, the time limit, a database that somebody keeps locked, and the
 * rules of stop.*. What was committed stays, and the same command goes on to the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "results/database.h"
#include "tests/cli_dump.h"

#define CONFIG                                                                                     \
    "{\"experiment\": \"stop\", \"model\": \"abacus\", \"adapter\": {\"budget\": 13},\n"           \
    " \"data\": {\"train\": \"" TRAIN "\", \"dev\": \"" SOURCE_DIR                                 \
    "/models/abacus/dev.jsonl\"}, \"eval\": {\"every\": 2, \"rows\": 16},\n"                       \
    " \"grpo\": {\"prompts_per_step\": 4, \"group_size\": 4, \"max_new_tokens\": 24},\n"           \
    " \"steps\": 6, \"optimizer\": {\"lr\": 0.02}"

static char *reference;
static double reference_s;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int make_reference(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("stop.json", CONFIG "}");
    run_write("rules.json",
              CONFIG ", \"sweep\": {\"stop.reward_below\": [-1e30, 2], \"stop.patience\": [3]}}");
    double began = seconds();
    expect_ok("--db whole.db grpo stop.json");
    reference_s = seconds() - began;
    reference = dump_runs("whole.db");
    return 0;
}

static int drop_reference(void **state)
{
    free(reference);
    return run_teardown(state);
}

/* How its attempts ended, as far as it began. */
static void assert_attempts_are_closed(const char *db)
{
    if (access(db, F_OK) == 0) {
        assert_int_equal(ask_number(db,
                                    "SELECT count(*) FROM attempt WHERE how IS NOT NULL AND how "
                                    "NOT IN ('stopped', 'done', 'lost')"),
                         0);
    }
}

static void every_signal_stops_it_and_the_same_command_goes_on(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    unsigned seed = (unsigned)time(NULL);
    double longest = 0;
    int n_stopped = 0;
    print_message("seed %u\n", seed);
    srand(seed);
    for (int i = 0; i < 12; i++) {
        pid_t pid = run_start("", "--db stopped.db grpo stop.json");
        usleep((useconds_t)(1e6 * reference_s * 0.7 * rand() / RAND_MAX) + 30000);
        double sent = seconds();
        kill(pid, signals[i % 4]);
        Run r = run_wait(pid);
        double took = seconds() - sent;
        if (r.code == 4) {
            n_stopped++;
            longest = took > longest ? took : longest;
            assert_non_null(strstr(r.err, "tinylora: stopped"));
        } else if (r.code != 0 && r.code != 1000 + signals[i % 4]) { /* before it caught signals */
            fail_msg("exit code %d: %s", r.code, r.err);
        }
        run_free(&r);
        assert_attempts_are_closed("stopped.db");
        if (r.code == 0) {
            assert_dump(reference, "stopped.db");
            forget("stopped.db");
        }
    }
    print_message("%d stops, the longest took %.2f s\n", n_stopped, longest);
    expect_ok("--db stopped.db grpo stop.json");
    assert_dump(reference, "stopped.db");
}

static void a_second_signal_ends_it_at_once(void **state)
{
    (void)state;
    forget("twice.db");
    pid_t pid = run_start("", "--db twice.db grpo stop.json --set grpo.max_new_tokens=64");
    usleep((useconds_t)(1e6 * reference_s * 0.4));
    kill(pid, SIGTERM);
    usleep(2000);
    kill(pid, SIGINT);
    Run r = run_wait(pid);
    assert_true(r.code == 128 + SIGINT || r.code == 4);
    run_free(&r);
    if (access("twice.db", F_OK) == 0) {
        expect_ok("--db twice.db db check");
    }
}

static void the_time_limit_stops_it(void **state)
{
    (void)state;
    char command[100];
    int code = 4;
    forget("limit.db");
    for (int i = 0; code == 4; i++) { /* longer each time: it comes to its end */
        snprintf(command, sizeof command, "--db limit.db --max-time %g grpo stop.json",
                 reference_s * (0.2 + 0.2 * i));
        Run r = run(command);
        code = r.code;
        assert_true(code == 4 || code == 0);
        run_free(&r);
    }
    assert_dump(reference, "limit.db");
}

static void it_stops_while_another_program_keeps_the_database_locked(void **state)
{
    (void)state;
    Database *database = NULL;
    Error error = {{0}};
    forget("locked.db");
    Run r = run("--db locked.db --max-time 0.5 grpo stop.json");
    run_free(&r);
    if (access("locked.db", F_OK) != 0) {
        assert_int_equal(system("cp whole.db locked.db"), 0);
    }
    assert_int_equal(database_open(&database, "locked.db", DATABASE_WRITE, &error), STATUS_OK);
    assert_int_equal(database_begin(database, &error), STATUS_OK);
    pid_t pid = run_start("", "--db locked.db grpo stop.json");
    usleep(700000);
    kill(pid, SIGTERM);
    r = run_wait(pid);
    assert_true(r.code == 4 || r.code == 1000 + SIGTERM);
    run_free(&r);
    database_rollback(database);
    database_close(database);
    expect_ok("--db locked.db grpo stop.json");
    assert_dump(reference, "locked.db");
}

static void a_run_whose_reward_collapses_is_cancelled_and_the_sweep_goes_on(void **state)
{
    (void)state;
    forget("rules.db");
    for (int i = 0; i < 2; i++) { /* a kill on the way does not show */
        pid_t pid = run_start("", "--db rules.db sweep rules.json");
        usleep((useconds_t)(1e6 * reference_s * 0.4 * (1 + i)));
        kill(pid, SIGKILL);
        Run r = run_wait(pid);
        run_free(&r);
    }
    expect_ok("--db rules.db sweep rules.json");
    char *answer = ask("rules.db", "SELECT state, last_step, reason FROM run WHERE kind = 'run' "
                                   "ORDER BY state");
    assert_string_equal(answer, "cancelled,3,step 3: the reward was below 2 for 3 steps "
                                "(stop.reward_below)\r\ndone,6,");
    free(answer);
    answer = ask("rules.db", "SELECT step, kind, message FROM event");
    assert_string_equal(
        answer, "3,cancelled,step 3: the reward was below 2 for 3 steps (stop.reward_below)");
    free(answer);
    /* Off, the rules are not part of what a run is. */
    char *one = ask("rules.db", "SELECT run_id FROM run WHERE state = 'done' AND kind = 'run'");
    char *other = ask("whole.db", "SELECT run_id FROM run WHERE kind = 'run'");
    assert_string_equal(one, other);
    free(one);
    free(other);
    Run r = expect("--db rules.db sweep rules.json", 0); /* it stays cancelled */
    assert_non_null(strstr(r.err, "1 of 2 runs done, 0 of them now"));
    assert_non_null(strstr(r.err, "1 cancelled"));
    run_free(&r);
    char *cancelled = ask("rules.db", "SELECT run_id FROM run WHERE state = 'cancelled'");
    char command[100];
    snprintf(command, sizeof command, "--db rules.db replay %s", cancelled);
    expect_ok(command);
    free(cancelled);
}

static void a_run_whose_entropy_collapses_is_cancelled(void **state)
{
    (void)state;
    forget("entropy.db");
    expect_ok("--db entropy.db grpo stop.json --set stop.entropy_below=100 --set stop.patience=1");
    char *reason = ask("entropy.db", "SELECT reason FROM run WHERE kind = 'run'");
    assert_string_equal(reason,
                        "step 1: the entropy was below 100 for 1 step (stop.entropy_below)");
    free(reason);
    expect_ok("--db entropy.db sft stop.json --set method=sft --set stop.entropy_below=1e-9");
    assert_int_equal(ask_number("entropy.db", "SELECT count(*) FROM run WHERE state = 'done' AND "
                                              "method = 'sft'"),
                     1);
}

static void a_damaged_checkpoint_is_told_and_the_one_before_it_is_used(void **state)
{
    (void)state;
    Database *database = NULL;
    Error error = {{0}};
    forget("damaged.db");
    expect_ok("--db damaged.db grpo stop.json");
    assert_int_equal(database_open(&database, "damaged.db", DATABASE_WRITE, &error), STATUS_OK);
    assert_int_equal(
        database_execute(
            database,
            "UPDATE checkpoint SET bytes = zeroblob(n_bytes) WHERE step = 5; UPDATE run "
            "SET state = 'waiting', last_step = 5 WHERE kind = 'run'; DELETE FROM "
            "checkpoint WHERE step = 6",
            &error),
        STATUS_OK);
    database_close(database);
    Run r = expect("--db damaged.db grpo stop.json", 0);
    assert_non_null(strstr(r.err, "the checkpoint of step 5 is damaged; it goes on from step 4"));
    run_free(&r);
    char *event = ask("damaged.db", "SELECT step, kind, message FROM event");
    assert_string_equal(event,
                        "4,damaged,the checkpoint of step 5 did not match its checksum: gone "
                        "on from step 4");
    free(event);
    assert_int_equal(database_open(&database, "damaged.db", DATABASE_WRITE, &error), STATUS_OK);
    assert_int_equal(database_execute(database, "DELETE FROM event", &error), STATUS_OK);
    database_close(database);
    assert_dump(reference, "damaged.db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_signal_stops_it_and_the_same_command_goes_on),
        cmocka_unit_test(a_second_signal_ends_it_at_once),
        cmocka_unit_test(the_time_limit_stops_it),
        cmocka_unit_test(it_stops_while_another_program_keeps_the_database_locked),
        cmocka_unit_test(a_run_whose_reward_collapses_is_cancelled_and_the_sweep_goes_on),
        cmocka_unit_test(a_run_whose_entropy_collapses_is_cancelled),
        cmocka_unit_test(a_damaged_checkpoint_is_told_and_the_one_before_it_is_used),
    };
    return cmocka_run_group_tests(tests, make_reference, drop_reference);
}
