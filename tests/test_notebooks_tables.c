/* Tables as CSV and JSON Lines: what is in them, and that pandas reads them as they are meant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "notebooks-export/tables.h"
#include "tests/notebooks_fixture.h"

static Store *store;

static int setup(void **state)
{
    Error error = {0};
    return fixture_setup(state) || store_open(&store, "results.db", STORE_READ, 0, &error);
}

static int teardown(void **state)
{
    store_close(store);
    return fixture_teardown(state);
}

static void a_surface_is_a_row_a_point_and_metric(void **state)
{
    (void)state;
    Error error = {0};
    Text out = {0};
    TableChoice choice = {.surface = FIXTURE_SURFACE};
    assert_int_equal(tables_append(&out, store, &choice, FORMAT_CSV, &error), STATUS_OK);
    int n_lines = 0;
    for (const char *c = out.bytes; (c = strstr(c, "\r\n")) != NULL; c += 2) {
        n_lines++;
    }
    /* The experiment's name has a line feed, which stays inside its quotes: not counted. */
    assert_int_equal(n_lines, 1 + 3 * 4 * FIXTURE_NY);
    assert_non_null(strstr(out.bytes, "experiment,surface_id,metric,i,j,x,y,value\r\n"));
    /* The hole is empty, a number comes back to the bit. */
    assert_non_null(strstr(out.bytes, "," FIXTURE_SURFACE ",loss,1,2,"));
    const char *hole = strstr(out.bytes, "loss,1,2,");
    assert_int_equal(strstr(hole, "\r\n")[-1], ',');
    double value;
    assert_int_equal(sscanf(strstr(out.bytes, "loss,2,3,"), "loss,2,3,%*f,%*f,%lf", &value), 1);
    assert_true(value == fixture_loss(2, 3));
    text_release(&out);
}

static void a_table_that_is_not_there_is_named_with_those_that_are(void **state)
{
    (void)state;
    Error error = {0};
    Text out = {0};
    TableChoice view = {.view = "run"}, table = {.table = "runs\"; DROP TABLE run; --"};
    text_add(&out, "kept");
    assert_int_equal(tables_append(&out, store, &view, FORMAT_CSV, &error), STATUS_USAGE);
    assert_non_null(strstr(error.message, "no view \"run\"; there are best_runs, budget_table, "));
    assert_int_equal(tables_append(&out, store, &table, FORMAT_CSV, &error), STATUS_USAGE);
    assert_non_null(strstr(error.message, "no table \"runs\"; DROP TABLE run; --\"; there are "));
    TableChoice write = {.sql = "DELETE FROM run"};
    assert_int_equal(tables_append(&out, store, &write, FORMAT_CSV, &error), STATUS_USAGE);
    assert_string_equal(out.bytes, "kept");
    table.table = "experiment";
    assert_int_equal(tables_append(&out, store, &table, FORMAT_JSONL, &error), STATUS_OK);
    assert_non_null(strstr(out.bytes, "\"name\": \"plain-sft\""));
    text_release(&out);
}

static void an_experiment_is_a_folder_of_tables_that_pandas_reads(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    assert_int_equal(tables_experiment(&files, store, FIXTURE_SWEEP, FORMAT_CSV, "a/csv", &error),
                     STATUS_OK);
    assert_int_equal(tables_experiment(&files, store, FIXTURE_SWEEP, FORMAT_JSONL, "jsonl", &error),
                     STATUS_OK);
    assert_non_null(strstr(files.bytes, "a/csv/runs.csv\n"));
    assert_non_null(strstr(files.bytes, "jsonl/points.jsonl\n"));
    size_t n;
    char *metrics = fixture_slurp("a/csv/metrics.csv", &n);
    assert_non_null(strstr(metrics, ",\"it's \"\"quoted\"\"\","));
    free(metrics);
    char *runs = fixture_slurp("jsonl/runs.jsonl", &n);
    assert_non_null(strstr(runs, "\"objective\": null"));
    free(runs);
    fixture_python("pandas", SOURCE_DIR "/tests/notebooks_tables.py", "a/csv jsonl");
    text_release(&files);
}

static void an_experiment_without_surfaces_has_no_files_of_them(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    assert_int_equal(tables_experiment(&files, store, FIXTURE_OTHER, FORMAT_CSV, "other", &error),
                     STATUS_OK);
    assert_non_null(strstr(files.bytes, "other/evaluations.csv\n"));
    assert_null(strstr(files.bytes, "points"));
    text_clear(&files);
    assert_int_equal(tables_experiment(&files, store, "none", FORMAT_CSV, "none", &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, "there is no experiment \"none\"");
    assert_int_not_equal(access("none", F_OK), 0);
    FILE *file = fopen("in-the-way", "w");
    fclose(file);
    assert_int_equal(
        tables_experiment(&files, store, FIXTURE_OTHER, FORMAT_CSV, "in-the-way", &error),
        STATUS_FAILED);
    assert_string_equal(error.message, "in-the-way: cannot be created: File exists");
    text_release(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_surface_is_a_row_a_point_and_metric),
        cmocka_unit_test(a_table_that_is_not_there_is_named_with_those_that_are),
        cmocka_unit_test(an_experiment_is_a_folder_of_tables_that_pandas_reads),
        cmocka_unit_test(an_experiment_without_surfaces_has_no_files_of_them),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
