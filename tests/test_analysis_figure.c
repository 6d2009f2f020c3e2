/* Figures: what stands in the data files, scripts that run alone, hostile names, a gnuplot that is
 * not there or fails, the same bytes again. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "analysis/figure_draft.h"
#include "core/file.h"
#include "tests/notebooks_fixture.h"

#define HOSTILE                                                                                    \
    "../../up'; system('touch ../hacked') \n`touch ../hacked` $(touch ../hacked) \"%s%n\" @a "     \
    "{/Bold b_c^d}"                                                                                \
    "\xff \\"

static Store *open_store(StoreMode mode)
{
    Store *store;
    Error error = {0};
    fixture_check(store_open(&store, "results.db", mode, 0, &error), &error);
    return store;
}

static bool has_gnuplot(void)
{
    if (system("command -v gnuplot > /dev/null") == 0) {
        return true;
    }
    print_message("skipped: no gnuplot\n");
    return false;
}

/* Draws into the folder "out"; the files' list is the caller's. */
static Status draw(const char *kind, FigureRequest request, bool *drawn, Text *files, Error *error)
{
    request.store = open_store(STORE_READ);
    request.folder = request.folder ? request.folder : "out";
    Status status = figure_draw(figure_find(kind), &request, drawn, files, error);
    store_close(request.store);
    return status;
}

static void must_draw(const char *kind, FigureRequest request, Text *files)
{
    Error error = {0};
    bool drawn = false;
    fixture_check(draw(kind, request, &drawn, files, &error), &error);
    assert_true(drawn);
}

/* Line number k of the list; static buffer. */
static const char *file_of(const Text *files, int k)
{
    static char path[512];
    const char *line = text_string(files);
    for (; k > 0 && *line; k--) {
        line += strcspn(line, "\n") + 1;
    }
    snprintf(path, sizeof path, "%.*s", (int)strcspn(line, "\n"), line);
    return path;
}

static FigureRequest of_sweep(void)
{
    return (FigureRequest){.experiment = FIXTURE_SWEEP, .stem = "figure"};
}

static FigureRequest of_surface(void)
{
    return (FigureRequest){.surface_id = FIXTURE_SURFACE, .stem = "figure"};
}

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

static int n_entries(const char *folder)
{
    int n = 0;
    DIR *directory = opendir(folder);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        n += entry->d_name[0] != '.';
    }
    closedir(directory);
    return n;
}

static void nothing_but_the_files_stays_in_the_folder(void **state)
{
    (void)state;
    Text files = {0};
    if (has_gnuplot()) {
        FigureRequest request = of_surface();
        request.folder = "a/new/folder";
        must_draw("surface", request, &files);
        assert_int_equal(n_entries("a/new/folder"), 3);
    }
    text_release(&files);
}

/* --- data --- */

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

/* --- names --- */

static void hostile_names_run_nothing_and_stay_in_the_folder(void **state)
{
    (void)state;
    Error error = {0};
    Store *store = open_store(STORE_WRITE);
    fixture_check(store_experiment(store, HOSTILE, "{}", 1e9, &error), &error);
    fixture_run(store, HOSTILE, "dddd000000000000", "grpo`touch ../hacked`'\n", 3, 0.01, 1, 0.4,
                false);
    fixture_evaluate(store, "dddd000000000000", FIXTURE_STEPS, 0.4, "base:c50c:0000");
    store_close(store);
    Text files = {0};
    FigureRequest request = {.experiment = HOSTILE, .folder = "deep/er/out"};
    if (has_gnuplot()) {
        must_draw("lr-accuracy", request, &files);
        must_draw("learning-curves", request, &files);
        request.stem = HOSTILE;
        must_draw("parameters-accuracy", request, &files);
        assert_int_equal(n_entries("deep/er/out"), 9);
        assert_int_equal(system("find . -name hacked | grep -q ."), 256);
        for (const char *line = text_string(&files); *line; line += strcspn(line, "\n") + 1) {
            assert_memory_equal(line, "deep/er/out/_._.._up__", 22);
        }
    }
    text_release(&files);
}

static void a_users_own_settings_of_gnuplot_are_not_read(void **state)
{
    (void)state;
    Text files = {0};
    FILE *file = fopen(".gnuplot", "w");
    assert_non_null(file);
    fprintf(file, "system \"touch '%s/hacked'\"\n", fixture_folder);
    fclose(file);
    setenv("HOME", fixture_folder, 1);
    if (has_gnuplot()) {
        must_draw("lr-accuracy", of_sweep(), &files);
        assert_true(access("hacked", F_OK) != 0);
    }
    text_release(&files);
}

