/* Ranges and their refusals, the order of rows, planes of every kind and what they refuse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "analysis/plane.h"
#include "core/random.h"

static PlaneRange range_of(const char *text)
{
    PlaneRange range;
    Error told = {{0}};
    if (plane_range_parse(&range, text, &told) != STATUS_OK) {
        fail_msg("%s", told.message);
    }
    return range;
}

static void coordinates_have_exact_ends_and_an_exact_zero(void **state)
{
    (void)state;
    const char *const texts[] = {"-0.05:0.05:21", "-0.3:0.1:5",  "-0.07:0.14:100", "-1e-30:2e-30:4",
                                 "-3e38:3e38:3",  "-0.1:0.2:31", "-1.1:2.2:4",     "-0.7:0.1:9",
                                 "0:1:7",         "-0.049:0:2",  "+.5:1e0:2"};
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
        PlaneRange range = range_of(texts[k]);
        assert_true(plane_coordinate(&range, 0) == range.min);
        assert_true(plane_coordinate(&range, range.n - 1) == range.max);
        double step = (range.max - range.min) / (range.n - 1);
        for (int i = 1; i < range.n; i++) {
            double x = plane_coordinate(&range, i);
            assert_true(x > plane_coordinate(&range, i - 1));
            assert_true(fabs(x - (range.min + i * step)) <=
                        1e-15 * range.n * fabs(range.max) + 1e-9 * step);
            assert_true(x == 0 || fabs(x) > 1e-9 * step);
        }
    }
    PlaneRange odd = range_of("-0.05:0.05:21"), even = range_of("-0.05:0.05:20");
    assert_true(plane_coordinate(&odd, 10) == 0 && !signbit(plane_coordinate(&odd, 10)));
    assert_true(plane_coordinate(&even, 9) < 0 && plane_coordinate(&even, 10) > 0);
    odd = range_of("-0.1:0.2:31");
    assert_true(plane_coordinate(&odd, 10) == 0);
}

static void bad_ranges_are_refused_with_the_right_form(void **state)
{
    (void)state;
    static const struct {
        const char *text, *rule;
    } bad[] = {
        {"", "min is not a number"},
        {"a:1:3", "min is not a number"},
        {"nan:1:3", "min is not a number"},
        {"0x1p3:9:3", "min is not a number"},
        {" 0:1:3", "min is not a number"},
        {"1-2:5:3", "min is not a number"},
        {"0.5", "min is not a number"},
        {"0:inf:3", "max is not a number"},
        {"0::3", "max is not a number"},
        {"0:1", "max is not a number"},
        {"0:1:", "points is not a whole number"},
        {"0:1:3.5", "points is not a whole number"},
        {"0:1:-3", "points is not a whole number"},
        {"0:1:1e3", "points is not a whole number"},
        {"0:1:3:4", "points is not a whole number"},
        {"0:1e999:3", "beyond single precision"},
        {"-4e38:1:3", "beyond single precision"},
        {"0.05:0.05:21", "an empty range, min is not below max"},
        {"0.05:-0.05:21", "an empty range, min is not below max"},
        {"0:1:1", "fewer than 2 points make no range"},
        {"0:1:0", "fewer than 2 points make no range"},
        {"0:1:100001", "more than 100000 points on one axis"},
        {"0:1:99999999999999999999", "more than 100000 points on one axis"},
        {"1:1.000000000000001:100", "points so close that they coincide"},
    };
    PlaneRange range = {7, 8, 9};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        char expected[256];
        Error told = {{0}};
        snprintf(expected, sizeof expected,
                 "range \"%s\": %s; expected min:max:points, such as \"-0.05:0.05:21\"",
                 bad[k].text, bad[k].rule);
        assert_int_equal(plane_range_parse(&range, bad[k].text, &told), STATUS_USAGE);
        assert_string_equal(told.message, expected);
    }
    assert_int_equal(range.n, 9);
    assert_int_equal(range_of("0:1:100000").n, 100000);
}

static void rows_come_coarse_to_fine(void **state)
{
    (void)state;
    int order[1000];
    const int expected[] = {0, 20, 10, 5, 15, 2, 12, 7, 17};
    plane_order(order, 21);
    assert_memory_equal(order, expected, sizeof expected);
    for (int n = 1; n <= 1000; n += n < 70 ? 1 : 31) {
        char seen[1000] = {0};
        plane_order(order, n);
        for (int k = 0; k < n; k++) {
            assert_true(order[k] >= 0 && order[k] < n && !seen[order[k]]);
            seen[order[k]] = 1;
            /* every prefix leaves no gap wider than about twice the even one */
            int gap = 0, widest = 0;
            for (int i = 0; i < n && k >= 1; i++) {
                gap = seen[i] ? 0 : gap + 1;
                widest = gap > widest ? gap : widest;
            }
            assert_true(widest <= 2 * n / (k + 1) + 1);
        }
    }
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void fill(double *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = random_normal((RandomKey){seed, RANDOM_INIT}, (uint32_t)i, 0, 0, 0);
    }
}

