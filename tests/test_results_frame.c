/* Answers as columns: what is a number, what NULL and BLOBs become, what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "results/frame.h"

static char folder[64];
static Store *store;

static int open_store(void **state)
{
    (void)state;
    char path[96];
    Error told = {{0}};
    snprintf(folder, sizeof folder, "/tmp/tinylora-frame-XXXXXX");
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

static Frame frame_of(const char *sql)
{
    Frame frame = {0};
    Error told = {{0}};
    if (frame_read(&frame, store, sql, NULL, 0, &told) != STATUS_OK) {
        fail_msg("%s: %s", sql, told.message);
    }
    return frame;
}

static void columns_of_numbers_are_numbers_and_null_is_nan(void **state)
{
    (void)state;
    Frame frame = frame_of("SELECT 3 AS i, 0.31 AS r, 7 AS m, NULL AS n UNION ALL "
                           "SELECT NULL, -1.27, 2.385, NULL UNION ALL SELECT -4, NULL, 1, NULL");
    assert_int_equal(frame.n_rows, 3);
    assert_int_equal(frame.n_columns, 4);
    const FrameColumn *i = frame_column(&frame, "i"), *r = frame_column(&frame, "r"),
                      *m = frame_column(&frame, "m"), *n = frame_column(&frame, "n");
    assert_true(i->numeric && i->integer && i->numbers[0] == 3 && isnan(i->numbers[1]) &&
                i->numbers[2] == -4);
    assert_true(r->numeric && !r->integer && r->numbers[0] == 0.31 && r->numbers[1] == -1.27 &&
                isnan(r->numbers[2]));
    assert_true(m->numeric && !m->integer && m->numbers[0] == 7 && m->numbers[1] == 2.385);
    assert_true(n->numeric && n->integer && isnan(n->numbers[0]));
    assert_null(i->texts);
    assert_true(frame_number(&frame, "r", 1) == -1.27);
    assert_true(isnan(frame_number(&frame, "absent", 0)));
    assert_null(frame_text(&frame, "r", 0));
    assert_null(frame_column(&frame, "absent"));
    frame_release(&frame);
    assert_int_equal(frame.n_rows, 0);
    frame_release(&frame);
}

static void one_text_makes_a_column_of_texts(void **state)
{
    (void)state;
    Frame frame = frame_of("SELECT 'na\xc3\xafve' AS t, x'00ff' AS b, 1 AS mixed UNION ALL "
                           "SELECT NULL, NULL, 0.1 UNION ALL SELECT '', x'', 'x'");
    const FrameColumn *t = frame_column(&frame, "t");
    assert_false(t->numeric);
    assert_false(t->integer);
    assert_null(t->numbers);
    assert_string_equal(t->texts[0], "na\xc3\xafve");
    assert_null(t->texts[1]);
    assert_string_equal(t->texts[2], "");
    assert_string_equal(frame_text(&frame, "b", 0), "00ff");
    assert_null(frame_text(&frame, "b", 1));
    assert_string_equal(frame_text(&frame, "b", 2), "");
    assert_string_equal(frame_text(&frame, "mixed", 0), "1");
    assert_string_equal(frame_text(&frame, "mixed", 1), "0.10000000000000001");
    assert_true(isnan(frame_number(&frame, "t", 0)));
    frame_release(&frame);
}

static void an_empty_answer_has_its_columns(void **state)
{
    (void)state;
    Frame frame = frame_of("SELECT run_id, lr FROM run");
    assert_int_equal(frame.n_rows, 0);
    assert_int_equal(frame.n_columns, 2);
    assert_string_equal(frame.columns[1].name, "lr");
    frame_release(&frame);
}

static void many_rows_keep_their_order(void **state)
{
    (void)state;
    Frame frame = frame_of("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i "
                           "< 4999) SELECT i, 'r' || i AS t FROM n");
    assert_int_equal(frame.n_rows, 5000);
    for (size_t i = 0; i < frame.n_rows; i++) {
        char text[32];
        snprintf(text, sizeof text, "r%zu", i);
        assert_true(frame.columns[0].numbers[i] == (double)i);
        assert_string_equal(frame.columns[1].texts[i], text);
    }
    frame_release(&frame);
}

static void values_are_bound_as_text(void **state)
{
    (void)state;
    Frame frame = {0};
    Error told = {{0}};
    const char *binds[] = {"O'Brien", NULL};
    assert_int_equal(frame_read(&frame, store, "SELECT ?1 AS a, ?2 AS b, ?1 AS a", binds, 2, &told),
                     STATUS_OK);
    assert_string_equal(frame_text(&frame, "a", 0), "O'Brien");
    assert_true(isnan(frame_number(&frame, "b", 0)));
    frame_release(&frame);
}

static void refuses(const char *sql, Status expected, const char *words)
{
    Frame frame = {0};
    Error told = {{0}};
    assert_int_equal(frame_read(&frame, store, sql, NULL, 0, &told), expected);
    if (!strstr(told.message, words)) {
        fail_msg("\"%s\" lacks \"%s\"", told.message, words);
    }
    frame_release(&frame);
}

static int stop(void *context)
{
    (void)context;
    return 1;
}

static void only_one_statement_that_reads_is_taken(void **state)
{
    (void)state;
    refuses("DELETE FROM run", STATUS_USAGE, "the query must only read");
    refuses("SELECT 1; SELECT 2", STATUS_USAGE, "more than one statement");
    refuses("SELECT ?1", STATUS_USAGE, "the statement has 1 parameters, 0 values are given");
    refuses("SELECT colour FROM run", STATUS_USAGE, "no such column: colour");
    /* an error in the middle of the rows */
    refuses("SELECT 'a' UNION ALL SELECT abs(-9223372036854775807 - 1)", STATUS_FAILED,
            "integer overflow");
    store_interrupt(store, stop, NULL);
    refuses("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
            STATUS_STOPPED, "interrupted");
    store_interrupt(store, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_of_numbers_are_numbers_and_null_is_nan),
        cmocka_unit_test(one_text_makes_a_column_of_texts),
        cmocka_unit_test(an_empty_answer_has_its_columns),
        cmocka_unit_test(many_rows_keep_their_order),
        cmocka_unit_test(values_are_bound_as_text),
        cmocka_unit_test(only_one_statement_that_reads_is_taken),
    };
    return cmocka_run_group_tests(tests, open_store, close_store);
}
