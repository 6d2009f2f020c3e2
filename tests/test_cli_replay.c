/* `replay` from outside: every run of a sweep agrees with itself, whatever computed it; one bit
 * changed in results.db is found and named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/sha256.h"
#include "results/database.h"
#include "tests/cli_scan.h"

#define DATA                                                                                       \
    "\"data\": {\"train\": \"train.jsonl\", \"dev\": \"" SOURCE_DIR                                \
    "/models/abacus/dev.jsonl\"}, \"eval\": {\"every\": 2, \"rows\": 3}"
#define GRPO_CONFIG                                                                                \
    "{\"experiment\": \"again\", \"model\": \"abacus\", \"adapter\": {\"budget\": 13}, " DATA      \
    ",\n"                                                                                          \
    " \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 3, \"max_new_tokens\": 8, "              \
    "\"kl_beta\": 0.05, \"updates_per_batch\": 2},\n"                                              \
    " \"steps\": 4, \"sweep\": {\"optimizer.lr\": [0.3, 0.02, 1e30]}}"
#define SFT_CONFIG                                                                                 \
    "{\"experiment\": \"again\", \"model\": \"abacus\", \"method\": \"sft\", \"adapter\": "        \
    "{\"budget\": 13}, " DATA ", \"sft\": {\"batch_size\": 3}, \"steps\": 4, \"optimizer\": "      \
    "{\"lr\": 0.05}}"

static char *grpo_run, *sft_run, *failed_run;

static int make_runs(void **state)
{
    if (run_setup(state) ||
        system("head -40 '" SOURCE_DIR "/models/abacus/train.jsonl' > train.jsonl")) {
        return 1;
    }
    run_write("grpo.json", GRPO_CONFIG);
    run_write("sft.json", SFT_CONFIG);
    Run r = expect("--db whole.db sweep grpo.json --threads 2", 1); /* one of them diverges */
    run_free(&r);
    expect_ok("--db whole.db sft sft.json");
    grpo_run = ask("whole.db", "SELECT run_id FROM run WHERE method = 'grpo' AND lr = 0.3");
    sft_run = ask("whole.db", "SELECT run_id FROM run WHERE method = 'sft'");
    failed_run = ask("whole.db", "SELECT run_id FROM run WHERE state = 'failed'");
    return 0;
}

static int drop_runs(void **state)
{
    free(grpo_run);
    free(sft_run);
    free(failed_run);
    return run_teardown(state);
}

static void replay_ok(const char *db, const char *run_id, const char *more)
{
    char command[200];
    snprintf(command, sizeof command, "--db %s replay %s %s", db, run_id, more);
    expect_ok(command);
}

/* Its exit code is 1, and the message has these words. */
static void replay_differs(const char *db, const char *run_id, const char *more, const char *words)
{
    char command[200];
    snprintf(command, sizeof command, "--db %s replay %s %s", db, run_id, more);
    Run r = expect(command, 1);
    if (!strstr(r.err, words) || !strstr(r.err, "differs: ")) {
        print_error("%s%swanted: %s\n", r.out, r.err, words);
        fail();
    }
    run_free(&r);
}

/* Of whole.db, open to be changed. */
static Database *copy(const char *db)
{
    char command[200];
    Database *database = NULL;
    Error error = {{0}};
    forget(db);
    snprintf(command, sizeof command, "cp whole.db %s", db);
    assert_int_equal(system(command), 0);
    assert_int_equal(database_open(&database, db, DATABASE_WRITE, &error), STATUS_OK);
    return database;
}

/* A copy of whole.db, changed by one statement. */
static void change(const char *db, const char *sql)
{
    Database *database = copy(db);
    Error error = {{0}};
    if (database_execute(database, sql, &error) != STATUS_OK) {
        fail_msg("%s: %s", sql, error.message);
    }
    assert_int_equal(database_changes(database), 1);
    database_close(database);
}

/* One bit of the value that the statement finds; update: takes it back. */
static void flip(const char *db, const char *find, const char *update, size_t byte)
{
    Database *database = copy(db);
    Statement *statement = NULL;
    Error error = {{0}};
    bool row = false;
    char bytes[4096];
    assert_int_equal(database_rows(&statement, database, find, NULL, 0, &error), STATUS_OK);
    assert_int_equal(statement_next(statement, &row, &error), STATUS_OK);
    assert_true(row);
    Value value = statement_value(statement, 0);
    if (value.kind == VALUE_REAL) {
        memcpy(bytes, &value.real, sizeof value.real);
        bytes[0] ^= 1;
        memcpy(&value.real, bytes, sizeof value.real);
    } else {
        assert_true(value.n < sizeof bytes);
        memcpy(bytes, value.bytes, value.n);
        bytes[byte] ^= 1;
        value.bytes = bytes;
    }
    statement_reset(statement);
    assert_int_equal(database_run(database, update, &value, 1, &error), STATUS_OK);
    assert_int_equal(database_changes(database), 1);
    database_close(database);
}

