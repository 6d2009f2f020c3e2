/* Figures: what stands in the data files, scripts that run alone, the same bytes again, colours and
 * ticks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/figure_test.h"

/* The lines of a block of a data file behind its two comments, NUL at its end; in place. */
static char *block_of(char *data, const char *name)
{
    char head[64];
    snprintf(head, sizeof head, "# %s\n", name);
    char *at = strstr(data, head);
    assert_non_null(at);
    at = strchr(at + strlen(head), '\n') + 1;
    char *end = strstr(at, "\n\n\n");
    if (end) {
        end[1] = 0;
    }
    return at;
}

static double variable_of(const char *script, const char *name)
{
    char head[64];
    snprintf(head, sizeof head, "\n%s = ", name);
    const char *at = strstr(script, head);
    assert_non_null(at);
    return atof(at + strlen(head));
}

/* --- every kind --- */

static void each_kind(void (*check)(const FigureKind *kind, FigureRequest request))
{
    for (int k = 0; k < n_figure_kinds; k++) {
        check(&figure_kinds[k], figure_kinds[k].of_surface ? of_surface() : of_sweep());
    }
}

static void check_kind(const FigureKind *kind, FigureRequest request)
{
    static const char *const magic[] = {"", "", "%PDF", "<?xml", "\x89PNG"};
    static const char *const endings[] = {".dat", ".gp", ".pdf", ".svg", ".png"};
    Text files = {0};
    char *before[5], command[256];
    size_t n, sizes[5];
    static const char *const others[] = {FIXTURE_OTHER};
    request.formats = FIGURE_PNG | FIGURE_SVG | FIGURE_PDF;
    request.others = others;
    request.n_others = 1;
    must_draw(kind->name, request, &files);
    for (int k = 0; k < 5; k++) {
        const char *path = file_of(&files, k);
        assert_non_null(strstr(path, endings[k]));
        before[k] = fixture_slurp(path, &sizes[k]);
        assert_memory_equal(before[k], magic[k], strlen(magic[k]));
        assert_true(sizes[k] > 100);
    }
    /* Again: the same bytes. Then the script alone, in another folder: the same picture. */
    text_clear(&files);
    must_draw(kind->name, request, &files);
    assert_int_equal(system("rm -rf alone; mkdir alone; cp out/figure.dat out/figure.gp alone/"),
                     0);
    snprintf(command, sizeof command, "cd alone && gnuplot figure.gp > messages 2>&1");
    assert_int_equal(system(command), 0);
    for (int k = 0; k < 5; k++) {
        char *again = fixture_slurp(file_of(&files, k), &n);
        assert_int_equal(n, sizes[k]);
        if (memcmp(again, before[k], n) != 0) {
            fail_msg("%s: %s differs", kind->name, endings[k]);
        }
        free(again);
    }
    char *alone = fixture_slurp("alone/figure.png", &n);
    assert_int_equal(n, sizes[4]);
    assert_memory_equal(alone, before[4], n);
    char *messages = fixture_slurp("alone/messages", NULL);
    assert_string_equal(messages, "");
    free(messages);
    free(alone);
    for (int k = 0; k < 5; k++) {
        free(before[k]);
    }
    text_release(&files);
}

static void every_kind_is_drawn_in_the_same_bytes_again_and_by_its_script_alone(void **state)
{
    (void)state;
    if (has_gnuplot()) {
        each_kind(check_kind);
    }
}