static void a_plane_of_two_scalars_is_the_grid_itself(void **state)
{
    (void)state;
    const double zero[2] = {0, 0};
    Plane plane;
    Error told = {{0}};
    assert_int_equal(plane_axes(&plane, zero, 2, 0, 1, &told), STATUS_OK);
    PlaneRange range = range_of("-0.05:0.05:21");
    for (int i = 0; i < 21; i++) {
        float v[2];
        double x = plane_coordinate(&range, i), y = plane_coordinate(&range, 20 - i);
        plane_point(v, &plane, x, y);
        assert_true(v[0] == (float)x && v[1] == (float)y);
    }
    float v[2], start[2] = {0, 0};
    plane_point(v, &plane, 0, 0);
    assert_memory_equal(v, start, sizeof v); /* +0: the start values bit for bit */
    plane_release(&plane);
    assert_null(plane.basis);
}

static void random_planes_are_orthonormal_and_depend_on_the_seed_alone(void **state)
{
    (void)state;
    double origin[13];
    Plane a, b, c;
    Error told = {{0}};
    fill(origin, 13, 1);
    assert_int_equal(plane_random(&a, origin, 13, 4, &told), STATUS_OK);
    assert_int_equal(plane_random(&b, origin, 13, 4, &told), STATUS_OK);
    assert_int_equal(plane_random(&c, origin, 13, 5, &told), STATUS_OK);
    assert_memory_equal(a.basis, b.basis, 3 * 13 * sizeof(double));
    assert_memory_equal(a.basis, origin, sizeof origin);
    const double *x = a.basis + 13, *y = a.basis + 26;
    assert_true(fabs(dot(x, x, 13) - 1) < 1e-14 && fabs(dot(y, y, 13) - 1) < 1e-14);
    assert_true(fabs(dot(x, y, 13)) < 1e-15);
    assert_true(fabs(dot(x, c.basis + 13, 13)) < 0.99);
    plane_release(&a);
    plane_release(&b);
    plane_release(&c);
}

static void the_foot_of_a_point_is_where_it_was_put(void **state)
{
    (void)state;
    enum { n = 7 };
    double origin[n], v[n], normal[n], x, y, distance;
    Plane plane = {.n = n, .basis = malloc(3 * n * sizeof(double))};
    fill(plane.basis, 3 * n, 2); /* neither orthogonal nor of length 1 */
    memcpy(origin, plane.basis, sizeof origin);
    const double *dx = plane.basis + n, *dy = plane.basis + 2 * n;
    fill(normal, n, 3);
    /* a vector orthogonal to both directions, by naive elimination */
    double a = dot(dx, dx, n), b = dot(dx, dy, n), c = dot(dy, dy, n), p = dot(normal, dx, n),
           q = dot(normal, dy, n), det = a * c - b * b;
    for (int i = 0; i < n; i++) {
        normal[i] -= (p * c - q * b) / det * dx[i] + (q * a - p * b) / det * dy[i];
    }
    for (int i = 0; i < n; i++) {
        v[i] = origin[i] + 0.31 * dx[i] - 1.27 * dy[i] + normal[i];
    }
    plane_project(&x, &y, &distance, &plane, v);
    assert_true(fabs(x - 0.31) < 1e-13 && fabs(y + 1.27) < 1e-13);
    assert_true(fabs(distance - sqrt(dot(normal, normal, n))) < 1e-13);
    plane_release(&plane);
}

