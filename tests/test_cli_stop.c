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

static void change(const char *db, const char *sql)
{
    Database *database = NULL;
    Error error = {{0}};
    assert_int_equal(database_open(&database, db, DATABASE_WRITE, &error), STATUS_OK);
    assert_int_equal(database_execute(database, sql, &error), STATUS_OK);
    database_close(database);
}

/* Says both, leaves an event, and ends in the rows of the undisturbed run. */
static void goes_on_before_the_damage(const char *told, const char *event)
{
    Run r = expect("--db damaged.db grpo stop.json", 0);
    assert_non_null(strstr(r.err, told));
    run_free(&r);
    char *stored =
        ask("damaged.db", "SELECT step, kind, message FROM event WHERE kind = 'damaged'");
    assert_string_equal(stored, event);
    free(stored);
    change("damaged.db", "DELETE FROM event");
    assert_dump(reference, "damaged.db");
}

static void a_damaged_checkpoint_is_told_and_the_one_before_it_is_used(void **state)
{
    (void)state;
    forget("damaged.db");
    expect_ok("--db damaged.db grpo stop.json");
    change("damaged.db",
           "UPDATE checkpoint SET bytes = zeroblob(n_bytes) WHERE step = 5; UPDATE run "
           "SET state = 'waiting', last_step = 5 WHERE kind = 'run'; DELETE FROM "
           "checkpoint WHERE step = 6");
    goes_on_before_the_damage("the checkpoint of step 5 is damaged; it goes on from step 4",
                              "4,damaged,the checkpoint of step 5 did not match its checksum: "
                              "gone on from step 4");
}

static void a_run_that_is_done_goes_on_where_its_last_state_is_damaged(void **state)
{
    (void)state;
    forget("damaged.db");
    expect_ok("--db damaged.db grpo stop.json");
    change("damaged.db", "UPDATE checkpoint SET bytes = zeroblob(n_bytes) WHERE step >= 5");
    char *run_id = ask("damaged.db", "SELECT run_id FROM run WHERE kind = 'run'");
    char command[100];
    snprintf(command, sizeof command, "--db damaged.db eval --run %s", run_id);
    expect_refused(command, 3,
                   "the checkpoint of step 6 does not match its checksum; the command "
                   "that trained it goes on from the one before");
    free(run_id);
    goes_on_before_the_damage("the checkpoint of step 6 is damaged; it goes on from step 4",
                              "4,damaged,the checkpoint of step 6 did not match its checksum: "
                              "gone on from step 4");
    change("damaged.db", "UPDATE checkpoint SET bytes = zeroblob(n_bytes)");
    goes_on_before_the_damage("the checkpoint of step 6 is damaged; it goes on from step 0",
                              "0,damaged,\"the checkpoint of step 6 did not match its checksum: "
                              "gone on from the start, step 0\"");
}

/* A signal, or the time limit (NULL), while the reward command sleeps. */
static void stops(const char *arguments, const int *signal_number)
{
    char command[200];
    remove("asked");
    snprintf(command, sizeof command, "%s %s", signal_number ? "" : "--max-time 1", arguments);
    pid_t pid = run_start("", command);
    for (int i = 0; i < 3000 && access("asked", F_OK) != 0 && signal_number; i++) {
        usleep(10000);
    }
    double sent = seconds();
    if (signal_number) {
        assert_int_equal(access("asked", F_OK), 0);
        kill(pid, *signal_number);
    }
    Run r = run_wait(pid);
    double took = seconds() - sent;
    if (r.code != 4 ||
        took > 15) { /* half of what the command sleeps: this may be a busy machine */
        fail_msg("%s: exit code %d after %.1f s: %s", arguments, r.code, took, r.err);
    }
    print_message("%.2f s ", took);
    run_free(&r);
}

static void it_stops_while_a_reward_command_sleeps(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    run_write("judge.sh", "while read -r row; do\n"
                          "  if test -e slow; then : > asked; sleep 30; fi\n"
                          "  echo '{\"reward\": 1}'\ndone\n");
    run_write("judged.json", CONFIG ", \"reward\": {\"name\": \"command\", \"command\": \"sh "
                                    "judge.sh\", \"timeout_s\": 100}}");
    run_write("slow_scan.json",
              "{\"experiment\": \"slow\", \"model\": \"abacus\", \"method\": \"scan\", "
              "\"adapter\": {\"budget\": 2}, \"data\": {\"train\": \"" TRAIN "\"},\n"
              " \"reward\": {\"name\": \"command\", \"command\": \"sh judge.sh\", \"timeout_s\": "
              "100}, \"scan\": {\"values\": [\"reward\"], \"rows\": 8}}");
    forget("judged.db");
    expect_ok("--db judged.db grpo judged.json --set steps=1");
    char *run_id = ask("judged.db", "SELECT run_id FROM run WHERE kind = 'run'");
    char replay[100], eval[100];
    snprintf(replay, sizeof replay, "--db judged.db replay %s", run_id);
    snprintf(eval, sizeof eval, "--db judged.db eval --run %s --rows 5", run_id);
    const char *const commands[] = {"--db judged.db grpo judged.json", eval, replay,
                                    "--db judged.db scan slow_scan.json"};
    run_write("slow", "");
    for (size_t c = 0; c < sizeof commands / sizeof *commands; c++) {
        for (int i = 0; i < 5; i++) {
            stops(commands[c], i < 4 ? &signals[i] : NULL);
        }
    }
    print_message("\n");
    remove("slow");
    assert_attempts_are_closed("judged.db");
    expect_ok(eval);
    expect_ok(replay);
    expect_ok("--db judged.db grpo judged.json");
    free(run_id);
}

static void the_time_limit_is_every_verbs(void **state)
{
    (void)state;
    Run r = run("--max-time 0.3 generate --model abacus --prompt 1 --samples 4000 --max-new 200");
    assert_int_equal(r.code, 4);
    run_free(&r);
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
        cmocka_unit_test(a_run_that_is_done_goes_on_where_its_last_state_is_damaged),
        cmocka_unit_test(it_stops_while_a_reward_command_sleeps),
        cmocka_unit_test(the_time_limit_is_every_verbs),
    };
    return cmocka_run_group_tests(tests, make_reference, drop_reference);
}
