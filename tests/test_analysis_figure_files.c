/* Figures as files: hostile names, a folder that has nothing else, a gnuplot that is not there or
 * fails, what is not drawn. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/figure_test.h"

#define HOSTILE                                                                                    \
    "../../up'; system('touch ../hacked') \n`touch ../hacked` $(touch ../hacked) \"%s%n\" @a "     \
    "{/Bold b_c^d}"                                                                                \
    "\xff \\"

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
        cmocka_unit_test(nothing_but_the_files_stays_in_the_folder),
        cmocka_unit_test(hostile_names_run_nothing_and_stay_in_the_folder),
        cmocka_unit_test(a_users_own_settings_of_gnuplot_are_not_read),
        cmocka_unit_test(names_that_become_alike_get_different_files),
        cmocka_unit_test(text_is_shown_as_it_is),
        cmocka_unit_test(what_is_not_there_is_not_drawn),
        cmocka_unit_test(unknown_surfaces_and_metrics_are_refused),
        cmocka_unit_test(a_foreign_surface_stays_in_the_folder_or_is_refused),
        cmocka_unit_test(without_gnuplot_data_and_script_are_there),
        cmocka_unit_test(gnuplots_own_words_are_told),
        cmocka_unit_test(a_folder_that_cannot_be_made_is_named),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