static void names_that_become_alike_get_different_files(void **state)
{
    (void)state;
    Text one = {0}, two = {0};
    if (has_gnuplot()) {
        FigureRequest request = of_sweep();
        request.stem = "a/b";
        must_draw("lr-accuracy", request, &one);
        request.stem = "a:b";
        must_draw("lr-accuracy", request, &two);
        assert_string_not_equal(text_string(&one), text_string(&two));
    }
    text_release(&one);
    text_release(&two);
}

static void text_is_shown_as_it_is(void **state)
{
    (void)state;
    Text out = {0};
    draft_escape(&out, "a_b^c{d}@e&f~g\\h", SIZE_MAX);
    assert_string_equal(text_string(&out), "a\\_b\\^c\\{d\\}\\@e\\&f\\~g\\\\h");
    text_clear(&out);
    draft_escape(&out, "tab\there \xff \xc3\xbc\xc3\xbc", 11);
    assert_string_equal(text_string(&out), "tab here \xef\xbf\xbd ...");
    text_clear(&out);
    draft_escape_axis(&out, "v_12 and w_x", 60);
    assert_string_equal(text_string(&out), "v_{12} and w\\_x");
    text_clear(&out);
    draft_quote(&out, "it's\nmine");
    assert_string_equal(text_string(&out), "'it''s mine'");
    text_release(&out);
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

/* --- nothing to draw, and what goes wrong --- */

static void what_is_not_there_is_not_drawn(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    bool drawn = true;
    FigureRequest request = {.experiment = "no such experiment", .folder = "empty"};
    for (int k = 0; k < n_figure_kinds; k++) {
        if (!figure_kinds[k].of_surface) {
            fixture_check(draw(figure_kinds[k].name, request, &drawn, &files, &error), &error);
            assert_false(drawn);
        }
    }
    request = of_sweep();
    request.metric = "no such extractor";
    fixture_check(draw("lr-accuracy", request, &drawn, &files, &error), &error);
    assert_false(drawn);
    assert_int_equal(files.n, 0);
    assert_false(directory_exists("empty"));
    assert_null(figure_find("no such kind"));
}

static void unknown_surfaces_and_metrics_are_refused(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    bool drawn;
    FigureRequest request = {.surface_id = "ffff", .stem = "figure"};
    assert_int_equal(draw("surface", request, &drawn, &files, &error), STATUS_USAGE);
    assert_string_equal(error.message, "there is no surface \"ffff\"");
    request = of_surface();
    request.metric = "perplexity";
    assert_int_equal(draw("surface-3d", request, &drawn, &files, &error), STATUS_USAGE);
    assert_string_equal(error.message, "surface " FIXTURE_SURFACE
                                       " has no metric \"perplexity\"; it has loss, accuracy");
}

static void a_foreign_surface_stays_in_the_folder_or_is_refused(void **state)
{
    (void)state;
    static const double plane[] = {0, 0, 1, 0, 0, 1};
    SurfaceInfo info = {.surface_id = "../../up",
                        .experiment = FIXTURE_OTHER,
                        .identity = "{\"b\": 1}",
                        .config = "{}",
                        .model = "m",
                        .n_parameters = 2,
                        .plane = plane,
                        .metrics = "[\"loss\"]",
                        .x_label = "",
                        .y_label = "",
                        .nx = 1,
                        .ny = 1,
                        .x_max = 1,
                        .y_max = 1};
    const int order[] = {0};
    const SurfaceValue value = {0, "loss", 0, 0, 1.31};
    Error error = {0};
    Text files = {0};
    RunState surface_state;
    SurfaceLease lease;
    Worker worker = {"host", 1, "boot", "{}"};
    bool kept, drawn;
    Store *store = open_store(STORE_WRITE);
    fixture_check(store_surface(store, &info, 1e9, &surface_state, &error), &error);
    fixture_check(
        store_surface_claim(store, info.surface_id, &worker, order, 1, 1, 1e9, 60, &lease, &error),
        &error);
    fixture_check(
        store_surface_commit(store, info.surface_id, &lease, &value, 1, 1e9, &kept, &error),
        &error);
    info.surface_id = "00000000000000bb";
    info.identity = "{\"c\": 1}";
    info.nx = 2;
    info.x_max = 0;
    fixture_check(store_surface(store, &info, 1e9, &surface_state, &error), &error);
    store_close(store);
    if (has_gnuplot()) {
        FigureRequest request = {.surface_id = "../../up", .folder = "deep/foreign"};
        must_draw("surface", request, &files);
        assert_string_equal(file_of(&files, 2), "deep/foreign/plain-sft-_._.._up-loss.png");
        assert_int_equal(n_entries("deep/foreign"), 3);
    }
    FigureRequest request = {.surface_id = info.surface_id};
    assert_int_equal(draw("surface", request, &drawn, &files, &error), STATUS_REFUSED);
    assert_string_equal(error.message,
                        "surface 00000000000000bb is none: 2 x 1 points, 0 wide and 1 high");
    text_release(&files);
}

static void without_gnuplot_data_and_script_are_there(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    bool drawn;
    FigureRequest request = of_surface();
    request.gnuplot = "/no/such/gnuplot";
    request.folder = "without";
    assert_int_equal(draw("surface", request, &drawn, &files, &error), STATUS_FAILED);
    assert_non_null(strstr(error.message, "its data and script are in \"without\""));
    assert_non_null(strstr(error.message, "install gnuplot-nox"));
    assert_string_equal(text_string(&files), "without/figure.dat\nwithout/figure.gp\n");
    assert_int_equal(n_entries("without"), 2);
    text_release(&files);
}

static void fake_gnuplot(const char *lines)
{
    FILE *file = fopen("fake", "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", lines);
    fclose(file);
    chmod("fake", 0700);
}

static void gnuplots_own_words_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *words;
    } cases[] = {
        {"echo; echo '        ^' >&2; echo '\"x.gp\" line 3: bad token' >&2; echo; exit 2",
         "/fake\" failed with exit code 2: \"x.gp\" line 3: bad token"},
        {"kill -9 $$", "was ended by signal 9: it says nothing"},
        {"exit 0", "gnuplot drew no figure.png"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        Error error = {0};
        Text files = {0};
        bool drawn;
        FigureRequest request = of_surface();
        fake_gnuplot(cases[k].lines);
        request.gnuplot = "./fake";
        request.folder = "failing";
        assert_int_equal(draw("surface", request, &drawn, &files, &error), STATUS_FAILED);
        if (!strstr(error.message, cases[k].words)) {
            fail_msg("\"%s\" lacks \"%s\"", error.message, cases[k].words);
        }
        assert_int_equal(n_entries("failing"), 2);
        text_release(&files);
    }
}