static void cells_are_the_stored_values_and_holes_are_nan(void **state)
{
    (void)state;
    Text files = {0};
    if (!has_gnuplot()) {
        return;
    }
    must_draw("surface", of_surface(), &files);
    char *data = fixture_slurp(file_of(&files, 0), NULL);
    assert_non_null(strstr(data, "unfinished: 4 of 5 rows are done"));
    assert_non_null(strstr(data, "1 values are not finite"));
    char *script = fixture_slurp(file_of(&files, 1), NULL);
    assert_true(variable_of(script, "n_missing") == 1);
    assert_true(variable_of(script, "n_holes") == 1);
    int n = 0, holes = 0, used;
    for (char *line = block_of(data, "cells"); *line; n++) {
        double x, y, x_low, x_high, y_low, y_high;
        char value[64];
        assert_int_equal(sscanf(line, "%lf %lf %lf %lf %lf %lf %63s%n", &x, &y, &x_low, &x_high,
                                &y_low, &y_high, value, &used),
                         7);
        int i = (int)lround((x + 0.1) / 0.05), j = (int)lround((y + 0.3) / 0.3);
        assert_true(fabs(x_high - x_low - 0.05) < 1e-12 && fabs(y_high - y_low - 0.3) < 1e-12);
        assert_true(fabs((x_low + x_high) / 2 - x) < 1e-12);
        if (i == 1 && j == 2) {
            assert_string_equal(value, "NaN");
            holes++;
        } else {
            assert_true(strtod(value, NULL) == fixture_loss(i, j)); /* %.17g keeps every bit */
        }
        line += used + 1;
    }
    assert_int_equal(n, 16);
    assert_int_equal(holes, 1);
    free(script);
    free(data);
    text_release(&files);
}

static void means_and_errors_are_those_of_the_seeds(void **state)
{
    (void)state;
    Text files = {0};
    if (!has_gnuplot()) {
        return;
    }
    FigureRequest request = of_sweep();
    request.metric = "strict"; /* verdicts: shares in % */
    must_draw("lr-accuracy", request, &files);
    char *data = fixture_slurp(file_of(&files, 0), NULL);
    /* Runs 0 and 1: budget 2, rate 0.01; their verdicts are counted as the fixture does. */
    double shares[2] = {0};
    for (int seed = 0; seed < 2; seed++) {
        for (int row = 0; row < FIXTURE_ROWS; row++) {
            shares[seed] += fixture_verdict(row, 0.3 + 0.05 * seed) / FIXTURE_ROWS;
        }
    }
    double rate, mean, error;
    int runs;
    assert_int_equal(
        sscanf(block_of(data, "means 1"), "%lf %lf %lf %d", &rate, &mean, &error, &runs), 4);
    assert_true(rate == 0.01 && runs == 2);
    assert_true(fabs(mean - 50 * (shares[0] + shares[1])) < 1e-9);
    assert_true(fabs(error - 50 * fabs(shares[0] - shares[1])) < 1e-9);
    free(data);
    data = fixture_slurp(file_of(&files, 0), NULL);
    assert_int_equal(sscanf(block_of(data, "failed"), "%lf %d", &rate, &runs), 2);
    assert_true(rate == 10 && runs == 1);
    free(data);
    text_release(&files);
}

static void curves_are_means_over_seeds_at_each_step(void **state)
{
    (void)state;
    Text files = {0};
    if (!has_gnuplot()) {
        return;
    }
    must_draw("learning-curves", of_sweep(), &files);
    char *data = fixture_slurp(file_of(&files, 0), NULL);
    int n = 0, used, runs;
    double step, mean, error;
    for (char *line = block_of(data, "curve 1"); *line; line += used + 1) {
        assert_int_equal(sscanf(line, "%lf %lf %lf %d%n", &step, &mean, &error, &runs, &used), 4);
        double one = 0.25 + 0.3 * step / FIXTURE_STEPS * 0.5 + 0.01;
        double two = 0.25 + 0.35 * step / FIXTURE_STEPS * 0.5 + 0.02;
        assert_int_equal(step, ++n);
        assert_true(fabs(mean - (one + two) / 2) < 1e-12);
        assert_true(fabs(error - fabs(one - two) / 2) < 1e-12);
        assert_int_equal(runs, 2);
    }
    assert_int_equal(n, FIXTURE_STEPS);
    free(data);
    text_release(&files);
}

