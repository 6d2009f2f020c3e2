/* Sweeps as they are written: lists, ranges, axes that go together, Sobol points; and who goes on
 * at a decision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "analysis/numerics.h"
#include "experiments/grid.h"

static char path[64];

static int make_file(void **state)
{
    (void)state;
    strcpy(path, "/tmp/tinylora-sweep-XXXXXX");
    int file = mkstemp(path);
    return file < 0 || close(file);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static Status read_sweep_of(Config **config, const char *sweep, Error *error)
{
    FILE *file = fopen(path, "w");
    fprintf(file, "{\"model\": \"m\", \"data\": {\"train\": \"x\"}, \"sweep\": %s}\n", sweep);
    fclose(file);
    return config_read(config, path, NULL, 0, NULL, error);
}

/* lr and seed of every cell. */
static size_t cells_of(const char *sweep, double *lr, int64_t *seed)
{
    Config *config = NULL;
    Error error = {{0}};
    size_t n = 0;
    if (read_sweep_of(&config, sweep, &error)) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(grid_count(&n, config, &error), STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        RunSpec spec;
        if (grid_cell(&spec, config, i, &error)) {
            fail_msg("%s", error.message);
        }
        lr[i] = spec.optimizer.lr;
        seed[i] = spec.seed;
    }
    /* What is shown is read as the same. */
    Text shown = {0};
    RunSpec again;
    config_show(&config->base, config, &shown);
    FILE *file = fopen(path, "w");
    fputs(shown.bytes, file);
    fclose(file);
    Config *second = NULL;
    if (config_read(&second, path, NULL, 0, NULL, &error)) {
        fail_msg("%s", error.message);
    }
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(grid_cell(&again, second, i, &error), STATUS_OK);
        assert_true(again.optimizer.lr == lr[i] && again.seed == seed[i]);
    }
    text_release(&shown);
    config_free(second);
    config_free(config);
    return n;
}

static void a_log_range_has_its_decades(void **state)
{
    (void)state;
    double lr[64];
    int64_t seed[64];
    assert_int_equal(
        cells_of("{\"optimizer.lr\": {\"log\": [1e-7, 1e-3], \"points\": 5}}", lr, seed), 5);
    static const double decades[] = {1e-7, 1e-6, 1e-5, 1e-4, 1e-3};
    for (int i = 0; i < 5; i++) {
        assert_true(lr[i] == decades[i]);
    }
    assert_int_equal(cells_of("{\"seed\": {\"linear\": [10, 40], \"points\": 4}}", lr, seed), 4);
    assert_int_equal(seed[0], 10);
    assert_int_equal(seed[1], 20);
    assert_int_equal(seed[3], 40);
    assert_int_equal(
        cells_of("{\"optimizer.lr\": {\"linear\": [0.5, 2], \"points\": 1}}", lr, seed), 1);
    assert_true(lr[0] == 0.5);
}

static void axes_of_a_zip_go_together_and_multiply_with_others(void **state)
{
    (void)state;
    double lr[64];
    int64_t seed[64];
    static const char sweep[] =
        "{\"zip\": {\"optimizer.lr\": [0.1, 0.2, 0.3], \"seed\": [7, 8, 9]}, \"steps\": [5, 6]}";
    assert_int_equal(cells_of(sweep, lr, seed), 6);
    static const double rates[] = {0.1, 0.1, 0.2, 0.2, 0.3, 0.3};
    for (int i = 0; i < 6; i++) {
        assert_true(lr[i] == rates[i]);
        assert_int_equal(seed[i], 7 + i / 2);
    }
    assert_int_equal(
        cells_of("{\"steps\": [5, 6], \"zip\": [{\"optimizer.lr\": {\"log\": [0.1, "
                 "10], \"points\": 3}, \"seed\": [1, 2, 3]}, {\"grpo.clip_low\": [0.1, "
                 "0.2], \"grpo.clip_high\": [0.3, 0.4]}]}",
                 lr, seed),
        12);
    assert_true(lr[0] == 0.1 && lr[2] == 1 && lr[4] == 10 && lr[6] == 0.1);
}

static void sobol_points_fill_the_ranges_evenly(void **state)
{
    (void)state;
    double lr[64], points[6];
    int64_t seed[64];
    Error error = {{0}};
    /* Bratley & Fox: the sequence without its first point, the origin. */
    static const double known[] = {0.5, 0.5, 0.75, 0.25, 0.25, 0.75};
    assert_int_equal(numerics_sobol(points, 3, 2, &error), STATUS_OK);
    for (int i = 0; i < 6; i++) {
        assert_true(points[i] == known[i]);
    }
    assert_int_equal(numerics_sobol(points, 1, 41, &error), STATUS_USAGE);
    assert_int_equal(cells_of("{\"sobol\": {\"points\": 31, \"optimizer.lr\": {\"log\": [1e-6, "
                              "1e-2]}, \"seed\": {\"linear\": [0, 1000]}}}",
                              lr, seed),
                     31);
    assert_true(fabs(lr[0] / 1e-4 - 1) < 1e-9 && seed[0] == 500);
    int quarters[4] = {0};
    for (int i = 0; i < 31; i++) {
        quarters[(lr[i] > 1e-4 * 1.0000001 ? 2 : 0) + (seed[i] > 500)]++;
    }
    for (int i = 0; i < 4; i++) {
        assert_in_range(quarters[i], 7, 9);
    }
}

static void what_is_no_sweep_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *sweep, *words;
    } bad[] = {
        {"{\"optimizer.lr\": {\"log\": [0, 1], \"points\": 3}}",
         "both ends of a log range must be"},
        {"{\"optimizer.lr\": {\"log\": [1, 2]}}", "\"points\" from 1 to 10000"},
        {"{\"optimizer.lr\": {\"log\": [1], \"points\": 3}}", "a range is {\"log\""},
        {"{\"optimizer.lr\": {\"log\": [1, 2], \"points\": 3, \"base\": 2}}", "nothing else"},
        {"{\"grpo.loss\": {\"linear\": [1, 2], \"points\": 3}}", "a range is of a number alone"},
        {"{\"zip\": {\"optimizer.lr\": [1, 2], \"seed\": [1, 2, 3]}}",
         "3 values of seed go with 2 of optimizer.lr"},
        {"{\"zip\": [3]}", "an object of lists is expected"},
        {"{\"seed\": [1], \"zip\": {\"seed\": [1, 2]}}", "an axis of that name is there already"},
        {"{\"sobol\": {\"optimizer.lr\": {\"log\": [1, 2]}}}", "1 to 8 ranges"},
        {"{\"sobol\": {\"points\": 0, \"optimizer.lr\": {\"log\": [1, 2]}}}", "\"points\" from 1"},
        {"{\"sobol\": {\"points\": 4, \"method\": {\"linear\": [1, 2]}}}", "a number alone"},
        {"{\"sobol\": {\"points\": 4, \"steps\": [1, 2]}}", "a range is {\"log\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        Config *config = NULL;
        Error error = {{0}};
        Status status = read_sweep_of(&config, bad[i].sweep, &error);
        if (status != STATUS_USAGE || !strstr(error.message, bad[i].words) ||
            !strstr(error.message, "line 1: sweep")) {
            fail_msg("%s: %d %s", bad[i].sweep, status, error.message);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_range_has_its_decades),
        cmocka_unit_test(axes_of_a_zip_go_together_and_multiply_with_others),
        cmocka_unit_test(sobol_points_fill_the_ranges_evenly),
        cmocka_unit_test(what_is_no_sweep_is_refused_with_its_place),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
