/* Read-only SQL: what is refused, and the five formats to the byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "results/query.h"

static char folder[64];
static char path[96];
static Store *store;

static int open_store(void **state)
{
    (void)state;
    Error told = {{0}};
    snprintf(folder, sizeof folder, "/tmp/tinylora-query-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/results.db", folder);
    return store_open(&store, path, STORE_WRITE, 0, &told);
}

static int close_store(void **state)
{
    (void)state;
    char command[128];
    store_close(store);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void answers(const char *sql, OutputFormat format, const char *expected)
{
    Error told = {{0}};
    Text out = {0};
    if (query_run(store, sql, NULL, 0, format, &out, &told) != STATUS_OK) {
        fail_msg("%s: %s", sql, told.message);
    }
    assert_string_equal(text_string(&out), expected);
    text_release(&out);
}

static void refuses(const char *sql, const char *words)
{
    Error told = {{0}};
    Text out = {0};
    text_add(&out, "before");
    if (query_run(store, sql, NULL, 0, FORMAT_CSV, &out, &told) != STATUS_USAGE) {
        fail_msg("%s: %s", sql, told.message);
    }
    if (!strstr(told.message, words)) {
        fail_msg("\"%s\" lacks \"%s\"", told.message, words);
    }
    assert_string_equal(out.bytes, "before");
    text_release(&out);
}

#define MIXED                                                                                      \
    "SELECT 1 AS i, 0.1 AS r, 'a,\"b\"' || char(10) || 'c|d' AS t, x'00ff' AS b, NULL AS n, '' "   \
    "AS e, "                                                                                       \
    "2 AS i"

static void csv_follows_rfc_4180_with_all_digits(void **state)
{
    (void)state;
    answers(MIXED, FORMAT_CSV,
            "i,r,t,b,n,e,i_2\r\n1,0.10000000000000001,\"a,\"\"b\"\"\nc|d\",00ff,,\"\",2\r\n");
    answers("SELECT 9223372036854775807 AS big, 1e300 AS r, 'plain' AS \"a,b\"", FORMAT_CSV,
            "big,r,\"a,b\"\r\n9223372036854775807,1.0000000000000001e+300,plain\r\n");
    answers("SELECT 1 AS a WHERE 0", FORMAT_CSV, "a\r\n");
}

static void json_is_a_list_of_objects_with_every_name_once(void **state)
{
    (void)state;
    const char *expected =
        "[\n{\"i\": 1, \"r\": 0.10000000000000001, \"t\": \"a,\\\"b\\\"\\nc|d\", "
        "\"b\": \"00ff\", \"n\": null, \"e\": \"\", \"i_2\": 2}\n]\n";
    answers(MIXED, FORMAT_JSON, expected);
    answers("SELECT 1 AS a WHERE 0", FORMAT_JSON, "[]\n");
    answers("SELECT 1e999 AS a UNION ALL SELECT 2.5", FORMAT_JSON,
            "[\n{\"a\": null},\n{\"a\": 2.5}\n]\n");
    answers("SELECT 1 AS a UNION ALL SELECT cast(x'c3' AS TEXT)", FORMAT_JSONL,
            "{\"a\": 1}\n{\"a\": \"\xef\xbf\xbd\"}\n");
}

static void tables_align_by_the_width_of_characters(void **state)
{
    (void)state;
    answers("SELECT 'na\xc3\xafve' AS word, 0.123456789 AS v UNION ALL SELECT '\xe6\xbc\xa2', 12 "
            "UNION ALL SELECT NULL, NULL UNION ALL SELECT 'e' || char(0x301), -1e-7",
            FORMAT_TABLE,
            "word          v\n"
            "-----  --------\n"
            "na\xc3\xafve  0.123457\n"
            "\xe6\xbc\xa2           12\n"
            "               \n"
            "e\xcc\x81        -1e-07\n");
}

static void terminal_controls_are_made_visible_and_long_cells_are_cut(void **state)
{
    (void)state;
    answers("SELECT char(27) || '[31mred' || char(0x202e) || char(10) AS t, x'0102' AS b",
            FORMAT_TABLE,
            "t                            b\n"
            "-------------------  ---------\n"
            "\\x1b[31mred\\u202e\\n  (2 bytes)\n");
    Error told = {{0}};
    Text out = {0};
    assert_int_equal(query_run(store, "SELECT printf('%.*c', 100, 'x') AS a", NULL, 0, FORMAT_TABLE,
                               &out, &told),
                     STATUS_OK);
    const char *row = strrchr(out.bytes, '-') + 2;
    assert_int_equal(strspn(row, "x"), 71);
    assert_string_equal(row + 71, "\xe2\x80\xa6\n");
    text_release(&out);
}

static void markdown_escapes_its_bars(void **state)
{
    (void)state;
    answers("SELECT 'a|b' AS t, 1.5 AS v", FORMAT_MD, "| t | v |\n|---|---:|\n| a\\|b | 1.5 |\n");
}

static void parameters_are_bound_as_text(void **state)
{
    (void)state;
    Error told = {{0}};
    Text out = {0};
    const char *binds[] = {"O'Brien; DROP TABLE run", NULL};
    assert_int_equal(
        query_run(store, "SELECT ?1 AS a, ?2 AS b", binds, 2, FORMAT_JSONL, &out, &told),
        STATUS_OK);
    assert_string_equal(out.bytes, "{\"a\": \"O'Brien; DROP TABLE run\", \"b\": null}\n");
    assert_int_equal(query_run(store, "SELECT ?1", NULL, 0, FORMAT_JSONL, &out, &told),
                     STATUS_USAGE);
    assert_string_equal(told.message, "the statement has 1 parameters, 0 values are given");
    text_release(&out);
}

static void everything_but_reading_is_refused(void **state)
{
    (void)state;
    static const char *const writes[] = {
        "DELETE FROM run",
        "INSERT INTO experiment VALUES ('a', 'b', 1.0)",
        "UPDATE run SET state = 'done'",
        "DROP TABLE run",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "ATTACH '/tmp/other.db' AS o",
        "DETACH main",
        "VACUUM INTO '/tmp/copy.db'",
        "BEGIN",
        "SAVEPOINT a",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "PRAGMA writable_schema = ON",
        "PRAGMA wal_checkpoint",
        "PRAGMA trusted_schema",
        "REINDEX",
        "ANALYZE",
        "WITH a AS (SELECT 1) INSERT INTO experiment SELECT 'a', 'b', 1.0 FROM a",
        "EXPLAIN DELETE FROM run",
    };
    for (size_t i = 0; i < sizeof writes / sizeof *writes; i++) {
        refuses(writes[i], "must only read");
    }
    refuses("UPDATE sqlite_master SET sql = ''", "table sqlite_master may not be modified");
    refuses("ALTER TABLE run RENAME TO r", "must only read");
    answers("SELECT sum(value) AS s FROM json_each('[1, 2]')", FORMAT_CSV, "s\r\n3\r\n");
    refuses("SELECT load_extension('x')", "not authorized to use function: load_extension");
    refuses("", "the query is empty");
    refuses(" -- nothing\n", "the query is empty");
    refuses("SELECT 1; DELETE FROM run", "more than one statement: \"DELETE FROM run\" follows");
    refuses("SELECT colour FROM run", "no such column: colour");
    refuses("SELEC 1", "syntax error");
    answers("SELECT 1 AS a; ; -- that is all\n", FORMAT_CSV, "a\r\n1\r\n");
    /* the authorizer goes with the question: the store can still write, and the schema's own
     * pragmas answer */
    Error told = {{0}};
    assert_int_equal(store_experiment(store, "e", "{}", 1.0, &told), STATUS_OK);
    answers("SELECT name FROM pragma_table_info('artifact') LIMIT 1", FORMAT_CSV,
            "name\r\nartifact_id\r\n");
}

