/* export csv, jsonl, hdf5, npy and notebook from outside: where files go, what they hold, what is
 * refused and with which words. */
#define _GNU_SOURCE /* open file description locks */
#include <math.h>
#include <sys/stat.h>

#include "tests/cli_scan.h"

#define SWEEP_CONFIG(name, rates)                                                                  \
    "{\"experiment\": \"" name "\", \"model\": \"abacus\", \"adapter\": {\"budget\": 2},\n"        \
    " \"data\": {\"train\": \"" TRAIN "\", \"dev\": \"" SOURCE_DIR                                 \
    "/models/abacus/dev.jsonl\"},\n"                                                               \
    " \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 2, \"max_new_tokens\": 16},\n"           \
    " \"steps\": 2, \"eval\": {\"rows\": 6}, \"sweep\": {\"optimizer.lr\": [" rates "]}}\n"

/* One results.db: the experiment "hill" has runs and a surface, "vale" has runs. */
static int make_results(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("scan.json", SCAN_CONFIG(SMALL_GRID));
    run_write("hill.json", SWEEP_CONFIG("hill", "0.01, 0.1"));
    run_write("vale.json", SWEEP_CONFIG("vale", "0.03"));
    expect_ok("scan scan.json --no-figures");
    expect_ok("sweep hill.json");
    expect_ok("sweep vale.json");
    return 0;
}

static int count_lines(const char *text)
{
    int n = 0;
    for (; (text = strchr(text, '\n')) != NULL; text++) {
        n++;
    }
    return n;
}

static void tables_go_to_stdout_or_to_a_file_or_into_a_folder(void **state)
{
    (void)state;
    Run r = expect("export csv --surface hill", 0);
    assert_int_equal(count_lines(r.out), 1 + 9 * 9 * 3); /* loss, its standard error, entropy */
    assert_int_equal(strncmp(r.out, "experiment,surface_id,metric,i,j,x,y,value\r\n", 44), 0);
    run_free(&r);
    r = expect("export jsonl --sql \"SELECT lr, NULL AS empty FROM run WHERE kind = 'run' ORDER "
               "BY lr LIMIT 1\"",
               0);
    assert_string_equal(r.out, "{\"lr\": 0.01, \"empty\": null}\n");
    run_free(&r);
    r = expect("export csv --view best_runs --out best.csv", 0);
    assert_string_equal(r.out, "best.csv\n");
    run_free(&r);
    r = expect("export jsonl --table run --out .", 0);
    assert_string_equal(r.out, "./run.jsonl\n");
    run_free(&r);
    r = expect("export csv --experiment hill --out deep/tables", 0);
    assert_non_null(strstr(r.out, "deep/tables/metrics.csv\n"));
    assert_non_null(strstr(r.out, "deep/tables/slices.csv\n"));
    run_free(&r);
    char *best = run_slurp("best.csv");
    assert_int_equal(strncmp(best, "experiment,task,extractor,place,", 32), 0);
    free(best);
}

