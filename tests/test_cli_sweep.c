/* Sweeps that end cells early: by halving and by the median, decided at fixed steps from what is
 * stored, the same after any kill; without the rule the same cells go on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "tests/cli_dump.h"

#define CONFIG                                                                                     \
    "{\"experiment\": \"early\", \"model\": \"abacus\", \"method\": \"sft\", \"adapter\": "        \
    "{\"budget\": 13},\n"                                                                          \
    " \"data\": {\"train\": \"" TRAIN "\", \"dev\": \"" SOURCE_DIR                                 \
    "/models/abacus/dev.jsonl\"}, \"eval\": {\"every\": 3, \"rows\": 2},\n"                        \
    " \"sft\": {\"batch_size\": 2}, \"steps\": 12, \"sweep\": {\"optimizer.lr\": {\"log\": "       \
    "[1e-3, 100], \"points\": 6}}"

static int make_files(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("all.json", CONFIG "}");
    run_write("halving.json", CONFIG ", \"stop\": {\"rule\": \"halving\", \"first\": 3}}");
    run_write("median.json", CONFIG ", \"stop\": {\"rule\": \"median\", \"first\": 4}}");
    expect_ok("--db all.db sweep all.json");
    return 0;
}

/* Mean loss of the steps first..last of those that came to the step: the best that ended there, and
 * the worst that went on. */
#define SPLIT(first, last)                                                                         \
    "WITH mean AS (SELECT run_id, last_step, avg(value) AS loss FROM metric JOIN run USING "       \
    "(run_id) WHERE key = 'loss' AND step BETWEEN " first " AND " last " AND last_step >= " last   \
    " GROUP BY run_id) SELECT (SELECT min(loss) FROM mean WHERE last_step = " last                 \
    ") > (SELECT max(loss) FROM mean WHERE last_step > " last ")"
/* Every row of a metric that the ruled sweep has is that of the whole one: looked at by counting.
 */
static void assert_part_of_whole(const char *db)
{
    static const char rows[] = "SELECT run_id, step, key, value FROM metric WHERE key <> "
                               "'step_time' AND run_id || '/' || step IN (%s) ORDER BY 1, 2, 3";
    char *known =
        ask(db, "SELECT group_concat(DISTINCT '''' || run_id || '/' || step || '''') FROM "
                "metric");
    Text sql = {0};
    size_t n = strlen(known);
    known[n - 1] = known[n - 1] == '"' ? 0 : known[n - 1];
    text_printf(&sql, rows, known[0] == '"' ? known + 1 : known);
    FILE *file = fopen("question", "w");
    fputs(sql.bytes, file);
    fclose(file);
    char command[200];
    char *answers[2];
    for (int k = 0; k < 2; k++) {
        snprintf(command, sizeof command, "--db %s query -o csv \"$(cat question)\"",
                 k ? "all.db" : db);
        Run r = expect(command, 0);
        answers[k] = r.out;
        free(r.err);
    }
    assert_same_surface(answers[0], answers[1]);
    assert_true(strlen(answers[0]) > 1000);
    free(answers[0]);
    free(answers[1]);
    free(known);
    text_release(&sql);
}

static void a_halving_keeps_the_better_half_at_each_decision(void **state)
{
    (void)state;
    expect_ok("--db halving.db sweep halving.json");
    char *states =
        ask("halving.db", "SELECT state, last_step, count(*) FROM run WHERE kind = 'run' "
                          "GROUP BY 1, 2 ORDER BY 2");
    assert_string_equal(states, "cancelled,3,3\r\ncancelled,6,1\r\ndone,12,2");
    free(states);
    assert_int_equal(ask_number("halving.db", SPLIT("1", "3")), 1);
    assert_int_equal(ask_number("halving.db", SPLIT("4", "6")), 1);
    assert_int_equal(ask_number("halving.db", "SELECT count(*) FROM run WHERE reason LIKE 'step %: "
                                              "loss % over 3 steps is number % of %, the best % go "
                                              "on (stop.rule halving)'"),
                     4);
    assert_int_equal(
        ask_number("halving.db", "SELECT count(*) FROM event WHERE kind = 'cancelled'"), 4);
    assert_part_of_whole("halving.db");
}

static void the_median_ends_who_is_below_it(void **state)
{
    (void)state;
    expect_ok("--db median.db sweep median.json");
    char *states = ask("median.db", "SELECT state, last_step, count(*) FROM run WHERE kind = 'run' "
                                    "GROUP BY 1, 2 ORDER BY 2");
    assert_string_equal(states, "cancelled,4,3\r\ncancelled,8,1\r\ndone,12,2");
    free(states);
    assert_int_equal(ask_number("median.db", SPLIT("1", "4")), 1);
    assert_int_equal(ask_number("median.db", SPLIT("5", "8")), 1);
    assert_part_of_whole("median.db");
}

static void killed_on_the_way_it_decides_the_same(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    char *whole = dump_runs("halving.db");
    for (int i = 0; i < 8; i++) {
        pid_t pid = run_start("", "--db killed.db sweep halving.json");
        usleep(50000u + (useconds_t)(rand() % 700000));
        kill(pid, i % 2 ? SIGKILL : SIGTERM);
        Run r = run_wait(pid);
        run_free(&r);
    }
    expect_ok("--db killed.db sweep halving.json");
    assert_dump(whole, "killed.db");
    expect_ok("--db killed.db sweep halving.json"); /* nothing is left to do */
    assert_dump(whole, "killed.db");
    free(whole);
    char *cancelled = ask("killed.db", "SELECT run_id FROM run WHERE state = 'cancelled' LIMIT 1");
    char command[100];
    snprintf(command, sizeof command, "--db killed.db replay %s", cancelled);
    expect_ok(command);
    free(cancelled);
}

static void without_the_rule_the_same_cells_go_on(void **state)
{
    (void)state;
    expect_ok("--db halving.db sweep all.json");
    static const char question[] =
        "SELECT run_id, state, last_step, objective FROM run ORDER BY run_id";
    char *one = ask("halving.db", question), *other = ask("all.db", question);
    assert_string_equal(one, other);
    free(one);
    free(other);
    assert_part_of_whole("halving.db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_halving_keeps_the_better_half_at_each_decision),
        cmocka_unit_test(the_median_ends_who_is_below_it),
        cmocka_unit_test(killed_on_the_way_it_decides_the_same),
        cmocka_unit_test(without_the_rule_the_same_cells_go_on),
    };
    return cmocka_run_group_tests(tests, make_files, run_teardown);
}
