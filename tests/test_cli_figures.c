/* `export figures` from outside: what it writes and prints, what it records, what it refuses. */
#include "tests/cli_scan.h"

#define SWEEP                                                                                      \
    "{\"experiment\": \"tiny sweep\", \"model\": \"abacus\", \"adapter\": {\"budget\": 13},\n"     \
    " \"data\": {\"train\": \"" TRAIN "\", \"dev\": \"" SOURCE_DIR                                 \
    "/models/abacus/dev.jsonl\"},\n"                                                               \
    " \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 2, \"max_new_tokens\": 8},\n"            \
    " \"steps\": 3, \"eval\": {\"every\": 0, \"rows\": 4},\n"                                      \
    " \"sweep\": {\"optimizer.lr\": [0.01, 0.1]}}\n"

static bool drawing; /* is there a gnuplot? */

static int make_results(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    drawing = system("command -v gnuplot > /dev/null") == 0;
    if (!drawing) {
        print_message("no gnuplot: pictures are not tested\n");
    }
    run_write("sweep.json", SWEEP);
    run_write("hill.json", SCAN_CONFIG(SMALL_GRID));
    expect_ok("sweep sweep.json");
    expect_ok("scan hill.json --no-figures");
    return 0;
}

static int count_lines(const char *text)
{
    int n = 0;
    for (; *text; text++) {
        n += *text == '\n';
    }
    return n;
}

static void every_file_is_there_is_printed_and_is_an_artifact(void **state)
{
    (void)state;
    if (!drawing) {
        skip();
    }
    Run r = expect("export figures --format png,pdf", 0);
    int n = count_lines(r.out);
    assert_int_equal(n % 4, 0);
    assert_true(n >= 4 * 8); /* five of the sweep; map and space of two metrics, slices */
    for (char *save, *line = strtok_r(r.out, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        assert_memory_equal(line, "figures/", 8);
        assert_int_equal(access(line, R_OK), 0);
    }
    run_free(&r);
    char wanted[32];
    snprintf(wanted, sizeof wanted, "%d", n);
    char *recorded = ask("results.db", "SELECT count(*) FROM artifact WHERE kind = 'figure' AND "
                                       "n_bytes > 0 AND length(sha256) = 64");
    assert_string_equal(recorded, wanted);
    free(recorded);
    recorded = ask("results.db", "SELECT count(DISTINCT surface_id) FROM artifact WHERE path LIKE "
                                 "'%figures/hill-%'");
    assert_string_equal(recorded, "1");
    free(recorded);
    /* Once more: the same files, no second rows. */
    r = expect("export figures --format png,pdf", 0);
    run_free(&r);
    recorded = ask("results.db", "SELECT count(*) FROM artifact WHERE kind = 'figure'");
    assert_string_equal(recorded, wanted);
    free(recorded);
}

static void json_says_which_figure_each_file_belongs_to(void **state)
{
    (void)state;
    if (!drawing) {
        skip();
    }
    Run r = expect("-o json export figures --experiment hill --kind surface --metric entropy --out "
                   "new/folder",
                   0);
    Error error = {{0}};
    JsonDocument *json = NULL;
    assert_int_equal(json_parse(&json, r.out, strlen(r.out), &error), STATUS_OK);
    json_free(json);
    assert_non_null(strstr(r.out, "\"kind\": \"surface\", \"experiment\": \"hill\""));
    assert_non_null(strstr(r.out, "-entropy.png\"}]"));
    assert_int_equal(count_lines(r.out), 3);
    run_free(&r);
}

static void figures_lie_beside_results_db(void **state)
{
    (void)state;
    if (!drawing) {
        skip();
    }
    assert_int_equal(system("mkdir -p elsewhere && cp results.db* elsewhere/"), 0);
    Run r = expect("--db elsewhere/results.db export figures --experiment 'tiny sweep' --kind "
                   "lr-accuracy",
                   0);
    assert_memory_equal(r.out, "elsewhere/figures/tiny_sweep-", 29);
    run_free(&r);
}

static void without_gnuplot_the_data_is_printed_and_the_exit_code_is_1(void **state)
{
    (void)state;
    Run r = run_wait(run_start("PATH=/nowhere", "export figures --experiment hill --out without"));
    assert_int_equal(r.code, 1);
    assert_non_null(strstr(r.err, "install gnuplot-nox"));
    assert_true(count_lines(r.out) >= 8); /* the other figures' data too */
    assert_non_null(strstr(r.out, "-loss.gp\n"));
    assert_null(strstr(r.out, ".png"));
    run_free(&r);
}

static void what_is_not_known_is_named(void **state)
{
    (void)state;
    expect_refused("export figures --kind surfaces", 2, "the nearest one is \"surface\"");
    expect_refused("export figures --format png,gif", 2, "\"gif\" is none of png, svg, pdf");
    expect_refused("export figures --format ''", 2, "png, svg, pdf, or several");
    expect_refused("export figures --experiment hil", 2,
                   "there is no experiment \"hil\"; the nearest one is \"hill\"");
    expect_refused("export figures --surface zzzz", 2, "zzzz");
    expect_refused("export figures --experiment hill --metric accuracy", 1, "nothing to draw");
    expect_refused("--db none.db export figures", 1, "there are no results yet");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_is_there_is_printed_and_is_an_artifact),
        cmocka_unit_test(json_says_which_figure_each_file_belongs_to),
        cmocka_unit_test(figures_lie_beside_results_db),
        cmocka_unit_test(without_gnuplot_the_data_is_printed_and_the_exit_code_is_1),
        cmocka_unit_test(what_is_not_known_is_named),
    };
    return cmocka_run_group_tests(tests, make_results, run_teardown);
}