static void every_run_agrees_with_itself(void **state)
{
    (void)state;
    char *all = ask("whole.db", "SELECT group_concat(run_id, ' ') FROM run WHERE kind = 'run'");
    int n = 0;
    for (char *at = strtok(all, " "); at; at = strtok(NULL, " "), n++) {
        replay_ok("whole.db", at, n % 2 ? "--threads 1" : "--threads 2");
    }
    assert_int_equal(n, 4);
    free(all);
}

static void what_is_compared_is_told(void **state)
{
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "--db whole.db replay %s -o json", grpo_run);
    Run r = expect(command, 0);
    JsonDocument *document = NULL;
    int64_t n = 0;
    assert_int_equal(json_parse(&document, r.out, strlen(r.out), NULL), STATUS_OK);
    const Json *row = json_at(json_root(document), 0);
    assert_string_equal(json_string(json_get(row, "agrees"), NULL), "yes");
    assert_true(json_int64(json_get(row, "last_step"), &n) && n == 4);
    assert_true(json_int64(json_get(row, "completions"), &n) && n == 4 * 2 * 3);
    assert_true(json_int64(json_get(row, "checkpoints"), &n) && n == 5);
    assert_true(json_int64(json_get(row, "new"), &n) && n == 0);
    assert_true(json_int64(json_get(row, "metrics"), &n));
    assert_int_equal(n,
                     ask_number("whole.db", "SELECT count(*) FROM metric JOIN run USING (run_id) "
                                            "WHERE lr = 0.3 AND key <> 'step_time'"));
    json_free(document);
    run_free(&r);
}

static void a_resumed_run_agrees_and_nothing_is_written(void **state)
{
    (void)state;
    static const char arguments[] =
        "--db resumed.db grpo grpo.json --set sweep.optimizer.lr=[0.3] --threads 1";
    for (int i = 0; i < 3; i++) {
        pid_t pid = run_start("", arguments);
        usleep(300000u * (useconds_t)(i + 1));
        kill(pid, i % 2 ? SIGKILL : SIGTERM);
        Run r = run_wait(pid);
        run_free(&r);
    }
    expect_ok(arguments);
    replay_ok("resumed.db", grpo_run, "");
    char before[SHA256_HEX_SIZE], after[SHA256_HEX_SIZE];
    Error error = {{0}};
    assert_int_equal(sha256_file(before, "whole.db", &error), STATUS_OK);
    replay_ok("whole.db", failed_run, "");
    replay_ok("whole.db", sft_run, "");
    assert_int_equal(sha256_file(after, "whole.db", &error), STATUS_OK);
    assert_string_equal(before, after);
}

#define OF_RUN " run_id = (SELECT run_id FROM run WHERE method = 'grpo' AND lr = 0.3) AND "

static void one_bit_of_a_metric_is_found(void **state)
{
    (void)state;
    flip("bit.db", "SELECT value FROM metric WHERE" OF_RUN "step = 3 AND key = 'loss'",
         "UPDATE metric SET value = ?1 WHERE" OF_RUN "step = 3 AND key = 'loss'", 0);
    replay_differs("bit.db", grpo_run, "", "step 3: metric (");
    replay_differs("bit.db", grpo_run, "", "loss");
    replay_ok("bit.db", grpo_run, "--steps 2");
    replay_ok("bit.db", grpo_run, "--tolerance 1e-6");
}

static void one_bit_of_a_completion_is_found(void **state)
{
    (void)state;
#define OF_COMPLETION OF_RUN "step = 2 AND prompt = 1 AND sample = 2"
    flip("bit.db", "SELECT logprobs FROM completion WHERE" OF_COMPLETION,
         "UPDATE completion SET logprobs = ?1 WHERE" OF_COMPLETION, 9);
    replay_differs("bit.db", grpo_run, "",
                   "step 2: completion (prompt 1, sample 2): logprobs of token 1: stored ");
    flip("bit.db", "SELECT ids FROM completion WHERE" OF_COMPLETION,
         "UPDATE completion SET ids = ?1 WHERE" OF_COMPLETION, 0);
    replay_differs("bit.db", grpo_run, "",
                   "step 2: completion (prompt 1, sample 2): ids of token 0");
    flip("bit.db", "SELECT advantage FROM completion WHERE" OF_COMPLETION,
         "UPDATE completion SET advantage = ?1 WHERE" OF_COMPLETION, 0);
    replay_differs("bit.db", grpo_run, "", "step 2: completion (prompt 1, sample 2): advantage");
}

