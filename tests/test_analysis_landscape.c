/* Derivatives and minima of small random models against the double-precision reference, and
 * resampling against surfaces that are known. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "analysis/landscape.h"
#include "tests/reference_adapter.h"
#include "tests/tiny_task.h"

enum { MOST = 13 };

/* A machine of n scalars, u = 1. */
static Trainer trainer_of(TinyTask *tiny, int n, int capacity, int n_threads)
{
    Trainer trainer = {0};
    Error error = {{0}};
    AdapterSpec spec = {.method = "tinylora",
                        .plan = {.rank = 2,
                                 .u = 1,
                                 .groups = n,
                                 .tie = TIE_TILED,
                                 .grouping = GROUPING_BALANCED,
                                 .n_modules = 2 * N_ROLES,
                                 .parameters = n},
                        .targets = (1u << N_ROLES) - 1,
                        .seed = 13,
                        .scale = 1};
    tiny_require(adapter_bank_new(&trainer.bank, tiny->model, &spec, capacity, n_threads, NULL,
                                  NULL, NULL, &error),
                 &error);
    tiny_require(engine_new(&trainer.engine, tiny->model, n_threads, 0, &error), &error);
    return trainer;
}

typedef struct {
    Reference *weights;
    ReferenceAdapter adapter;
    const Task *task;
} Judge;

static double loss_at(const Judge *judge, const double *v)
{
    double sum = 0;
    long n_scored = 0;
    reference_adapt(judge->weights, &judge->adapter, v);
    for (int row = 0; row < judge->task->n_rows; row++) {
        int32_t tokens[64];
        double logprobs[64];
        int n_prompt = judge->task->prompts[row].n, n_answer = judge->task->n_answer[row];
        memcpy(tokens, judge->task->prompts[row].ids, (size_t)n_prompt * sizeof *tokens);
        memcpy(tokens + n_prompt, judge->task->answers[row], (size_t)n_answer * sizeof *tokens);
        reference_score(judge->weights, tokens, n_prompt + n_answer, 1, logprobs, NULL);
        for (int t = n_prompt; t < n_prompt + n_answer; t++, n_scored++) {
            sum -= logprobs[t];
        }
    }
    return sum / (double)n_scored;
}

/* d2 loss / dv_i dv_j by differences of the loss in double: truncation h^2 = 1e-6, rounding 1e-9.
 */
static double second_difference(const Judge *judge, const double *v, int n, int i, int j)
{
    const double h = 1e-3;
    double at[MOST], sum = 0;
    for (int a = -1; a <= 1; a += 2) {
        for (int b = -1; b <= 1; b += 2) {
            memcpy(at, v, (size_t)n * sizeof *at);
            at[i] += a * h;
            at[j] += b * h;
            sum += a * b * loss_at(judge, at);
        }
    }
    return sum / (4 * h * h);
}

/* Measured: below 1e-4 of the norm; one step instead of two gives 2e-4 to 1e-3. Of 13 scalars a
 * column is judged. */
