/* Thin products: the order of every sum, spelled out plainly, gives the same bits on this CPU. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "adapters/thin.h"
#include "core/random.h"

enum { MAX_ROWS = 9, MAX_N = 83, MAX_RANK = 9 };

static float values[4][MAX_ROWS * MAX_N];

static int fill(void **state)
{
    (void)state;
    for (int a = 0; a < 4; a++) {
        for (int i = 0; i < MAX_ROWS * MAX_N; i++) {
            values[a][i] =
                (float)random_normal((RandomKey){1, RANDOM_DATA}, (uint32_t)a, (uint32_t)i, 0, 0);
        }
    }
    return 0;
}

/* Sixteen lanes, element i in lane i % 16, then halved four times. */
static float dot(const float *x, const float *f, int n)
{
    volatile float lane[16] = {0};
    for (int i = 0; i < n; i++) {
        volatile float product = x[i] * f[i];
        lane[i % 16] += product;
    }
    for (int half = 8; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) {
            lane[l] += lane[l + half];
        }
    }
    return lane[0];
}

static void projections_have_the_bits_of_sixteen_lanes(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_N; n += n < 34 ? 1 : 7) {
        for (int rank = 1; rank <= MAX_RANK; rank++) {
            for (int rows = 1; rows <= MAX_ROWS; rows++) {
                float h[MAX_ROWS * MAX_RANK];
                thin_project(h, values[0], values[1], rows, n, rank);
                for (int i = 0; i < rows * rank; i++) {
                    float expected = dot(values[0] + i / rank * n, values[1] + i % rank * n, n);
                    assert_memory_equal(&h[i], &expected, sizeof expected);
                }
            }
        }
    }
}

static void expansions_sum_the_rank_first_and_add_once(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_N; n += n < 34 ? 1 : 7) {
        for (int rank = 1; rank <= MAX_RANK; rank++) {
            for (int rows = 1; rows <= MAX_ROWS; rows++) {
                float y[MAX_ROWS * MAX_N];
                memcpy(y, values[2], sizeof y);
                thin_expand(y, values[0], values[1], rows, n, rank);
                for (int i = 0; i < MAX_ROWS * MAX_N; i++) {
                    volatile float sum = 0, expected = values[2][i];
                    for (int j = 0; i < rows * n && j < rank; j++) {
                        volatile float product =
                            values[0][i / n * rank + j] * values[1][j * n + i % n];
                        sum = j ? sum + product : product;
                    }
                    expected = i < rows * n ? expected + sum : expected;
                    assert_true(y[i] == expected);
                }
            }
        }
    }
}

static void mixes_and_outer_products_run_in_order(void **state)
{
    (void)state;
    enum { MANY = MAX_ROWS * MAX_N / MAX_RANK };
    for (int rank = 1; rank <= MAX_RANK; rank++) {
        float z[MAX_ROWS * MAX_RANK];
        double sum[MAX_RANK * MAX_RANK] = {0.25};
        thin_mix(z, values[0], values[1], MAX_ROWS, rank);
        thin_outer(sum, values[0], values[2], MANY, rank);
        for (int i = 0; i < MAX_ROWS * rank; i++) {
            volatile float expected = 0;
            for (int k = 0; k < rank; k++) {
                volatile float product =
                    values[0][i / rank * rank + k] * values[1][k * rank + i % rank];
                expected = k ? expected + product : product;
            }
            assert_true(z[i] == expected);
        }
        for (int i = 0; i < rank * rank; i++) {
            volatile double expected = i ? 0 : 0.25;
            for (int t = 0; t < MANY; t++) {
                expected +=
                    (double)values[0][t * rank + i / rank] * (double)values[2][t * rank + i % rank];
            }
            assert_true(sum[i] == expected);
        }
    }
}

/* Columns 3 to n of wider rows: the numbers of the whole functions on a copy of them; outer
 * products row after row in double. */
static void columns_of_wider_rows_are_as_rows_of_their_own(void **state)
{
    (void)state;
    enum { FIRST = 3 };
    for (int n = 1; n <= MAX_N - FIRST; n += n < 34 ? 3 : 9) {
        for (int rank = 1; rank <= MAX_RANK; rank++) {
            float x[MAX_ROWS * MAX_N], f[MAX_RANK * MAX_N];
            float h[MAX_ROWS * MAX_RANK], part[MAX_ROWS * MAX_RANK];
            float y[MAX_ROWS * MAX_N] = {0}, columns[MAX_ROWS * MAX_N];
            double g[MAX_ROWS * MAX_RANK], sum[MAX_RANK * MAX_N];
            for (int i = 0; i < MAX_ROWS * n; i++) {
                x[i] = values[0][i / n * MAX_N + FIRST + i % n];
                f[i] = values[1][i / n * MAX_N + FIRST + i % n];
                columns[i] = NAN;
            }
            memcpy(part, values[2], sizeof part);
            thin_project(h, x, f, MAX_ROWS, n, rank);
            thin_project_columns(part, values[0] + FIRST, MAX_N, values[1] + FIRST, MAX_N, MAX_ROWS,
                                 n, rank);
            thin_expand(y, values[2], f, MAX_ROWS, n, rank);
            thin_expand_columns(columns, values[2], values[1] + FIRST, MAX_N, MAX_ROWS, n, rank);
            for (int i = 0; i < MAX_ROWS * rank; i++) {
                volatile float expected = values[2][i] + h[i];
                assert_true(part[i] == expected);
                g[i] = (double)values[3][i];
            }
            for (int i = 0; i < MAX_ROWS * n; i++) {
                assert_true(columns[i] == y[i]);
            }
            for (int i = 0; i < rank * n; i++) {
                sum[i] = 0.25 * i;
            }
            thin_outer_columns(sum, g, values[0] + FIRST, MAX_N, MAX_ROWS, n, rank);
            for (int i = 0; i < rank * n; i++) {
                volatile double expected = 0.25 * i;
                for (int t = 0; t < MAX_ROWS; t++) {
                    expected += g[t * rank + i / n] * (double)x[t * n + i % n];
                }
                assert_true(sum[i] == expected);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(projections_have_the_bits_of_sixteen_lanes),
        cmocka_unit_test(expansions_sum_the_rank_first_and_add_once),
        cmocka_unit_test(mixes_and_outer_products_run_in_order),
        cmocka_unit_test(columns_of_wider_rows_are_as_rows_of_their_own),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