static void histograms_hold_every_completion_of_the_first_and_last_steps(void **state)
{
    (void)state;
    static const char *const kinds[] = {"rewards", "lengths"};
    if (!has_gnuplot()) {
        return;
    }
    for (int kind = 0; kind < 2; kind++) {
        Text files = {0};
        must_draw(kinds[kind], of_sweep(), &files);
        char *data = fixture_slurp(file_of(&files, 0), NULL);
        double sums[2] = {0}, value, shares[2];
        int used;
        assert_non_null(strstr(data, "steps 1 to 1 (8 completions), 12 to 12 (8)"));
        for (char *line = block_of(data, "panel 1"); *line; line += used + 1) {
            assert_int_equal(sscanf(line, "%lf %lf %lf%n", &value, &shares[0], &shares[1], &used),
                             3);
            sums[0] += shares[0];
            sums[1] += shares[1];
        }
        assert_true(fabs(sums[0] - 100) < 1e-9 && fabs(sums[1] - 100) < 1e-9);
        free(data);
        text_release(&files);
    }
}

static void parabolas_have_the_curvature_of_the_hessian(void **state)
{
    (void)state;
    Text files = {0};
    if (!has_gnuplot()) {
        return;
    }
    must_draw("slices", of_surface(), &files);
    char *data = fixture_slurp(file_of(&files, 0), NULL);
    double t, value, parabola;
    /* Along x: 8.25 * 0.6^2 + 3.5 * 0.8^2. */
    double curvature = 8.25 * 0.36 + 3.5 * 0.64;
    assert_int_equal(sscanf(block_of(data, "slice 1"), "%lf %lf %lf", &t, &value, &parabola), 3);
    assert_true(fabs(parabola - (1.24 + curvature * t * t / 2)) < 1e-12);
    assert_true(value == 1.24 + t * t);
    free(data);
    text_release(&files);
}

/* --- a surface with a lattice, and one value far above the others --- */

static void previewed_cells_cover_the_whole_picture(void **state)
{
    (void)state;
    enum { N = 10 };
    static const char id[] = "00000000000000aa";
    const double plane[] = {0, 0, 1, 0, 0, 1};
    const int order[N] = {0, 9, 4, 8, 1, 2, 3, 5, 6, 7};
    SurfaceInfo info = {.surface_id = id,
                        .experiment = FIXTURE_OTHER,
                        .identity = "{\"a\": 1}",
                        .config = "{}",
                        .model = "m",
                        .n_parameters = 2,
                        .plane = plane,
                        .metrics = "[\"loss\"]",
                        .x_label = "v_1",
                        .y_label = "`touch ../hacked`@x {/Bold v}",
                        .nx = N,
                        .ny = N,
                        .x_min = 0,
                        .x_max = 9,
                        .y_min = 0,
                        .y_max = 9};
    Error error = {0};
    RunState surface_state;
    Worker worker = {"host", 1, "boot", "{}"};
    Store *store = open_store(STORE_WRITE);
    fixture_check(store_surface(store, &info, 1e9, &surface_state, &error), &error);
    for (int k = 0; k < 5; k++) { /* four previews, then row 0 */
        SurfaceLease lease;
        SurfaceValue values[N];
        size_t n = 0;
        bool kept;
        fixture_check(store_surface_claim(store, id, &worker, order, N, 4, 1e9, 60, &lease, &error),
                      &error);
        for (int j = 0; j < N; j++) {
            if (!lease.preview || j % 4 == 0 || j == N - 1) {
                double loss = lease.i == 8 && j == 8 ? 1e6 : 1 + 0.31 * lease.i + 0.127 * j;
                values[n++] = (SurfaceValue){j, "loss", lease.i, j, loss};
            }
        }
        fixture_check(store_surface_commit(store, id, &lease, values, n, 1e9, &kept, &error),
                      &error);
    }
    store_close(store);
    Text files = {0};
    if (has_gnuplot()) {
        must_draw("surface", (FigureRequest){.surface_id = id, .stem = "lattice"}, &files);
        char *data = fixture_slurp(file_of(&files, 0), NULL);
        double x, y, edges[4], value, area = 0, row = 0;
        int used;
        for (char *line = block_of(data, "cells"); *line; line += used + 1) {
            assert_int_equal(sscanf(line, "%lf %lf %lf %lf %lf %lf %lf%n", &x, &y, &edges[0],
                                    &edges[1], &edges[2], &edges[3], &value, &used),
                             7);
            double size = (edges[1] - edges[0]) * (edges[3] - edges[2]);
            *(fabs(size - 1) < 1e-9 && x == 0 && edges[1] == 0.5 ? &row : &area) += size;
        }
        assert_true(fabs(area - N * N) < 1e-9); /* the lattice's areas, with no gap */
        assert_true(fabs(row - N) < 1e-9);      /* and the row that is done on top */
        char *script = fixture_slurp(file_of(&files, 1), NULL);
        assert_true(variable_of(script, "more_above") == 1);
        assert_true(variable_of(script, "z_high") < 50);
        assert_non_null(strstr(script, "y_label = '`touch ../hacked`\\@x \\{/Bold v\\}'"));
        assert_true(access("out/hacked", F_OK) != 0);
        free(script);
        free(data);
    }
    text_release(&files);
}