static void the_hessian_is_that_of_differences_of_the_loss(void **state)
{
    (void)state;
    static const int sizes[] = {2, 3, 13, 1};
    for (int k = 0; k < 4; k++) {
        int n = sizes[k];
        TinyTask tiny = tiny_task_open(k % 2 ? ARCHITECTURE_QWEN2 : ARCHITECTURE_LLAMA, k == 2,
                                       (uint64_t)(31 + k));
        Trainer trainer = trainer_of(&tiny, n, 8, 2);
        Judge judge = {reference_open(tiny.model),
                       reference_adapter(tiny.model, adapter_spec(trainer.bank)), tiny.task};
        MeasureSettings settings = {.task = tiny.task, .metrics = MEASURE_ACCURACY};
        double hessian[MOST * MOST], values[MOST], vectors[MOST * MOST], at[MOST];
        float v[MOST];
        Error told = {{0}};
        for (int i = 0; i < n; i++) {
            RandomKey key = {9, RANDOM_INIT};
            v[i] = k == 0 ? 0 : (float)(0.2 * random_normal(key, (uint32_t)i, 0, 0, 0));
            at[i] = (double)v[i];
        }
        tiny_require(landscape_hessian(hessian, values, vectors, &trainer, &settings, v, (size_t)n,
                                       0, NULL, &told),
                     &told);
        double norm = 0, error = 0, seen = 0;
        for (int i = 0; i < n * n; i++) {
            norm += hessian[i] * hessian[i];
        }
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < (n > 3 ? 1 : n); j++, seen++) {
                double expected = second_difference(&judge, at, n, i, j);
                error += pow(hessian[i * n + j] - expected, 2);
                assert_true(hessian[i * n + j] == hessian[j * n + i]);
            }
        }
        assert_true(sqrt(error) < 2e-4 * sqrt(norm * seen / (n * n)));
        /* H x = lambda x, falling, orthonormal, largest element positive */
        for (int a = 0; a < n; a++) {
            const double *x = vectors + a * n;
            double largest = 0;
            assert_true(a == 0 || values[a] <= values[a - 1]);
            for (int i = 0; i < n; i++) {
                double product = 0, inner = 0;
                for (int j = 0; j < n; j++) {
                    product += hessian[i * n + j] * x[j];
                    inner += vectors[i * n + j] * x[j];
                }
                assert_true(fabs(product - values[a] * x[i]) < 1e-12 * sqrt(norm));
                assert_true(fabs(inner - (i == a)) < 1e-12);
                largest = fabs(x[i]) > fabs(largest) ? x[i] : largest;
            }
            assert_true(largest > 0);
        }
        /* the same bits one by one on another number of threads */
        double again[MOST * MOST];
        Trainer single = trainer_of(&tiny, n, 1, 1);
        tiny_require(landscape_hessian(again, values, vectors, &single, &settings, v, (size_t)n, 0,
                                       NULL, &told),
                     &told);
        assert_memory_equal(again, hessian, (size_t)(n * n) * sizeof *again);
        tiny_trainer_close(&single);
        reference_adapter_release(&judge.adapter);
        reference_free(judge.weights);
        tiny_trainer_close(&trainer);
        tiny_task_close(&tiny);
    }
}

static void a_hessian_that_is_not_there_is_refused(void **state)
{
    (void)state;
    enum { n = 9 };
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, false, 31);
    Trainer trainer = trainer_of(&tiny, n, 8, 1);
    MeasureSettings settings = {.task = tiny.task};
    double hessian[n * n], values[n], vectors[n * n];
    float v[n] = {NAN};
    Error told = {{0}};
    assert_int_equal(
        landscape_hessian(hessian, values, vectors, &trainer, &settings, v, n, 0, NULL, &told),
        STATUS_FAILED);
    assert_string_equal(told.message, "the gradient near here is not finite (scalar 1 of 9)");
    v[0] = 0;
    /* far too small a step: nothing but rounding, and nine scalars do not round alike twice */
    assert_int_equal(
        landscape_hessian(hessian, values, vectors, &trainer, &settings, v, n, 1e-9, NULL, &told),
        STATUS_FAILED);
    assert_non_null(strstr(told.message, "the Hessian is not certain: its halves differ by "));
    assert_int_equal(
        landscape_hessian(hessian, values, vectors, &trainer, &settings, v, 513, 0, NULL, &told),
        STATUS_USAGE);
    assert_string_equal(told.message,
                        "the Hessian of 513 scalars is not computed: 1 to 512 scalars");
    settings.n_rows = 99;
    assert_int_equal(
        landscape_hessian(hessian, values, vectors, &trainer, &settings, v, n, 0, NULL, &told),
        STATUS_USAGE);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static void the_minimum_lies_below_every_value_of_the_grid(void **state)
{
    (void)state;
    enum { n = 9 };
    for (int architecture = 0; architecture < 2; architecture++) {
        TinyTask tiny = tiny_task_open(architecture ? ARCHITECTURE_QWEN2 : ARCHITECTURE_LLAMA, true,
                                       (uint64_t)(41 + architecture));
        Trainer trainer = trainer_of(&tiny, 2, n * n, 2);
        MeasureSettings settings = {.task = tiny.task, .metrics = MEASURE_LOSS};
        PlaneRange range = {-0.6, 0.6, n};
        const double origin[2] = {0, 0};
        Plane plane;
        Error told = {{0}};
        tiny_require(plane_axes(&plane, origin, 2, 0, 1, &told), &told);
        float v[2 * n * n];
        Measured grid[n * n];
        memset(grid, 0, sizeof grid);
        for (int k = 0; k < n * n; k++) {
            plane_point(v + 2 * k, &plane, plane_coordinate(&range, k / n),
                        plane_coordinate(&range, k % n));
        }
        tiny_require(measure_points(grid, &trainer, &settings, v, n * n, &told), &told);
        int best = 0;
        for (int k = 1; k < n * n; k++) {
            best = grid[k].values[0] < grid[best].values[0] ? k : best;
        }
        Minimum minimum, again;
        double x = plane_coordinate(&range, best / n), y = plane_coordinate(&range, best % n);
        tiny_require(landscape_minimum(&minimum, &trainer, &settings, &plane, &range, &range, x, y,
                                       NULL, &told),
                     &told);
        for (int k = 0; k < n * n; k++) {
            assert_true(minimum.loss < grid[k].values[0]);
            measured_release(&grid[k]);
        }
        assert_true(minimum.improved && minimum.n_evaluations > 1 && minimum.n_evaluations < 60);
        if (!minimum.at_edge) {
            /* in double precision, too, the loss rises in all directions from there */
            assert_true(minimum.converged);
            Judge judge = {reference_open(tiny.model),
                           reference_adapter(tiny.model, adapter_spec(trainer.bank)), tiny.task};
            double at[2] = {(double)(float)minimum.x, (double)(float)minimum.y};
            double here = loss_at(&judge, at);
            assert_true(fabs(here - minimum.loss) < 1e-5);
            for (int k = 0; k < 4; k++) {
                double near[2] = {at[0], at[1]};
                near[k / 2] += k % 2 ? 0.02 : -0.02;
                assert_true(loss_at(&judge, near) > here);
            }
            reference_adapter_release(&judge.adapter);
            reference_free(judge.weights);
        }
        /* the same from the same start; from itself nothing is lost */
        tiny_require(landscape_minimum(&again, &trainer, &settings, &plane, &range, &range, x, y,
                                       NULL, &told),
                     &told);
        assert_true(again.x == minimum.x && again.y == minimum.y && again.loss == minimum.loss);
        tiny_require(landscape_minimum(&again, &trainer, &settings, &plane, &range, &range,
                                       minimum.x, minimum.y, NULL, &told),
                     &told);
        assert_true(again.loss <= minimum.loss);
        assert_true(again.improved == (again.loss < minimum.loss));
        plane_release(&plane);
        tiny_trainer_close(&trainer);
        tiny_task_close(&tiny);
    }
}