/* A path in a known plane with a little noise: the plane is found, its shares are those of the
 * exact spectrum, and its origin is the last point. For more points than scalars and for fewer. */
static void principal_directions_hold_the_path(void **state)
{
    (void)state;
    enum { n = 11, most = 30 };
    for (int n_points = 4; n_points <= most; n_points += 26) {
        double path[most * n], u[n], w[n], shares[2], noise[n];
        fill(u, n, 5);
        fill(w, n, 6);
        for (int k = 0; k < n_points; k++) {
            double t = (double)k / (n_points - 1);
            fill(noise, n, (uint64_t)(100 + k));
            for (int i = 0; i < n; i++) {
                path[k * n + i] = 3 * t * u[i] + sin(4 * t) * w[i] + 1e-4 * noise[i];
            }
        }
        Plane plane;
        Error told = {{0}};
        assert_int_equal(plane_pca(&plane, shares, path, (size_t)n_points, n, &told), STATUS_OK);
        assert_memory_equal(plane.basis, path + (n_points - 1) * n, n * sizeof(double));
        const double *dx = plane.basis + n, *dy = plane.basis + 2 * n;
        assert_true(fabs(dot(dx, dx, n) - 1) < 1e-13 && fabs(dot(dx, dy, n)) < 1e-13);
        double seen[2] = {0, 0}, total = 0;
        for (int k = 0; k < n_points; k++) {
            double x, y, distance;
            plane_project(&x, &y, &distance, &plane, path + k * n);
            assert_true(distance < 2e-3);
            seen[0] += x * x;
            seen[1] += y * y;
            total += x * x + y * y + distance * distance;
        }
        assert_true(fabs(shares[0] - seen[0] / total) < 1e-12);
        assert_true(fabs(shares[1] - seen[1] / total) < 1e-12);
        assert_true(shares[0] > shares[1] && shares[0] + shares[1] > 0.9999);
        double largest = 0;
        for (int i = 0; i < n; i++) {
            largest = fabs(dx[i]) > fabs(largest) ? dx[i] : largest;
        }
        assert_true(largest > 0);
        plane_release(&plane);
    }
}

static void a_plane_through_two_runs_has_them_at_their_places(void **state)
{
    (void)state;
    enum { n = 13 };
    double base[n] = {0}, a[n], b[n], x, y, distance;
    Plane plane;
    Error told = {{0}};
    fill(a, n, 7);
    fill(b, n, 8);
    assert_int_equal(plane_through(&plane, base, a, b, n, &told), STATUS_OK);
    const double *dx = plane.basis + n, *dy = plane.basis + 2 * n;
    assert_true(fabs(dot(dx, dy, n)) < 1e-13);
    assert_true(fabs(dot(dx, dx, n) - dot(dy, dy, n)) < 1e-13);
    plane_project(&x, &y, &distance, &plane, a);
    assert_true(fabs(x - 1) < 1e-14 && fabs(y) < 1e-14 && distance < 1e-14);
    plane_project(&x, &y, &distance, &plane, b);
    assert_true(y > 0 && distance < 1e-14);
    float v[n], zero[n] = {0};
    plane_point(v, &plane, 0, 0);
    assert_memory_equal(v, zero, sizeof v);
    plane_release(&plane);
}

static void refused(Status status, const Error *told, const char *message)
{
    assert_int_equal(status, STATUS_USAGE);
    assert_string_equal(told->message, message);
}

