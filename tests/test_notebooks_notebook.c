/* Notebooks: the same bytes each time, names that cannot break out of their cells, figures inside;
 * and, where Debian's Jupyter is at hand, valid, run without a warning, their tables to the letter.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "notebooks-export/comparison.h"
#include "notebooks-export/notebook.h"
#include "notebooks-export/template.h"
#include "tests/notebooks_fixture.h"

static Store *store;
static const char *const both[] = {FIXTURE_SWEEP, FIXTURE_OTHER};

static int setup(void **state)
{
    Error error = {0};
    return fixture_setup(state) || store_open(&store, "results.db", STORE_READ, 0, &error) ||
           mkdir("books", 0777) || mkdir("again", 0777);
}

static int teardown(void **state)
{
    store_close(store);
    return fixture_teardown(state);
}

static void export_all(Text *files, const char *database, const char *folder)
{
    Error error = {0};
    NotebookRequest request = {.store = store, .database = database, .folder = folder};
    fixture_check(notebook_sweep(files, &request, FIXTURE_SWEEP, &error), &error);
    fixture_check(notebook_sweep(files, &request, FIXTURE_OTHER, &error), &error);
    fixture_check(notebook_surface(files, &request, FIXTURE_SURFACE, &error), &error);
    fixture_check(notebook_comparison(files, &request, both, 2, &error), &error);
}

/* The n-th path of a list of lines. */
static char *path_of(const Text *files, int n)
{
    const char *line = files->bytes;
    for (; n > 0; n--) {
        line = strchr(line, '\n') + 1;
    }
    return strndup(line, strcspn(line, "\n"));
}

static void exporting_again_gives_the_same_bytes_wherever_the_program_stands(void **state)
{
    (void)state;
    Text first = {0}, second = {0};
    char database[128];
    snprintf(database, sizeof database, "%s/../%s/results.db", fixture_folder,
             strrchr(fixture_folder, '/') + 1);
    export_all(&first, "results.db", "books");
    export_all(&second, database, "./again/");
    for (int k = 0; k < 4; k++) {
        size_t n, m;
        char *path = path_of(&first, k), *other = path_of(&second, k);
        char *bytes = fixture_slurp(path, &n), *same = fixture_slurp(other, &m);
        assert_int_equal(n, m);
        assert_memory_equal(bytes, same, n);
        assert_true(n < NOTEBOOK_MAX_BYTES);
        assert_null(strstr(bytes, fixture_folder)); /* no absolute path */
        assert_null(strstr(bytes, "/home/somebody"));
        assert_non_null(strstr(bytes, "DATABASE = Path(\\\"../results.db\\\")"));
        free(bytes), free(same), free(path), free(other);
    }
    text_release(&first);
    text_release(&second);
}

static void names_stay_text_in_code_in_markdown_and_in_tables(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    NotebookRequest request = {.store = store, .database = "results.db", .folder = "books"};
    assert_int_equal(notebook_sweep(&files, &request, FIXTURE_SWEEP, &error), STATUS_OK);
    char *path = path_of(&files, 0);
    assert_non_null(strstr(path, "books/it_s_a__sweep_")); /* a file name without surprises */
    char *bytes = fixture_slurp(path, NULL);
    /* A Python literal inside a JSON string. */
    assert_non_null(strstr(bytes,
                           "\\\"experiment\\\": \\\"it's a \\\\\\\"sweep\\\\\\\" \\\\\\\\ of "
                           "<13> *scalars* $x$\\\\nüber |all|\\\""));
    assert_non_null(strstr(bytes, "# it's a \\\"sweep\\\" \\\\\\\\ of \\\\<13\\\\> "
                                  "\\\\*scalars\\\\* \\\\$x\\\\$ über \\\\|all\\\\|: the runs"));
    assert_non_null(strstr(bytes, "step 4 is &lt;nan&gt; &amp; not finite"));
    assert_non_null(strstr(bytes, "\"image/png\": \"iVBORw0KGgo"));
    assert_null(strstr(bytes, "image/svg"));
    assert_null(strstr(bytes, "widgets"));
    free(bytes);
    free(path);
    text_release(&files);
}

static void what_is_not_there_is_said_and_nothing_is_written(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    NotebookRequest request = {.store = store, .database = "results.db", .folder = "empty"};
    mkdir("empty", 0777);
    assert_int_equal(notebook_sweep(&files, &request, "none", &error), STATUS_USAGE);
    assert_string_equal(error.message, "there is no experiment \"none\"");
    assert_int_equal(notebook_surface(&files, &request, "ffff", &error), STATUS_USAGE);
    assert_string_equal(error.message, "no surface \"ffff\"");
    const char *one[] = {FIXTURE_SWEEP, "none"};
    assert_int_equal(notebook_comparison(&files, &request, one, 2, &error), STATUS_USAGE);
    assert_string_equal(error.message, "there is no experiment \"none\"");
    request.gnuplot = "no-such-gnuplot";
    assert_int_equal(notebook_sweep(&files, &request, FIXTURE_SWEEP, &error), STATUS_FAILED);
    assert_non_null(strstr(error.message, "no-such-gnuplot"));
    request.folder = "not/there";
    assert_int_equal(notebook_sweep(&files, &request, FIXTURE_SWEEP, &error), STATUS_FAILED);
    assert_string_equal(error.message, "not/there: cannot be found");
    assert_int_equal(files.n, 0);
    assert_int_equal(rmdir("empty"), 0);
}