static void a_folder_that_cannot_be_made_is_named(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    bool drawn;
    FigureRequest request = of_surface();
    request.folder = "results.db/figures";
    assert_int_equal(draw("surface", request, &drawn, &files, &error), STATUS_FAILED);
    assert_non_null(strstr(error.message, "results.db"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_drawn_in_the_same_bytes_again_and_by_its_script_alone),
        cmocka_unit_test(nothing_but_the_files_stays_in_the_folder),
        cmocka_unit_test(cells_are_the_stored_values_and_holes_are_nan),
        cmocka_unit_test(means_and_errors_are_those_of_the_seeds),
        cmocka_unit_test(curves_are_means_over_seeds_at_each_step),
        cmocka_unit_test(histograms_hold_every_completion_of_the_first_and_last_steps),
        cmocka_unit_test(parabolas_have_the_curvature_of_the_hessian),
        cmocka_unit_test(previewed_cells_cover_the_whole_picture),
        cmocka_unit_test(hostile_names_run_nothing_and_stay_in_the_folder),
        cmocka_unit_test(a_users_own_settings_of_gnuplot_are_not_read),
        cmocka_unit_test(names_that_become_alike_get_different_files),
        cmocka_unit_test(text_is_shown_as_it_is),
        cmocka_unit_test(colours_of_a_surface_rise_in_lightness),
        cmocka_unit_test(steps_and_ticks_are_round),
        cmocka_unit_test(what_is_not_there_is_not_drawn),
        cmocka_unit_test(unknown_surfaces_and_metrics_are_refused),
        cmocka_unit_test(a_foreign_surface_stays_in_the_folder_or_is_refused),
        cmocka_unit_test(without_gnuplot_data_and_script_are_there),
        cmocka_unit_test(gnuplots_own_words_are_told),
        cmocka_unit_test(a_folder_that_cannot_be_made_is_named),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