/* A range on a slope: the search stops at the edge, a tenth of the width beyond the grid. */
static void the_search_stays_near_the_grid(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 41);
    Trainer trainer = trainer_of(&tiny, 2, 1, 1);
    MeasureSettings settings = {.task = tiny.task};
    const double origin[2] = {0, 0};
    PlaneRange rx = {-0.01, 0.01, 5}, ry = {0.02, 0.03, 3};
    Plane plane;
    Minimum minimum;
    Error told = {{0}};
    tiny_require(plane_axes(&plane, origin, 2, 0, 1, &told), &told);
    tiny_require(
        landscape_minimum(&minimum, &trainer, &settings, &plane, &rx, &ry, 0, 0.025, NULL, &told),
        &told);
    assert_true(minimum.at_edge && minimum.improved);
    assert_true(minimum.x >= -0.0121 && minimum.x <= 0.0121);
    assert_true(minimum.y >= 0.0189 && minimum.y <= 0.0311);

    PlaneRange huge = {-3e38, 3e38, 3};
    assert_int_equal(landscape_minimum(&minimum, &trainer, &settings, &plane, &huge, &huge, 3e38, 0,
                                       NULL, &told),
                     STATUS_FAILED);
    assert_string_equal(told.message, "the loss or its gradient at x = 3e+38, y = 0 is not finite");
    settings.n_rows = 99;
    assert_int_equal(
        landscape_minimum(&minimum, &trainer, &settings, &plane, &rx, &ry, 0, 0, NULL, &told),
        STATUS_USAGE);
    plane_release(&plane);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

/* Directions without length: every point is the start. */
static void a_start_that_cannot_be_improved_says_so(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_QWEN2, false, 43);
    Trainer trainer = trainer_of(&tiny, 2, 1, 1);
    MeasureSettings settings = {.task = tiny.task};
    Plane plane = {.n = 2, .basis = calloc(6, sizeof(double))};
    PlaneRange range = {-1, 1, 3};
    Minimum minimum;
    Error told = {{0}};
    tiny_require(
        landscape_minimum(&minimum, &trainer, &settings, &plane, &range, &range, 0, 0, NULL, &told),
        &told);
    assert_true(!minimum.improved && minimum.converged && !minimum.at_edge);
    assert_int_equal(minimum.n_evaluations, 1);
    plane_release(&plane);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

/* What a search measured, in order; the first n_known of them may be recalled. */
typedef struct {
    int n_known, n_kept, n_recalled;
    struct {
        double x, y, loss, slopes[MOST];
    } points[128];
} Kept;