static void values_fill_templates_as_literals_and_as_text(void **state)
{
    (void)state;
    const TemplateValue values[] = {{"a", "x_\"1\"", NULL}, {"b", NULL, NULL}, {"c", NULL, "[1]"}};
    Text out = {0};
    template_fill(&out, "f({{a}}, {{b}}, {{c}}) {x}", false, values, 3);
    assert_string_equal(out.bytes, "f(\"x_\\\"1\\\"\", None, [1]) {x}");
    text_clear(&out);
    template_fill(&out, "*{{a}}*", true, values, 3);
    assert_string_equal(out.bytes, "*x\\_\"1\"*");
    text_release(&out);
    Template template = {0};
    template_parse(&template, "# === one\n# %% [markdown]\n# # A\n#\n# b\n\n# === two\n# %% figure "
                              "surface each\nf()\n\n\n# %% table pairs\nx\n");
    assert_int_equal(template.n_cells, 3);
    assert_string_equal(template.cells[0].source.bytes, "# A\n\nb");
    assert_string_equal(template.cells[1].section, "two");
    assert_string_equal(template.cells[1].argument, "surface");
    assert_true(template.cells[1].each);
    assert_string_equal(template.cells[1].source.bytes, "f()");
    assert_int_equal(template.cells[2].kind, CELL_TABLE);
    template_release(&template);
}

/* Rows as comparison.py's SQL gives them; a of the pair's rows are +1, b are -1, the rest 0. */
static void read_pair(Frame *rows, int a, int b, const char *difference, int verdict)
{
    Error error = {0};
    char sql[600];
    snprintf(sql, sizeof sql,
             "WITH RECURSIVE i(row) AS (SELECT 0 UNION ALL SELECT row + 1 FROM i WHERE row < 19) "
             "SELECT 't' AS task, f.column1 AS first, f.column2 AS second, row, "
             "CASE WHEN row < %d THEN 1 WHEN row < %d THEN -1 ELSE 0 END %s AS difference, "
             "1 AS samples, %d AS verdict FROM (VALUES ('A', 'B'), ('A', 'C')) f, i "
             "ORDER BY first, second, row",
             a, a + b, difference, verdict);
    fixture_check(frame_read(rows, store, sql, NULL, 0, &error), &error);
    comparison_pairs(rows);
}

static void pairs_are_tested_exactly_and_adjusted(void **state)
{
    (void)state;
    Frame rows = {0};
    read_pair(&rows, 10, 2, "", 1);
    assert_int_equal(rows.n_rows, 2);
    assert_string_equal(frame_text(&rows, "second", 1), "C");
    assert_true(frame_number(&rows, "rows", 0) == 20);
    assert_true(frame_number(&rows, "difference", 0) == 0.4);
    assert_true(frame_number(&rows, "only_first", 0) == 10);
    assert_true(frame_number(&rows, "only_second", 0) == 2);
    /* McNemar by hand: 2 (1 + 12 + 66) / 2^12, sums of halves: exact but for one rounding each. */
    assert_true(fabs(frame_number(&rows, "p", 0) - 158.0 / 4096) < 1e-14);
    assert_true(fabs(frame_number(&rows, "p (Holm)", 1) - 316.0 / 4096) < 1e-14);
    frame_release(&rows);
    read_pair(&rows, 10, 2, "* 0.37 + 0.011 * row", 0);
    /* Student's density integrated numerically for the same 20 numbers, to ten digits. */
    assert_true(fabs(frame_number(&rows, "p", 0) - 4.069676994e-05) < 1e-8);
    frame_release(&rows);
}

static void jupyter_runs_them_and_gets_what_they_show(void **state)
{
    (void)state;
    Text files = {0}, arguments = {0};
    export_all(&files, "results.db", "books");
    for (int k = 0; k < 4; k++) {
        char *path = path_of(&files, k);
        text_printf(&arguments, "'%s' ", path);
        free(path);
    }
    fixture_python("nbformat, nbconvert, ipykernel, pandas, matplotlib",
                   SOURCE_DIR "/tests/notebooks_execute.py", arguments.bytes);
    text_release(&arguments);
    text_release(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exporting_again_gives_the_same_bytes_wherever_the_program_stands),
        cmocka_unit_test(names_stay_text_in_code_in_markdown_and_in_tables),
        cmocka_unit_test(what_is_not_there_is_said_and_nothing_is_written),
        cmocka_unit_test(values_fill_templates_as_literals_and_as_text),
        cmocka_unit_test(pairs_are_tested_exactly_and_adjusted),
        cmocka_unit_test(jupyter_runs_them_and_gets_what_they_show),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