/* --- colours and ticks --- */

static double lightness(uint32_t color)
{
    double sum = 0;
    static const double weights[] = {0.2126, 0.7152, 0.0722};
    for (int c = 0; c < 3; c++) {
        double value = (color >> (16 - 8 * c) & 0xff) / 255.0;
        sum += weights[c] * (value <= 0.04045 ? value / 12.92 : pow((value + 0.055) / 1.055, 2.4));
    }
    return sum;
}

static void colours_of_a_surface_rise_in_lightness(void **state)
{
    (void)state;
    for (int k = 1; k <= 100; k++) {
        assert_true(lightness(figure_sequential(k / 100.0)) >
                    lightness(figure_sequential((k - 1) / 100.0)));
    }
    assert_int_equal(figure_sequential(-3), 0x440154);
    assert_int_equal(figure_sequential(7), 0xfde725);
}

static void steps_and_ticks_are_round(void **state)
{
    (void)state;
    assert_true(fabs(figure_nice_step(0.9, 5) - 0.2) < 1e-12);
    assert_true(fabs(figure_nice_step(40, 5) - 10) < 1e-12);
    assert_true(fabs(figure_nice_step(2.3e-7, 5) - 5e-8) < 1e-20);
    double low = 3, high = 3;
    figure_widen(&low, &high);
    assert_true(low < 3 && high > 3);
    FigureDraft draft = {0};
    int power;
    draft_ticks(&draft, "t", -1e-7, 1e-7, 1e-7, &power);
    assert_int_equal(power, -7);
    assert_string_equal(text_string(&draft.variables), "t = \"'-1' -1e-07, '0' 0, '1' 1e-07\"\n");
    text_release(&draft.variables);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_drawn_in_the_same_bytes_again_and_by_its_script_alone),
        cmocka_unit_test(cells_are_the_stored_values_and_holes_are_nan),
        cmocka_unit_test(means_and_errors_are_those_of_the_seeds),
        cmocka_unit_test(curves_are_means_over_seeds_at_each_step),
        cmocka_unit_test(histograms_hold_every_completion_of_the_first_and_last_steps),
        cmocka_unit_test(parabolas_have_the_curvature_of_the_hessian),
        cmocka_unit_test(previewed_cells_cover_the_whole_picture),
        cmocka_unit_test(colours_of_a_surface_rise_in_lightness),
        cmocka_unit_test(steps_and_ticks_are_round),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