static void one_bit_of_a_checkpoint_is_found(void **state)
{
    (void)state;
    flip("bit.db", "SELECT bytes FROM checkpoint WHERE" OF_RUN "step = 1",
         "UPDATE checkpoint SET bytes = ?1 WHERE" OF_RUN "step = 1", 60);
    replay_differs("bit.db", grpo_run, "", "step 1: checkpoint: bytes: byte 60 of ");
    replay_differs("bit.db", grpo_run, "", "does not match its own SHA-256");
}

static void one_bit_of_an_evaluation_is_found(void **state)
{
    (void)state;
    flip("bit.db", "SELECT value FROM evaluation WHERE" OF_RUN "step = 4 AND extractor = 'reward'",
         "UPDATE evaluation SET value = ?1 WHERE" OF_RUN "step = 4 AND extractor = 'reward'", 0);
    replay_differs("bit.db", grpo_run, "", "step 4: evaluation (");
    change("bit.db",
           "UPDATE eval_verdict SET correct = 1 - correct WHERE row = 1 AND sample = 0 AND "
           "evaluation_id = (SELECT evaluation_id FROM evaluation WHERE" OF_RUN
           "step = 2 AND extractor = 'strict')");
    replay_differs("bit.db", grpo_run, "", "step 2: verdict (");
}

static void what_eval_added_is_passed_over_and_counted(void **state)
{
    (void)state;
    char command[300];
    database_close(copy("scored.db"));
    snprintf(command, sizeof command, "--db scored.db eval --run %s --data train.jsonl --rows 3",
             grpo_run);
    expect_ok(command);
    int n = (int)ask_number("scored.db", "SELECT count(*) FROM evaluation WHERE task LIKE 'train%' "
                                         "AND base_run_id IS NOT NULL");
    assert_true(n > 4);
    snprintf(command, sizeof command, "--db scored.db replay %s -o json", grpo_run);
    Run r = expect(command, 0);
    char told[100];
    snprintf(told, sizeof told, ": %d scores were made by `eval` later", n);
    assert_non_null(strstr(r.err, told));
    snprintf(told, sizeof told, "\"passed_over\": %d", n);
    assert_non_null(strstr(r.out, told));
    run_free(&r);
}

static void a_row_more_or_less_is_found(void **state)
{
    (void)state;
    change("bit.db", "DELETE FROM metric WHERE" OF_RUN "step = 2 AND key = 'entropy'");
    replay_differs("bit.db", grpo_run, "", "replayed, but not stored");
    change("bit.db", "INSERT INTO metric SELECT run_id, step, 'other', 1.0 FROM metric WHERE" OF_RUN
                     "step = 2 AND key = 'entropy'");
    replay_differs("bit.db", grpo_run, "", "stored, but not replayed");
    change("bit.db", "UPDATE run SET reason = 'step 2: another' WHERE state = 'failed'");
    replay_differs("bit.db", failed_run, "", "run: reason: stored ");
}

static void made_elsewhere_it_is_compared_within_a_tolerance_and_says_so(void **state)
{
    (void)state;
    char command[200];
    change("else.db", "UPDATE attempt SET environment = replace(environment, '\"kernels\":\"', "
                      "'\"kernels\":\"other-') WHERE" OF_RUN "n = 1");
    snprintf(command, sizeof command, "--db else.db replay %s", grpo_run);
    Run r = expect(command, 0);
    assert_non_null(strstr(r.err, "made elsewhere (kernels: other-"));
    assert_non_null(strstr(r.out, "0.001"));
    run_free(&r);
    replay_ok("else.db", grpo_run, "--tolerance 0"); /* it was not made elsewhere, really */
}

static void other_files_are_refused(void **state)
{
    (void)state;
    char command[200];
    assert_int_equal(system("cp train.jsonl kept.jsonl && tail -39 kept.jsonl > train.jsonl"), 0);
    snprintf(command, sizeof command, "--db whole.db replay %s", grpo_run);
    expect_refused(command, 3, "cannot be computed again here: data.train_sha256");
    assert_int_equal(system("mv kept.jsonl train.jsonl"), 0);
    expect_refused("--db whole.db replay ffffffffffffffff", 2, "no run \"ffffffffffffffff\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_run_agrees_with_itself),
        cmocka_unit_test(what_is_compared_is_told),
        cmocka_unit_test(a_resumed_run_agrees_and_nothing_is_written),
        cmocka_unit_test(one_bit_of_a_metric_is_found),
        cmocka_unit_test(one_bit_of_a_completion_is_found),
        cmocka_unit_test(one_bit_of_a_checkpoint_is_found),
        cmocka_unit_test(one_bit_of_an_evaluation_is_found),
        cmocka_unit_test(what_eval_added_is_passed_over_and_counted),
        cmocka_unit_test(a_row_more_or_less_is_found),
        cmocka_unit_test(made_elsewhere_it_is_compared_within_a_tolerance_and_says_so),
        cmocka_unit_test(other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, make_runs, drop_runs);
}