static bool recall(void *context, int k, double x, double y, double *loss, double *slopes, size_t n)
{
    Kept *kept = context;
    if (k >= kept->n_known) {
        return false;
    }
    assert_true(isnan(x) ? isnan(kept->points[k].x) : kept->points[k].x == x);
    assert_true(isnan(y) ? isnan(kept->points[k].y) : kept->points[k].y == y);
    *loss = kept->points[k].loss;
    memcpy(slopes, kept->points[k].slopes, n * sizeof *slopes);
    kept->n_recalled++;
    return true;
}

static Status keep(void *context, int k, double x, double y, double loss, const double *slopes,
                   size_t n, Error *error)
{
    (void)error;
    Kept *kept = context;
    assert_in_range(k, 0, 127);
    kept->points[k].x = x;
    kept->points[k].y = y;
    kept->points[k].loss = loss;
    memcpy(kept->points[k].slopes, slopes, n * sizeof *slopes);
    kept->n_kept++;
    return STATUS_OK;
}

/* Stopped after any measurement and begun again, it measures the rest alone, with the same end. */
static void a_search_goes_on_where_it_was(void **state)
{
    (void)state;
    enum { n = 2 };
    static Kept kept;
    LandscapeMemory memory = {&kept, recall, keep};
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 41);
    Trainer trainer = trainer_of(&tiny, n, 8, 1);
    MeasureSettings settings = {.task = tiny.task, .metrics = MEASURE_LOSS};
    PlaneRange range = {-0.6, 0.6, 9};
    const double origin[n] = {0, 0};
    const float v[n] = {0};
    double hessian[n * n], values[n], vectors[n * n], again[n * n];
    Plane plane;
    Minimum minimum, repeated;
    Error told = {{0}};
    tiny_require(plane_axes(&plane, origin, n, 0, 1, &told), &told);
    tiny_require(landscape_minimum(&minimum, &trainer, &settings, &plane, &range, &range, 0, 0,
                                   &memory, &told),
                 &told);
    int total = kept.n_kept;
    assert_int_equal(total, minimum.n_evaluations);
    for (int known = 0; known <= total; known += 3) {
        kept.n_known = known;
        kept.n_kept = kept.n_recalled = 0;
        tiny_require(landscape_minimum(&repeated, &trainer, &settings, &plane, &range, &range, 0, 0,
                                       &memory, &told),
                     &told);
        assert_memory_equal(&repeated.x, &minimum.x, 3 * sizeof(double)); /* x, y, loss */
        assert_int_equal(repeated.converged, minimum.converged);
        assert_int_equal(kept.n_recalled, known);
        assert_int_equal(kept.n_kept, total - known);
    }
    memset(&kept, 0, sizeof kept);
    tiny_require(
        landscape_hessian(hessian, values, vectors, &trainer, &settings, v, n, 0, &memory, &told),
        &told);
    assert_int_equal(kept.n_kept, 4 * n);
    for (int known = 0; known <= 4 * n; known++) {
        kept.n_known = known;
        kept.n_kept = kept.n_recalled = 0;
        tiny_require(
            landscape_hessian(again, values, vectors, &trainer, &settings, v, n, 0, &memory, &told),
            &told);
        assert_memory_equal(again, hessian, sizeof again);
        assert_int_equal(kept.n_recalled, known);
        assert_int_equal(kept.n_kept, 4 * n - known);
    }
    plane_release(&plane);
    tiny_trainer_close(&trainer);
    tiny_task_close(&tiny);
}

static double smooth(double x, double y)
{
    return sin(2 * x) * cos(y) + 0.3 * x;
}

