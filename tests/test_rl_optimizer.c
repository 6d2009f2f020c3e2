/* Optimizers against PyTorch's update rules worked out in double precision; clipping; schedules;
 * checkpoints. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rl/optimizer.h"
#include "rl/schedule.h"

static const double gradients[3][3] = {{0.5, -0.25, 1e-3}, {-0.125, 0.75, 2.0}, {0.3, 0.1, -4.5}};

static void check_updates(const char *name, OptimizerSettings settings, const double expected[3][3])
{
    float v[3] = {0.31f, -1.27f, 2.385f}, moments[6] = {0};
    const Optimizer *optimizer = optimizer_find(name);
    for (int t = 0; t < 3; t++) {
        optimizer->update(v, moments, gradients[t], &settings, 0.1, t + 1, 3);
        for (int i = 0; i < 3; i++) {
            /* v and moments are rounded to f32 at each update: a few times 2^-24 of 2.4 */
            if (!(fabs(v[i] - expected[t][i]) < 1e-6)) {
                fail_msg("%s: update %d: v[%d] = %.9g, expected %.9g", name, t + 1, i, v[i],
                         expected[t][i]);
            }
        }
    }
}

static void adamw_is_pytorchs(void **state)
{
    (void)state;
    const double expected[3][3] = {{0.2096900020, -1.1687300040, 2.2826160000},
                                   {0.1625334962, -1.2169802564, 2.2058862253},
                                   {0.0988552357, -1.2616828637, 2.2386980335}};
    OptimizerSettings settings = optimizer_defaults();
    settings.weight_decay = 0.01;
    check_updates("adamw", settings, expected);
}

static void sgd_with_momentum_is_pytorchs(void **state)
{
    (void)state;
    const double expected[3][3] = {{0.2596900000, -1.2437300000, 2.3825150000},
                                   {0.2266513100, -1.2938432700, 2.1778959850},
                                   {0.1666898377, -1.3476513697, 2.4415609755}};
    OptimizerSettings settings = optimizer_defaults();
    settings.weight_decay = 0.01;
    settings.momentum = 0.9;
    check_updates("sgd", settings, expected);
}

static void none_changes_nothing(void **state)
{
    (void)state;
    const double expected[3][3] = {
        {0.31, -1.27, 2.385}, {0.31, -1.27, 2.385}, {0.31, -1.27, 2.385}};
    check_updates("none", optimizer_defaults(), expected);
    assert_null(optimizer_find("adam"));
}

static void clipping_scales_to_the_largest_norm_and_returns_the_norm_before(void **state)
{
    (void)state;
    double gradient[3] = {3, -4, 12};
    assert_true(gradient_clip(gradient, 0, 3) == 13 && gradient[2] == 12);
    assert_true(gradient_clip(gradient, 13.5, 3) == 13 && gradient[2] == 12);
    assert_true(gradient_clip(gradient, 0.5, 3) == 13);
    assert_true(fabs(gradient[1] + 4 * 0.5 / 13.000001) < 1e-15); /* PyTorch adds 1e-6 */
}

static void schedules_warm_up_and_decay(void **state)
{
    (void)state;
    Schedule schedule = {SCHEDULE_CONSTANT, 4};
    assert_true(schedule_rate(&schedule, 2, 1, 12) == 0.5);
    assert_true(schedule_rate(&schedule, 2, 4, 12) == 2);
    assert_true(schedule_rate(&schedule, 2, 12, 12) == 2);
    schedule.kind = SCHEDULE_LINEAR;
    assert_true(schedule_rate(&schedule, 2, 5, 12) == 2);
    assert_true(schedule_rate(&schedule, 2, 9, 12) == 1);
    assert_true(schedule_rate(&schedule, 2, 12, 12) == 0.25);
    schedule.kind = SCHEDULE_COSINE;
    assert_true(schedule_rate(&schedule, 2, 5, 12) == 2);
    assert_true(fabs(schedule_rate(&schedule, 2, 9, 12) - 1) < 1e-15);
    schedule.warmup_steps = 0;
    assert_true(schedule_rate(&schedule, 2, 1, 12) == 2);
    ScheduleKind kind;
    assert_true(schedule_find(&kind, "cosine") && kind == SCHEDULE_COSINE);
    assert_false(schedule_find(&kind, "step"));
    assert_string_equal(schedule_name(SCHEDULE_LINEAR), "linear");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_is_pytorchs),
        cmocka_unit_test(sgd_with_momentum_is_pytorchs),
        cmocka_unit_test(none_changes_nothing),
        cmocka_unit_test(clipping_scales_to_the_largest_norm_and_returns_the_norm_before),
        cmocka_unit_test(schedules_warm_up_and_decay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
