/* Level lines against circles, saddles, holes and edges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "analysis/figure_contour.h"

enum { NX = 41, NY = 33 };
static double x[NX], y[NY], z[NX * NY];
static const SmoothGrid grid = {.nx = NX, .ny = NY, .measured = 9, .x = x, .y = y, .z = z};

static void fill(double (*function)(double, double))
{
    for (int i = 0; i < NX; i++) {
        x[i] = -1.27 + 2.6 * i / (NX - 1);
        for (int j = 0; j < NY; j++) {
            y[j] = -1.31 + 2.5 * j / (NY - 1);
            z[i * NY + j] = function(x[i], y[j]);
        }
    }
}

static double bowl(double a, double b)
{
    return a * a + b * b;
}

static double saddle(double a, double b)
{
    return a * b;
}

typedef struct {
    int n_lines, n_points;
    double first[2], last[2]; /* of the last line */
    double worst;             /* largest |f(x, y) - level| */
} Walk;

static Walk walk(const Text *text, double (*function)(double, double))
{
    Walk result = {0};
    bool begins = true;
    for (const char *line = text_string(text); *line; line += strcspn(line, "\n") + 1) {
        double a, b, level;
        if (*line == '\n') {
            begins = true;
            continue;
        }
        if (sscanf(line, "%lf %lf %lf", &a, &b, &level) != 3 || isnan(a)) {
            continue;
        }
        result.n_points++;
        result.worst = fmax(result.worst, fabs(function(a, b) - level));
        if (begins) {
            result.n_lines++;
            result.first[0] = a;
            result.first[1] = b;
        }
        result.last[0] = a;
        result.last[1] = b;
        begins = false;
    }
    return result;
}

static Walk contours(Text *text, double (*function)(double, double), const double *levels, size_t n)
{
    bool any;
    Error error = {{0}};
    assert_int_equal(contour_add(text, &any, &grid, levels, n, &error), STATUS_OK);
    assert_true(any == (text->n > 0));
    return walk(text, function);
}

static void a_bowl_has_one_closed_ring_a_level(void **state)
{
    (void)state;
    Text text = {0};
    const double levels[] = {0.3127, 0.71};
    fill(bowl);
    Walk one = contours(&text, bowl, levels, 1);
    assert_int_equal(one.n_lines, 1);
    assert_true(one.n_points > 60);
    assert_true(one.first[0] == one.last[0] && one.first[1] == one.last[1]);
    /* Along an edge of length h the error of the line is at most f'' h^2 / 8, h = 0.078. */
    assert_true(one.worst < 2 * 0.0782 * 0.0782 / 8 * 1.01);
    text_clear(&text);
    assert_int_equal(contours(&text, bowl, levels, 2).n_lines, 2);
    text_release(&text);
}

static void lines_end_at_the_edge_of_the_grid(void **state)
{
    (void)state;
    Text text = {0};
    const double level = 2.3;
    fill(bowl);
    Walk corners = contours(&text, bowl, &level, 1);
    assert_int_equal(corners.n_lines, 4);
    assert_true(corners.first[0] != corners.last[0]);
    text_release(&text);
}

static void a_saddle_has_two_branches_that_do_not_cross(void **state)
{
    (void)state;
    Text text = {0};
    fill(saddle);
    for (int sign = -1; sign <= 1; sign += 2) {
        double level = sign * 1e-3;
        text_clear(&text);
        Walk branches = contours(&text, saddle, &level, 1);
        assert_int_equal(branches.n_lines, 2);
        assert_true(branches.worst < 1e-9 + 0.0782 * 0.0782 / 4);
    }
    text_release(&text);
}

static void at_a_saddle_the_middle_says_what_hangs_together(void **state)
{
    (void)state;
    double places[] = {0, 1}, corners[] = {1, 0, 0, 1}; /* (0, 0) and (1, 1) are high */
    const SmoothGrid cell = {.nx = 2, .ny = 2, .x = places, .y = places, .z = corners};
    const double levels[] = {0.4, 0.6}; /* the middle, 0.5, is above the one and below the other */
    for (int k = 0; k < 2; k++) {
        Text text = {0};
        bool any;
        double a[2], b[2], level;
        Error error = {{0}};
        assert_int_equal(contour_add(&text, &any, &cell, &levels[k], 1, &error), STATUS_OK);
        assert_int_equal(
            sscanf(text_string(&text), "%lf %lf %lf %lf %lf", &a[0], &a[1], &level, &b[0], &b[1]),
            5);
        /* A line cuts a low corner off where the high ones hang together, else a high one. */
        bool cuts_low = (a[0] > a[1]) == (b[0] > b[1]);
        assert_true(cuts_low == (k == 0));
        text_release(&text);
    }
}

static void holes_have_no_lines(void **state)
{
    (void)state;
    Text text = {0};
    const double level = 0.3127;
    fill(bowl);
    for (int i = 0; i < NX / 2; i++) {
        for (int j = 0; j < NY; j++) {
            z[i * NY + j] = NAN;
        }
    }
    Walk half = contours(&text, bowl, &level, 1);
    assert_int_equal(half.n_lines, 1);
    assert_true(half.first[0] > x[NX / 2] - 0.08 && half.last[0] > x[NX / 2] - 0.08);
    for (int k = 0; k < NX * NY; k++) {
        z[k] = NAN;
    }
    text_clear(&text);
    assert_int_equal(contours(&text, bowl, &level, 1).n_lines, 0);
    text_release(&text);
}

static void levels_at_values_of_the_grid_and_beyond_are_no_trouble(void **state)
{
    (void)state;
    Text text = {0};
    fill(bowl);
    const double levels[] = {-1, z[5 * NY + 7], z[20 * NY + 16], 99};
    Walk all = contours(&text, bowl, levels, 4);
    assert_true(all.n_lines >= 2);
    assert_true(all.worst < 2 * 0.0782 * 0.0782 / 8 * 1.01);
    for (int k = 0; k < NX * NY; k++) {
        z[k] = 1;
    }
    text_clear(&text);
    const double flat = 1;
    assert_int_equal(contours(&text, bowl, &flat, 1).n_lines, 0);
    text_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bowl_has_one_closed_ring_a_level),
        cmocka_unit_test(lines_end_at_the_edge_of_the_grid),
        cmocka_unit_test(a_saddle_has_two_branches_that_do_not_cross),
        cmocka_unit_test(at_a_saddle_the_middle_says_what_hangs_together),
        cmocka_unit_test(holes_have_no_lines),
        cmocka_unit_test(levels_at_values_of_the_grid_and_beyond_are_no_trouble),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