static void resampling_is_bicubic_where_it_can_be(void **state)
{
    (void)state;
    enum { nx = 9, ny = 7, fx = 41, fy = 33 };
    double x[nx], y[ny], z[nx * ny], fine[fx * fy];
    for (int i = 0; i < nx; i++) {
        x[i] = -1 + 2.0 * i / (nx - 1);
    }
    for (int j = 0; j < ny; j++) {
        y[j] = 0.5 + 1.5 * j / (ny - 1);
    }
    for (int k = 0; k < nx * ny; k++) {
        z[k] = smooth(x[k / ny], y[k % ny]);
    }
    Error told = {{0}};
    memset(fine, 0xff, sizeof fine);
    tiny_require(landscape_resample(fine, fx, fy, z, x, nx, y, ny, &told), &told);
    for (int k = 0; k < fx * fy; k++) {
        double at_x = -1 + 2.0 * (k / fy) / (fx - 1), at_y = 0.5 + 1.5 * (k % fy) / (fy - 1);
        double border = fmin(fmin(at_x + 1, 1 - at_x) / 0.25, fmin(at_y - 0.5, 2 - at_y) / 0.25);
        /* splines with natural ends are poorer at the border; bilinear would err by 0.03 */
        assert_true(fabs(fine[k] - smooth(at_x, at_y)) < (border >= 2 ? 1e-3 : 0.02));
    }
    for (int i = 0; i < nx; i++) { /* x meets the grid every 5 points, y nowhere but at its ends */
        assert_true(fabs(fine[i * 5 * fy] - z[i * ny]) < 1e-14);
        assert_true(fabs(fine[i * 5 * fy + fy - 1] - z[i * ny + ny - 1]) < 1e-14);
    }
    /* 3 x 4 points: bilinear, exact on a plane with a twist */
    double small[12], px[3] = {0, 1, 3}, py[4] = {-1, 0, 2, 5}, out[7 * 13];
    for (int k = 0; k < 12; k++) {
        small[k] = 2 + px[k / 4] - 3 * py[k % 4] + 0.5 * px[k / 4] * py[k % 4];
    }
    tiny_require(landscape_resample(out, 7, 13, small, px, 3, py, 4, &told), &told);
    for (int k = 0; k < 7 * 13; k++) {
        double at_x = 0.5 * (k / 13), at_y = -1 + 0.5 * (k % 13);
        assert_true(fabs(out[k] - (2 + at_x - 3 * at_y + 0.5 * at_x * at_y)) < 1e-13);
    }
}

static void holes_stay_holes_and_spoil_no_more_than_their_cells(void **state)
{
    (void)state;
    enum { n = 7, f = 25 }; /* 4 fine steps a cell */
    double x[n], z[n * n], whole[f * f], fine[f * f];
    for (int i = 0; i < n; i++) {
        x[i] = -0.3 + 0.1 * i; /* not quite what the fine points meet */
    }
    for (int k = 0; k < n * n; k++) {
        z[k] = smooth(x[k / n], x[k % n]);
    }
    Error told = {{0}};
    tiny_require(landscape_resample(whole, f, f, z, x, n, x, n, &told), &told);
    z[2 * n + 3] = NAN;
    z[0] = INFINITY;
    tiny_require(landscape_resample(fine, f, f, z, x, n, x, n, &told), &told);
    for (int i = 0; i < f; i++) {
        for (int j = 0; j < f; j++) {
            bool hole = (abs(i - 8) < 4 && abs(j - 12) < 4) || (i < 4 && j < 4);
            assert_true(isnan(fine[i * f + j]) == hole);
            assert_true(hole || fabs(fine[i * f + j] - whole[i * f + j]) < 0.01);
        }
    }
    for (int k = 0; k < n * n; k++) {
        z[k] = NAN;
    }
    tiny_require(landscape_resample(fine, f, f, z, x, n, x, n, &told), &told);
    for (int k = 0; k < f * f; k++) {
        assert_true(isnan(fine[k]));
    }
}

static void grids_that_cannot_be_resampled_are_refused(void **state)
{
    (void)state;
    double x[4] = {0, 1, 1, 2}, y[4] = {0, 1, 2, 3}, z[16] = {0}, fine[16];
    Error told = {{0}};
    assert_int_equal(landscape_resample(fine, 4, 4, z, x, 4, y, 4, &told), STATUS_USAGE);
    assert_string_equal(told.message, "the coordinates of x do not rise");
    assert_int_equal(landscape_resample(fine, 4, 4, z, y, 4, x, 4, &told), STATUS_USAGE);
    assert_string_equal(told.message, "the coordinates of y do not rise");
    assert_int_equal(landscape_resample(fine, 4, 4, z, y, 1, y, 4, &told), STATUS_USAGE);
    assert_string_equal(told.message,
                        "a grid of 1 x 4 points cannot be drawn with 4 x 4: 2 are the least");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hessian_is_that_of_differences_of_the_loss),
        cmocka_unit_test(a_hessian_that_is_not_there_is_refused),
        cmocka_unit_test(the_minimum_lies_below_every_value_of_the_grid),
        cmocka_unit_test(the_search_stays_near_the_grid),
        cmocka_unit_test(a_start_that_cannot_be_improved_says_so),
        cmocka_unit_test(a_search_goes_on_where_it_was),
        cmocka_unit_test(resampling_is_bicubic_where_it_can_be),
        cmocka_unit_test(holes_stay_holes_and_spoil_no_more_than_their_cells),
        cmocka_unit_test(grids_that_cannot_be_resampled_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