static void every_view_answers_on_an_empty_store(void **state)
{
    (void)state;
    static const char *const views[] = {
        "run_list",      "best_runs",        "run_show",        "surface_grid", "learning_curve",
        "sweep_summary", "eval_sample",      "surface_picture", "surface_list", "surface_show",
        "run_progress",  "surface_progress", "surface_process"};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "SELECT * FROM %s", views[i]);
        answers(sql, FORMAT_JSON, "[]\n");
    }
}

static int stop_soon(void *context)
{
    return ++*(int *)context > 3;
}

static void an_endless_question_can_be_interrupted(void **state)
{
    (void)state;
    Error told = {{0}};
    Text out = {0};
    int asked = 0;
    store_interrupt(store, stop_soon, &asked);
    assert_int_equal(query_run(store,
                               "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                               "SELECT max(i) FROM n",
                               NULL, 0, FORMAT_CSV, &out, &told),
                     STATUS_STOPPED);
    assert_non_null(strstr(told.message, "interrupted"));
    assert_string_equal(text_string(&out), "");
    store_interrupt(store, NULL, NULL);
    answers("SELECT 1 AS a", FORMAT_CSV, "a\r\n1\r\n");
    text_release(&out);
}

static void formats_are_found_by_name(void **state)
{
    (void)state;
    OutputFormat format = FORMAT_TABLE;
    assert_true(output_format_find(&format, "jsonl"));
    assert_int_equal(format, FORMAT_JSONL);
    assert_false(output_format_find(&format, "JSON"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv_follows_rfc_4180_with_all_digits),
        cmocka_unit_test(json_is_a_list_of_objects_with_every_name_once),
        cmocka_unit_test(tables_align_by_the_width_of_characters),
        cmocka_unit_test(terminal_controls_are_made_visible_and_long_cells_are_cut),
        cmocka_unit_test(markdown_escapes_its_bars),
        cmocka_unit_test(parameters_are_bound_as_text),
        cmocka_unit_test(everything_but_reading_is_refused),
        cmocka_unit_test(every_view_answers_on_an_empty_store),
        cmocka_unit_test(an_endless_question_can_be_interrupted),
        cmocka_unit_test(formats_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, open_store, close_store);
}