static void directions_that_span_no_plane_are_refused(void **state)
{
    (void)state;
    double zero[3] = {0, 0, 0}, a[3] = {0.3, 0, -0.1}, b[3] = {-0.6, 0, 0.2}, nan[3] = {0, NAN, 0};
    double nearly[3] = {-0.6, 1e-8, 0.2}, apart[3] = {-0.6, 1e-5, 0.2};
    Plane plane;
    Error told = {{0}};
    refused(plane_axes(&plane, zero, 3, 0, 3, &told), &told,
            "axis 3: the adapter has scalars 0 to 2");
    refused(plane_axes(&plane, zero, 3, 1, 1, &told), &told,
            "the directions of x and y are parallel (0 degrees apart): both are axis 1");
    refused(plane_random(&plane, zero, 1, 1, &told), &told,
            "a plane needs at least 2 trained scalars, the adapter has 1");
    refused(plane_random(&plane, nan, 3, 1, &told), &told,
            "the origin is not finite (scalar 2 of 3)");
    refused(plane_through(&plane, zero, a, zero, 3, &told), &told,
            "the way from the base to the second point is zero: it has no direction");
    refused(plane_through(&plane, zero, zero, a, 3, &told), &told,
            "the way from the base to the first point is zero: it has no direction");
    refused(plane_through(&plane, zero, a, nan, 3, &told), &told,
            "the second point is not finite (scalar 2 of 3)");
    refused(plane_through(&plane, zero, a, b, 3, &told), &told,
            "the way from the base to the first point and the way from the base to the second "
            "point are parallel (0.000000 degrees apart): they span a line, no plane");
    refused(plane_through(&plane, zero, a, nearly, 3, &told), &told,
            "the way from the base to the first point and the way from the base to the second "
            "point are parallel (0.000001 degrees apart): they span a line, no plane");
    assert_int_equal(plane_through(&plane, zero, a, apart, 3, &told), STATUS_OK);
    plane_release(&plane);

    double path[12] = {0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.5, 0.2, 0.3, 0.1, 0.2, 0.3};
    refused(plane_pca(&plane, NULL, path, 4, 3, &told), &told,
            "principal directions need 3 different points, the path has 2: store more checkpoints "
            "of the run, or use random directions or two axes");
    path[3] = 0.75;
    refused(plane_pca(&plane, NULL, path, 4, 3, &told), &told,
            "the path's 4 points lie on a line: there is no second principal direction; use random "
            "directions, or two axes");
    path[4] = NAN;
    refused(plane_pca(&plane, NULL, path, 4, 3, &told), &told, "point 2 of the path is not finite");
    refused(plane_pca(&plane, NULL, path, 0, 3, &told), &told,
            "principal directions need 3 different points, the path has 0: store more checkpoints "
            "of the run, or use random directions or two axes");
}

static void ranges_hold_the_points_and_the_origin(void **state)
{
    (void)state;
    const double x[] = {-0.2, 1.7, 0.9}, y[] = {3.1, 3.4, 3.2}, same[] = {0, 0, 0};
    PlaneRange rx, ry;
    plane_ranges(&rx, &ry, x, y, 3, 21);
    double step = (rx.max - rx.min) / 20;
    assert_true(fabs(step - 1.5 * 1.9 / 20) < 1e-12);
    assert_true(fabs(rx.min - (-0.2 - 1.9 / 4)) <= step && fabs(rx.max - (1.7 + 1.9 / 4)) <= step);
    int zeros = 0;
    for (int i = 0; i < rx.n; i++) {
        zeros += plane_coordinate(&rx, i) == 0;
    }
    assert_int_equal(zeros, 1);
    assert_true(fabs(ry.min - 3.025) < 1e-12 && fabs(ry.max - 3.475) < 1e-12);
    plane_ranges(&rx, &ry, x, same, 3, 11); /* a path along x */
    assert_true(ry.min < 0 && ry.max > 0 && ry.max - ry.min >= 1.9);
    plane_ranges(&rx, &ry, same, same, 3, 11);
    assert_true(rx.min < 0 && rx.max > 0 && ry.min < 0 && ry.max > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coordinates_have_exact_ends_and_an_exact_zero),
        cmocka_unit_test(bad_ranges_are_refused_with_the_right_form),
        cmocka_unit_test(rows_come_coarse_to_fine),
        cmocka_unit_test(a_plane_of_two_scalars_is_the_grid_itself),
        cmocka_unit_test(random_planes_are_orthonormal_and_depend_on_the_seed_alone),
        cmocka_unit_test(the_foot_of_a_point_is_where_it_was_put),
        cmocka_unit_test(principal_directions_hold_the_path),
        cmocka_unit_test(a_plane_through_two_runs_has_them_at_their_places),
        cmocka_unit_test(directions_that_span_no_plane_are_refused),
        cmocka_unit_test(ranges_hold_the_points_and_the_origin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