static void what_was_written_is_an_artifact_unless_somebody_else_writes(void **state)
{
    (void)state;
    expect_ok("export hdf5 --surface hill one.h5");
    assert_int_equal(ask_number("results.db", "SELECT count(*) FROM artifact WHERE kind = 'hdf5' "
                                              "AND path LIKE '%/one.h5' AND surface_id IS NOT NULL "
                                              "AND n_bytes > 2000 AND length(sha256) = 64"),
                     1);
    expect_ok("export hdf5 --surface hill one.h5"); /* again: still one row */
    int held = open("results.db-lock", O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    assert_int_equal(fcntl(held, F_OFD_SETLK, &lock), 0);
    Run r = expect("export hdf5 --surface hill two.h5", 0);
    assert_string_equal(r.out, "two.h5\n");
    run_free(&r);
    close(held);
    assert_int_equal(ask_number("results.db", "SELECT count(*) FROM artifact WHERE path LIKE "
                                              "'%.h5'"),
                     1);
    assert_int_equal(access("two.h5", F_OK), 0);
}

static void arrays_hold_the_values_of_the_points(void **state)
{
    (void)state;
    Run r = expect("export npy --surface hill arrays", 0);
    assert_string_equal(r.out, "arrays/x.npy\narrays/y.npy\narrays/loss.npy\narrays/entropy.npy\n"
                               "arrays/loss_se.npy\n");
    run_free(&r);
    double points[9 * 9], stored;
    FILE *file = fopen("arrays/loss.npy", "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, -(long)sizeof points, SEEK_END), 0);
    assert_int_equal(fread(points, sizeof points, 1, file), 1); /* this machine: little-endian */
    fclose(file);
    char *value = ask("results.db", "SELECT value FROM surface_point WHERE i = 7 AND j = 2 AND "
                                    "metric = 'loss'");
    stored = strtod(value, NULL);
    assert_true(points[2 * 9 + 7] == stored);
    free(value);
}

static void an_experiment_gets_the_notebooks_that_it_is_good_for(void **state)
{
    (void)state;
    Run r = expect("export notebook --experiment hill --out books", 0);
    assert_non_null(strstr(r.out, "books/hill-sweep.ipynb\nbooks/hill-surface-"));
    assert_int_equal(count_lines(r.out), 2);
    run_free(&r);
    r = expect("export notebook --surface hill --out books", 0);
    assert_int_equal(count_lines(r.out), 1);
    run_free(&r);
    char *first = run_slurp("books/hill-sweep.ipynb");
    r = expect("export notebook --experiment hill --compare vale --out books", 0);
    assert_non_null(strstr(r.out, "books/hill-vs-vale.ipynb\n"));
    run_free(&r);
    char *second = run_slurp("books/hill-sweep.ipynb");
    assert_string_equal(first, second);
    assert_non_null(strstr(first, "\"nbformat_minor\": 5\n"));
    free(first);
    free(second);
}

static void jupyter_runs_the_notebooks_of_real_results(void **state)
{
    (void)state;
    expect_ok("export notebook --experiment hill --compare vale --out run");
    if (system("/usr/bin/python3 -c 'import nbformat, nbconvert, ipykernel, pandas, matplotlib' "
               "2> /dev/null")) {
        print_message("skipped: /usr/bin/python3 has no Jupyter\n");
        skip();
    }
    assert_int_equal(
        system("/usr/bin/python3 '" SOURCE_DIR "/tests/notebooks_execute.py' run/*.ipynb"), 0);
}

static void wrong_requests_are_refused_before_anything_is_written(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *message;
    } cases[] = {
        {"export csv", "one of --table, --view, --surface, --experiment and --sql is wanted"},
        {"export csv --table run --view run_list", "one of --table, --view, --surface"},
        {"export csv --experiment hill", "name a folder for them with --out"},
        {"export csv --experiment none --out none", "there is no experiment \"none\""},
        {"export jsonl --table runs", "no table \"runs\"; there are artifact, attempt,"},
        {"export csv --sql \"DROP TABLE run\"", "must only read"},
        {"export hdf5 none.h5", "--surface: a surface is missing"},
        {"export hdf5 --surface hill", "an argument is missing"},
        {"export npy --surface vale none", "vale"},
        {"export notebook", "--experiment: an experiment is missing"},
        {"export notebook --experiment none --out none", "there is no experiment \"none\""},
        {"export notebook --surface hill --compare vale", "--compare: with which --experiment?"},
        {"export notebook hill", "did you mean --experiment \"hill\"?"},
        {"export notebook --experiment hill --compare none --out none",
         "there is no experiment \"none\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_refused(cases[i].arguments, 2, cases[i].message);
        assert_int_not_equal(access("none", F_OK), 0);
    }
    expect_refused("--db no.db export csv --table run", 1, "there are no results yet");
    expect_refused("export hdf5 --surface hill no/such/folder.h5", 1, "no/such/folder.h5");
    run_write("in-the-way", "");
    expect_refused("export notebook --experiment hill --out in-the-way", 1,
                   "in-the-way: cannot be created: File exists");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_go_to_stdout_or_to_a_file_or_into_a_folder),
        cmocka_unit_test(what_was_written_is_an_artifact_unless_somebody_else_writes),
        cmocka_unit_test(arrays_hold_the_values_of_the_points),
        cmocka_unit_test(an_experiment_gets_the_notebooks_that_it_is_good_for),
        cmocka_unit_test(jupyter_runs_the_notebooks_of_real_results),
        cmocka_unit_test(wrong_requests_are_refused_before_anything_is_written),
    };
    return cmocka_run_group_tests(tests, make_results, run_teardown);
}
